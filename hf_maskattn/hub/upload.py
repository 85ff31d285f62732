"""Calls to the Hub that are retried, and commits that are made once even if their answer is lost."""

import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from json import JSONDecodeError
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

logger = logging.getLogger(__name__)

WAITS = (1.0, 2.0, 4.0)
"""Seconds to wait before each retry."""
MAX_WAIT = 60.0
"""If the Hub asks to wait longer than this many seconds, the call fails."""
FAILURES = (HTTPError, ConnectionError, TimeoutError, JSONDecodeError, RuntimeError)
"""What huggingface_hub raises if the Hub refuses, fails or cannot be reached. Uploads wrap these in a RuntimeError."""

LOG_IN = "Run `hf auth login`, or set the variable HF_TOKEN."
_PARENT_MOVED = 412


def require_token() -> None:
    """Check that there is a token.

    Raises:
        PermissionError: If there is none.
    """
    if get_token() is None:
        raise PermissionError(
            f"There is no token for {constants.ENDPOINT}. {LOG_IN} Create a token with write access at "
            f"{constants.ENDPOINT}/settings/tokens."
        )


def call_with_retries(
    repo_id: str,
    function: Callable[..., Any],
    *args: Any,
    find_result: Callable[[Exception], Any] | None = None,
    **kwargs: Any,
) -> Any:
    """Call a method of `HfApi`, again after transient failures.

    Args:
        repo_id: The repository, for errors.
        function: The method.
        *args: Its arguments.
        find_result: Looks, after a failure, for the result of a call that must not be made twice. Returns None if there is
            none. Without it the method has to be safe to repeat.
        **kwargs: Its arguments.

    Returns:
        What the method returns.

    Raises:
        OSError: See `to_readable_error`.
        ValueError: Likewise.
    """
    waits = iter(WAITS)
    while True:
        try:
            return function(*args, **kwargs)
        except FAILURES as error:
            result = None if find_result is None else find_result(error)
            if result is not None:
                return result
            if not _wait_for_retry(error, waits):
                raise to_readable_error(error, repo_id) from error


def is_transient(error: BaseException) -> bool:
    """Whether a call that failed may succeed if it is repeated."""
    failure, status = _unwrap(error), _status(error)
    if isinstance(failure, OfflineModeIsEnabled) or not isinstance(failure, FAILURES) or type(failure) is RuntimeError:
        return False
    return status is None or status in (408, 429) or status >= 500


def to_readable_error(error: BaseException, repo_id: str) -> Exception:
    """Convert a failure to an error of one line with a way out.

    Returns:
        PermissionError without access, FileNotFoundError if there is no such repository, ConnectionError if the Hub cannot be
        reached, ValueError for an invalid request, OSError otherwise.
    """
    failure, status, message, endpoint = _unwrap(error), _status(error), _message(error), constants.ENDPOINT
    if isinstance(failure, OfflineModeIsEnabled):
        return ConnectionError("HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set. Unset it to reach the Hub.")
    if not isinstance(failure, FAILURES) or type(failure) is RuntimeError:
        return OSError(f"The upload to {endpoint} failed ({message}). Try again later.")
    if status is None:
        return ConnectionError(f"{endpoint} could not be reached, or the connection broke ({message}). Try again later.")
    if status == 401 and not isinstance(failure, RepositoryNotFoundError):
        return PermissionError(f"{endpoint} rejected the token ({message}). {LOG_IN}")
    if status in (401, 404):
        return FileNotFoundError(
            f"{endpoint} has no repository {repo_id}, or the token has no access to it ({message}). Check the name. {LOG_IN}"
        )
    if status == 403:
        return PermissionError(
            f"The token has no write access to {repo_id} ({message}). Create one at {endpoint}/settings/tokens. {LOG_IN}"
        )
    if status == 429:
        return OSError(f"{endpoint} received too many requests ({message}). Try again later.")
    if status >= 500:
        return OSError(f"{endpoint} failed with status {status} ({message}). Try again later.")
    return ValueError(f"{endpoint} rejected the request for {repo_id} with status {status}: {message}.")


@dataclass(frozen=True)
class Commit:
    """A commit on the Hub.

    Attributes:
        oid: Its id.
        pull_request: Number of the pull request that it opened, None without one.
    """

    oid: str
    pull_request: int | None = None


