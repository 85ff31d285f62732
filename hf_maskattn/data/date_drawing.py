"""Dates in an order that looks random, each with draws of its own: the same on every machine, whatever else is drawn."""

import datetime
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

Choice = TypeVar("Choice")


@dataclass(frozen=True)
class DrawnDate:
    """A date and the number that decides what is drawn for it.

    Args:
        digest: SHA-256 of the ISO date.
        date: The date.
    """

    digest: bytes
    date: datetime.date

    def draw(self, choices: Sequence[Choice], number: int) -> Choice:
        """Draw one of several choices.

        Args:
            choices: What there is to draw from.
            number: Which draw of this date it is, 0 or 1; the draws do not depend on each other.

        Returns:
            The choice.
        """
        # The order of the dates looks at the first bytes of the digest; the draws look at the last ones.
        end = len(self.digest) - 8 * number
        return choices[int.from_bytes(self.digest[end - 8 : end]) % len(choices)]


def draw_dates(first: datetime.date, last: datetime.date) -> list[DrawnDate]:
    """Put every date of a range into a random order.

    Args:
        first: First date of the range.
        last: Last date, included.

    Returns:
        The dates in the order of their digests.
    """
    dates = [first + datetime.timedelta(days=day) for day in range((last - first).days + 1)]
    drawn = [DrawnDate(hashlib.sha256(date.isoformat().encode()).digest(), date) for date in dates]
    return sorted(drawn, key=lambda date: date.digest)
