"""Calls of the Hub: what can pass is tried again, and what cannot is told in one line with the way out."""

import logging
import re
import time
from collections.abc import Callable, Iterator
from json import JSONDecodeError
from typing import Any

from huggingface_hub import constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

logger = logging.getLogger(__name__)

WAITS = (1.0, 2.0, 4.0)
"""Seconds before the second try and those after it."""
LONGEST_WAIT = 60.0
"""Seconds that the Hub may ask to be left alone and is; if it asks for more, the call fails."""
FAILURES = (HTTPError, ConnectionError, TimeoutError, JSONDecodeError)
"""What the client raises when the Hub refuses, fails, or cannot be reached; while it uploads, RuntimeError from one of them."""

LOG_IN = "run `hf auth login`, or set the variable HF_TOKEN"


def require_token() -> None:
    """Refuse to go on without a token.

    Raises:
        PermissionError: If there is none.
    """
    if get_token() is None:
        raise PermissionError(
            f"there is no token for {constants.ENDPOINT}: {LOG_IN}. A token with the right to write is made at "
            f"{constants.ENDPOINT}/settings/tokens."
        )


def call(repo_id: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call what reads or does no harm when done twice, again after failures that pass.

    Args:
        repo_id: The repository it is about, for messages.
        function: A method of `HfApi`.
        *args: Its arguments.
        **kwargs: Its arguments.

    Returns:
        What it returns.

    Raises:
        OSError: See `as_told`; PermissionError, FileNotFoundError, ConnectionError among them, or ValueError.
    """
    waits = iter(WAITS)
    while True:
        try:
            return function(*args, **kwargs)
        except FAILURES as error:
            if not pass_by(error, waits):
                raise as_told(error, repo_id) from error


def status_of(error: BaseException) -> int | None:
    """Find the HTTP status of a failure, None if there was no answer that could be read."""
    failure = _root(error)
    return failure.response.status_code if isinstance(failure, HfHubHTTPError) else None


def may_pass(error: BaseException) -> bool:
    """Tell whether a call that failed may succeed if it is made again."""
    failure, status = _root(error), status_of(error)
    if isinstance(failure, OfflineModeIsEnabled) or not isinstance(failure, FAILURES):
        return False
    return status is None or status in (408, 429) or status >= 500


def pass_by(error: BaseException, waits: Iterator[float]) -> bool:
    """Wait until a call may be made again.

    Args:
        error: How it failed.
        waits: Seconds of the waits that are left; one is taken.

    Returns:
        False if it is of no use, or was tried often enough.
    """
    wait = next(waits, None) if may_pass(error) else None
    if wait is None:
        return False
    asked = _asked_to_wait(error)
    if asked is not None:
        if asked > LONGEST_WAIT:
            return False
        wait = max(wait, asked)
    logger.info(f"{constants.ENDPOINT}: {_reason(error)}; trying again in {wait:g} s ...")
    time.sleep(wait)
    return True


def as_told(error: BaseException, repo_id: str) -> Exception:
    """Turn a failure into an error of one line that says what to do.

    Args:
        error: How a call failed.
        repo_id: The repository it was about.

    Returns:
        PermissionError without the right, FileNotFoundError if there is no such thing, ConnectionError if the Hub cannot be
        reached, ValueError for a request that it does not understand, OSError for the rest.
    """
    failure, status, reason = _root(error), status_of(error), _reason(error)
    if isinstance(failure, OfflineModeIsEnabled):
        return ConnectionError("the variable HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) is set: unset it to reach the Hub.")
    if not isinstance(failure, FAILURES):
        return OSError(f"the upload to {constants.ENDPOINT} failed ({reason}): try again later.")
    if status is None:
        return ConnectionError(f"{constants.ENDPOINT} cannot be reached, or broke off ({reason}): try again later.")
    if status == 401 and not isinstance(failure, RepositoryNotFoundError):
        return PermissionError(f"{constants.ENDPOINT} does not accept the token ({reason}): {LOG_IN}.")
    if status in (401, 404):
        return FileNotFoundError(
            f"{constants.ENDPOINT} has no {repo_id}, or the token may not see it ({reason}): check the name, and {LOG_IN}."
        )
    if status == 403:
        return PermissionError(
            f"the token may not write to {repo_id} ({reason}): make one with that right at "
            f"{constants.ENDPOINT}/settings/tokens, then {LOG_IN}."
        )
    if status == 429:
        return OSError(f"{constants.ENDPOINT} has had too many requests ({reason}): try again later.")
    if status >= 500:
        return OSError(f"{constants.ENDPOINT} failed with {status} ({reason}): try again later.")
    return ValueError(f"{constants.ENDPOINT} refuses with {status} what was sent for {repo_id}: {reason}.")


def _root(error: BaseException) -> BaseException:
    """Find the failure of HTTP behind what the client makes of it while it uploads."""
    while isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _reason(error: BaseException) -> str:
    failure = _root(error)
    told = failure.server_message if isinstance(failure, HfHubHTTPError) else None
    return " ".join((told or str(failure) or type(failure).__name__).split()).rstrip(".")


def _asked_to_wait(error: BaseException) -> float | None:
    failure = _root(error)
    if not isinstance(failure, HfHubHTTPError):
        return None
    headers = failure.response.headers
    match = re.fullmatch(r"\d{1,9}", headers.get("Retry-After", "")) or re.search(r"t=(\d{1,9})", headers.get("RateLimit", ""))
    return float(match[match.lastindex or 0]) if match else None
