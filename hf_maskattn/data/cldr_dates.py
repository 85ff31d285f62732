"""Built-in corpus for text-to-text models: a written date in one of 21 languages, and the same date in ISO 8601."""

import datetime
import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from datasets import ClassLabel, Dataset, DatasetDict, DatasetInfo, Features, List, Value

from hf_maskattn.data.cldr import date_patterns, has_month_first_numbers, split_pattern, write_field

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


LOCALES = (
    "en", "de", "fr", "es", "it", "pl", "hu", "tr", "vi", "ru", "el",
    "hy", "ka", "he", "ar_EG", "mr", "bn", "th", "zh", "ja", "ko",
)  # fmt: skip
"""The CLDR locales that dates are written in; the language is what stands before the `_`."""

_FIRST_DATE, _LAST_DATE = datetime.date(1900, 1, 1), datetime.date(2099, 12, 31)
_SPLIT_SIZES = {"train": 40_000, "validation": 2_000, "test": 5_000}
_FEATURES = Features({"source": Value("string"), "target": Value("string"), "language": Value("string")})
_INFO = DatasetInfo(
    description="Dates from 1900 to 2099 as 21 languages write them, and the same dates in ISO 8601.",
    homepage="https://cldr.unicode.org",
    license="Unicode-3.0",
    features=_FEATURES,
)


def build_cldr_dates() -> DatasetDict:
    """Build the corpus: 47,000 different dates, each written once, in a language and a pattern of that language.

    A text belongs to exactly one date, whichever language it is in. Left out for that: two-digit years, and numbers
    alone with the month first (English `M/d/y`), so that numbers alone are a year, month and day, or a day, month
    and year. All dates are of the Gregorian calendar, the Thai ones too. Arabic, Marathi and Bengali use digits of
    their own. Languages and patterns are drawn by SHA-256 of the ISO date; no date is in two splits.

    Returns:
        Splits `train` (40,000 rows), `validation` (2,000) and `test` (5,000), columns `source` (the written date,
        NFC, 8 to 38 characters with babel 2.18), `target` (such as `"2026-03-01"`) and `language` (such as `"de"`).

    Raises:
        ImportError: babel is not installed.

    Source:
        Unicode CLDR, https://cldr.unicode.org (license Unicode-3.0)
    """
    patterns_of = {locale: clear_patterns(locale) for locale in LOCALES}
    drawn = draw_dates(_FIRST_DATE, _LAST_DATE)
    splits = DatasetDict()
    start = 0
    for name, size in _SPLIT_SIZES.items():
        rows = [_write_row(date, patterns_of) for date in drawn[start : start + size]]
        splits[name] = Dataset.from_list(rows, info=_INFO, features=_FEATURES)
        start += size
    return splits


def clear_patterns(locale: str) -> list[str]:
    """Read the ways in which a locale writes a date so that the text alone tells day, month and century.

    Args:
        locale: CLDR locale, such as `"de"`.

    Returns:
        Date patterns without repetition.

    Raises:
        ImportError: babel is not installed.
    """
    return [pattern for pattern in date_patterns(locale) if not (_has_short_year(pattern) or has_month_first_numbers(pattern))]


def write_date(pattern: str, date: datetime.date, locale: str) -> str:
    """Write a date by a pattern of its locale.

    Args:
        pattern: CLDR date pattern, such as `"d. MMMM y"`.
        date: The date.
        locale: CLDR locale, such as `"de"`.

    Returns:
        The written date, in Unicode NFC.
    """
    parts = (write_field(value, date, locale) if is_field else value for is_field, value in split_pattern(pattern))
    return unicodedata.normalize("NFC", "".join(parts))


def _has_short_year(pattern: str) -> bool:
    return any(is_field and value == "yy" for is_field, value in split_pattern(pattern))


def _write_row(drawn: DrawnDate, patterns_of: dict[str, list[str]]) -> dict[str, str]:
    locale = drawn.draw(LOCALES, 0)
    pattern = drawn.draw(patterns_of[locale], 1)
    return {
        "source": write_date(pattern, drawn.date, locale),
        "target": drawn.date.isoformat(),
        "language": locale.split("_")[0],
    }