@dataclass(frozen=True)
class FolderCommit:
    """A commit that makes a repository equal to a folder.

    Huggingface_hub's `upload_folder` is not used: with Xet it splits a folder into several commits and repeats a commit whose
    answer was lost.

    Attributes:
        repo_id: The repository.
        branch: Its branch.
        parent: The commit that the branch points to.
        folder: The folder, without subfolders.
        changed: Names of the files to upload.
        removed: Names of the files to remove.
        message: The commit message.
        create_pr: Whether to open a pull request instead of committing to the branch.
    """

    repo_id: str
    branch: str
    parent: str
    folder: Path
    changed: Sequence[str]
    removed: Sequence[str]
    message: str
    create_pr: bool

    def make(self, api: HfApi) -> Commit:
        """Commit, again after transient failures, and never twice.

        The Hub rejects a commit whose parent is not the head of the branch. So a retry is rejected if the first attempt had
        arrived, and the commits on the branch show whose commit arrived.

        Raises:
            OSError: If it was not made, somebody else committed in between, or the outcome is unknown.
            ValueError: If the Hub rejects the request.
        """
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=self.folder / name) for name in self.changed),
            *(CommitOperationDelete(path_in_repo=name) for name in self.removed),
        ]
        earlier_requests = self._list_pull_requests(api).keys() if self.create_pr else ()

        def find_commit(error: Exception) -> Commit | None:
            is_rejected = _status(error) == _PARENT_MOVED
            if not is_rejected and (not is_transient(error) or _status(error) == 429):
                return None  # it cannot have arrived
            try:
                found = self._find_pull_request(api, earlier_requests) if self.create_pr else self._find_on_branch(api)
            except OSError as unreachable:
                raise OSError(
                    f"{to_readable_error(error, self.repo_id)} It is unknown whether the commit arrived, because the Hub could "
                    "not be reached afterwards. Publish again later: a commit that arrived is not made twice."
                ) from unreachable
            page = f"{constants.ENDPOINT}/{self.repo_id}"
            if found is None and is_rejected:
                raise OSError(
                    f"Somebody else committed to {self.repo_id} at the same time, and nothing was changed. Check "
                    f"{page}/commits/{self.branch}, and publish again."
                ) from error
            if found is None and self.create_pr:
                # A retry would not be rejected, because the branch has not moved.
                raise OSError(
                    f"{to_readable_error(error, self.repo_id)} There is no new pull request yet. Check {page}/discussions "
                    "before you publish again."
                ) from error
            return found

        def create_commit() -> Commit:
            info = api.create_commit(
                self.repo_id,
                operations,
                commit_message=self.message,
                revision=self.branch,
                parent_commit=self.parent,
                create_pr=self.create_pr,
            )
            return Commit(info.oid, info.pr_num)

        try:
            return call_with_retries(self.repo_id, create_commit, find_result=find_commit)
        except ValueError as error:
            raise ValueError(" ".join(str(error).split())) from error

    def _find_on_branch(self, api: HfApi) -> Commit | None:
        for commit in call_with_retries(self.repo_id, api.list_repo_commits, self.repo_id, revision=self.branch):
            if commit.commit_id == self.parent:
                return None
            if self._is_content_of(api, commit.commit_id):
                return Commit(commit.commit_id)
        return None

    def _find_pull_request(self, api: HfApi, earlier: Any) -> Commit | None:
        for ref, oid in self._list_pull_requests(api).items():
            if ref not in earlier and self._is_content_of(api, oid):
                return Commit(oid, int(ref.rpartition("/")[2]))
        return None

    def _list_pull_requests(self, api: HfApi) -> dict[str, str]:
        refs = call_with_retries(self.repo_id, api.list_repo_refs, self.repo_id, include_pull_requests=True)
        return {request.ref: request.target_commit for request in refs.pull_requests}

    def _is_content_of(self, api: HfApi, revision: str) -> bool:
        changed, missing = compare_with_hub(api, self.repo_id, revision, self.folder)
        return not changed and missing.isdisjoint(self.removed)


def compare_with_hub(api: HfApi, repo_id: str, revision: str, folder: Path) -> tuple[list[str], set[str]]:
    """Compare a folder with a revision of a repository by checksums.

    Returns:
        Names of the files of the folder that the revision does not have or has with other content, and names of the files that
        only the revision has.
    """
    found = call_with_retries(repo_id, api.verify_repo_checksums, repo_id, revision=revision, local_dir=folder)
    return sorted([*found.extra_paths, *(file["path"] for file in found.mismatches)]), set(found.missing_paths)


def _wait_for_retry(error: BaseException, waits: Iterator[float]) -> bool:
    """Wait for the next of `waits`, or as long as the Hub requests. Returns False if no retry can help or none is left."""
    wait = next(waits, None) if is_transient(error) else None
    if wait is None:
        return False
    requested = _requested_wait(error)
    if requested is not None:
        if requested > MAX_WAIT:
            return False
        wait = max(wait, requested)
    logger.info(f"{constants.ENDPOINT}: {_message(error)}. Retrying in {wait:g} s ...")
    time.sleep(wait)
    return True


def _unwrap(error: BaseException) -> BaseException:
    """Return the cause of a RuntimeError of an upload."""
    while isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _status(error: BaseException) -> int | None:
    """Return the HTTP status of a failure, None if there was no readable answer."""
    failure = _unwrap(error)
    return failure.response.status_code if isinstance(failure, HfHubHTTPError) else None


def _message(error: BaseException) -> str:
    failure = _unwrap(error)
    message = failure.server_message if isinstance(failure, HfHubHTTPError) else None
    return " ".join((message or str(failure) or type(failure).__name__).split()).rstrip(".")


def _requested_wait(error: BaseException) -> float | None:
    failure = _unwrap(error)
    if not isinstance(failure, HfHubHTTPError):
        return None
    headers = failure.response.headers
    match = re.fullmatch(r"\d{1,9}", headers.get("Retry-After", "")) or re.search(r"t=(\d{1,9})", headers.get("RateLimit", ""))
    return float(match[match.lastindex or 0]) if match else None
