"""Requests, answers, and the errors of the Hub with the codes that its clients read."""

import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, BinaryIO
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class Request:
    """A request, as it is logged. The status is set when the answer is sent.

    Args:
        method: Such as "GET".
        target: Path and query, as sent.
        headers: By name in lower case.
        source: Stream of the body.
        status: Status of the answer.
        fault: Name of the fault that struck it.
    """

    method: str
    target: str
    headers: dict[str, str]
    source: BinaryIO
    status: int = 0
    fault: str = ""

    @cached_property
    def body(self) -> bytes:
        """The body, read at the first access."""
        return self.source.read(self.size)

    def receive(self) -> None:
        """Wait for the body."""
        _ = self.body

    @property
    def size(self) -> int:
        """Size of the complete body in bytes."""
        return int(self.headers.get("content-length", 0))

    @cached_property
    def raw_path(self) -> str:
        """The quoted path, in which a slash within a revision is `%2F`."""
        return urlsplit(self.target).path

    @cached_property
    def path(self) -> str:
        return unquote(self.raw_path)

    @cached_property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.target).query)

    @property
    def authorized(self) -> bool:
        """Whether the request has a token."""
        return "authorization" in self.headers

    @property
    def token(self) -> str | None:
        return self.headers["authorization"].removeprefix("Bearer ") if self.authorized else None

    def json(self) -> Any:
        return json.loads(self.body)

    def __str__(self) -> str:
        return f"{self.method} {self.path} {self.status}" + (f" ({self.fault})" if self.fault else "")


@dataclass
class Answer:
    """The answer to a request.

    Args:
        status: HTTP status.
        headers: Headers, without Content-Length.
        body: Content.
        sent: Bytes of the body after which the connection is broken. None sends all, -1 not even the status.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    sent: int | None = None


def as_json(value: Any, status: int = 200, **headers: str) -> Answer:
    return Answer(status, {"Content-Type": "application/json", **headers}, json.dumps(value).encode())


class HubError(Exception):
    """An error answer: status, message, and the code by which clients select the error to raise."""

    def __init__(self, status: int, message: str, code: str = "", **headers: str):
        super().__init__(message)
        self.status, self.code, self.headers = status, code, headers

    def answer(self) -> Answer:
        headers = {"X-Error-Message": str(self), **self.headers, **({"X-Error-Code": self.code} if self.code else {})}
        return as_json({"error": str(self)}, self.status, **headers)


def repository_not_found(anonymous: bool) -> HubError:
    """Build the error of a missing repository, which is also that of a private one."""
    if anonymous:
        return HubError(401, "Invalid username or password.", "RepoNotFound")
    return HubError(404, "Repository not found", "RepoNotFound")


def revision_not_found(revision: str) -> HubError:
    return HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def entry_not_found(path: str, revision: str, commit: str) -> HubError:
    return HubError(404, f"{path} does not exist on {revision!r}", "EntryNotFound", **{"X-Repo-Commit": commit})