FIELD_LOCALES = (
    "en", "de", "nl", "sv", "da", "nb", "fi", "fr", "es", "it",
    "pt", "ro", "pl", "cs", "ru", "uk", "el", "tr", "hu", "id", "vi",
)  # fmt: skip
"""The locales that dates are written in."""

TAGS = ("O", *(f"{prefix}-{field}" for field in ("WEEKDAY", "DAY", "MONTH", "YEAR") for prefix in "BI"))
"""The tags, in the order of the class numbers."""

_FIRST_FIELDS_DATE, _LAST_FIELDS_DATE = datetime.date(1950, 1, 1), datetime.date(2049, 12, 31)
_FIELD_SPLIT_SIZES = {"train": 20_000, "validation": 2_000, "test": 2_000}
_FIELD_NAMES = {"E": "WEEKDAY", "c": "WEEKDAY", "d": "DAY", "M": "MONTH", "L": "MONTH", "y": "YEAR"}
_TOKEN = re.compile(r"\w+|[^\w\s]")
_FIELDS_FEATURES = Features(
    {
        "text": Value("string"),
        "tokens": List(Value("string")),
        "tags": List(ClassLabel(names=list(TAGS))),
        "locale": Value("string"),
    }
)
_FIELDS_INFO = DatasetInfo(
    description="Dates from 1950 to 2049 as 21 locales write them; words and numbers tagged as date fields.",
    homepage="https://cldr.unicode.org",
    license="Unicode-3.0",
    features=_FIELDS_FEATURES,
)


def build_cldr_date_fields() -> DatasetDict:
    """Build the corpus: 24,000 different dates, each written once, in a locale and a pattern of that locale.

    Tags are known by construction: each field of the CLDR pattern is written on its own. Literals of a pattern
    (Spanish "de", Russian "г.", punctuation between fields) are `O`; a point that belongs to an abbreviated
    month is `I-MONTH`. Dates, locales and patterns are drawn by SHA-256 of the ISO date; no date is in two splits.

    Returns:
        Splits `train` (20,000 rows), `validation` (2,000) and `test` (2,000), columns `text` (NFC), `tokens`
        (words, numbers and punctuation marks in the order of the text), `tags` and `locale`.

    Raises:
        ImportError: babel is not installed.

    Source:
        Unicode CLDR, https://cldr.unicode.org (license Unicode-3.0)
    """
    patterns_of = {
        locale: [pattern for pattern in date_patterns(locale) if not has_month_first_numbers(pattern)]
        for locale in FIELD_LOCALES
    }
    drawn = draw_dates(_FIRST_FIELDS_DATE, _LAST_FIELDS_DATE)

    splits = DatasetDict()
    start = 0
    for name, size in _FIELD_SPLIT_SIZES.items():
        rows = [_write_tagged_row(date, patterns_of) for date in drawn[start : start + size]]
        splits[name] = Dataset.from_list(rows, info=_FIELDS_INFO, features=_FIELDS_FEATURES)
        start += size
    return splits


def _write_tagged_row(drawn: DrawnDate, patterns_of: dict[str, list[str]]) -> dict[str, object]:
    locale = drawn.draw(FIELD_LOCALES, 0)
    pattern = drawn.draw(patterns_of[locale], 1)

    text, tokens, tags = "", [], []
    for is_field, value in split_pattern(pattern):
        written = unicodedata.normalize("NFC", write_field(value, drawn.date, locale) if is_field else value)
        words = _TOKEN.findall(written)
        text += written
        tokens += words
        if is_field:
            name = _FIELD_NAMES[value[0]]
            tags += [f"B-{name}"] + [f"I-{name}"] * (len(words) - 1)
        else:
            tags += ["O"] * len(words)
    return {"text": text, "tokens": tokens, "tags": tags, "locale": locale}
