"""One commit on the Hub, even if the answer to it is lost."""

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from json import JSONDecodeError
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled, RepositoryNotFoundError
from huggingface_hub.hf_api import ModelInfo, RepoSibling
from huggingface_hub.utils.sha import git_hash, sha_fileobj

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


_SOMEBODY_COMMITTED = 412


@dataclass(frozen=True)
class Change:
    """What a commit changes.

    Attributes:
        repo_id: The repository.
        branch: Its branch.
        parent: Commit at which the branch stands.
        files: The files to write, by their names in the repository.
        removed: Names of the files to remove.
        message: What the commit is called.
        create_pr: Whether to open a pull request, instead of committing to the branch.
    """

    repo_id: str
    branch: str
    parent: str
    files: Mapping[str, Path]
    removed: Sequence[str]
    message: str
    create_pr: bool

    def is_made(self, info: ModelInfo) -> bool:
        """Tell whether a revision is as this change leaves it."""
        there = {file.rfilename for file in info.siblings or ()}
        return not differing(info, self.files) and there.isdisjoint(self.removed)


@dataclass(frozen=True)
class Commit:
    """A commit on the Hub.

    Attributes:
        oid: Its id.
        pull_request: Number of the pull request that it opened, None without one.
    """

    oid: str
    pull_request: int | None = None


def differing(info: ModelInfo, files: Mapping[str, Path]) -> list[str]:
    """List which files are not at a revision, or have other content there.

    Args:
        info: The revision, with the metadata of its files.
        files: The files, by their names in the repository.
    """
    there = {file.rfilename: file for file in info.siblings or ()}
    return [name for name, path in files.items() if name not in there or not _is_same(path, there[name])]


def commit_once(api: HfApi, change: Change) -> Commit:
    """Commit, again after failures that pass, and never twice.

    The Hub refuses a commit whose parent is not where the branch stands. So a second try is refused if the first one
    arrived, and what stands on the branch tells whose commit that was.

    Args:
        api: The Hub.
        change: What to commit.

    Returns:
        The commit.

    Raises:
        OSError: If it did not arrive, or somebody else committed in between, or what happened cannot be told.
        ValueError: If the Hub does not understand what was sent.
    """
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in change.files.items()),
        *(CommitOperationDelete(path_in_repo=name) for name in change.removed),
    ]
    requests_before = _pull_requests(api, change) if change.create_pr else {}
    waits = iter(WAITS)
    while True:
        try:
            made = api.create_commit(
                change.repo_id,
                operations,
                commit_message=change.message,
                revision=change.branch,
                parent_commit=change.parent,
                create_pr=change.create_pr,
            )
            return Commit(made.oid, made.pr_num)
        except (*FAILURES, RuntimeError) as error:
            found = _look_for(api, change, requests_before, error) if _may_have_arrived(error) else None
            if found is not None:
                return found
            if status_of(error) == _SOMEBODY_COMMITTED:
                raise OSError(
                    f"somebody else has committed to {change.repo_id} in the meantime, nothing was changed: look at "
                    f"{constants.ENDPOINT}/{change.repo_id}/commits/{change.branch}, and publish again."
                ) from error
            if change.create_pr and _may_have_arrived(error):
                # A second try would not be refused, since the branch stands where it stood.
                raise OSError(
                    f"{as_told(error, change.repo_id)} No new pull request is there yet: look at "
                    f"{constants.ENDPOINT}/{change.repo_id}/discussions before you publish again."
                ) from error
            if not pass_by(error, waits):
                raise as_told(error, change.repo_id) from error
        except ValueError as error:
            raise ValueError(" ".join(str(error).split())) from error


def _may_have_arrived(error: BaseException) -> bool:
    status = status_of(error)
    return status == _SOMEBODY_COMMITTED or (may_pass(error) and status != 429)


def _look_for(api: HfApi, change: Change, requests_before: Mapping[str, str], error: BaseException) -> Commit | None:
    """Find the commit whose answer was lost."""
    try:
        return _new_request(api, change, requests_before) if change.create_pr else _commit_since_parent(api, change)
    except OSError as unreachable:
        raise OSError(
            f"{as_told(error, change.repo_id)} Whether the commit arrived is not known, as the Hub could not be asked "
            f"afterwards: publish again when it can; what has arrived is not committed twice."
        ) from unreachable


def _commit_since_parent(api: HfApi, change: Change) -> Commit | None:
    for commit in call(change.repo_id, api.list_repo_commits, change.repo_id, revision=change.branch):
        if commit.commit_id == change.parent:
            return None
        if change.is_made(_info(api, change, commit.commit_id)):
            return Commit(commit.commit_id)
    return None


def _new_request(api: HfApi, change: Change, before: Mapping[str, str]) -> Commit | None:
    for ref, oid in _pull_requests(api, change).items():
        if ref not in before and change.is_made(_info(api, change, oid)):
            return Commit(oid, int(ref.rpartition("/")[2]))
    return None


def _pull_requests(api: HfApi, change: Change) -> dict[str, str]:
    refs = call(change.repo_id, api.list_repo_refs, change.repo_id, include_pull_requests=True)
    return {request.ref: request.target_commit for request in refs.pull_requests}


def _info(api: HfApi, change: Change, revision: str) -> ModelInfo:
    return call(change.repo_id, api.model_info, change.repo_id, revision=revision, files_metadata=True)


def _is_same(path: Path, there: RepoSibling) -> bool:
    if there.lfs is None:
        return there.blob_id == git_hash(path.read_bytes())
    if there.lfs.size != path.stat().st_size:
        return False
    with path.open("rb") as file:
        return there.lfs.sha256 == sha_fileobj(file).hex()
