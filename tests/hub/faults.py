"""Faults between a client and the Hub.

A fault takes the request and the function that answers it, and returns another answer. It decides whether the server handles
the request at all.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from tests.hub.messages import Answer, HubError, Request

Fault = Callable[[Request, Callable[[Request], Answer]], Answer]


def status(code: int, **headers: str) -> Fault:
    """Refuse the request. `retry_after="1"` becomes the header `Retry-After: 1`."""
    named = {name.replace("_", "-").title(): value for name, value in headers.items()}

    def refused(request: Request, answer: Callable[[Request], Answer]) -> Answer:
        return HubError(code, "the server fails as planned", **named).answer()

    return refused


def dropped(request: Request, answer: Callable[[Request], Answer]) -> Answer:
    """Handle the request, and break the connection in the middle of the answer."""
    full = answer(request)
    return replace(full, sent=len(full.body) // 2)


def lost(request: Request, answer: Callable[[Request], Answer]) -> Answer:
    """Handle the request, and break the connection before the answer."""
    return replace(answer(request), sent=-1)


def unheard(request: Request, answer: Callable[[Request], Answer]) -> Answer:
    """Break the connection after the request has arrived, without handling it."""
    request.receive()
    return Answer(sent=-1)


def truncated(request: Request, answer: Callable[[Request], Answer]) -> Answer:
    """Send the first half of the content as if it were complete."""
    full = answer(request)
    return replace(full, body=full.body[: len(full.body) // 2])


def corrupted(request: Request, answer: Callable[[Request], Answer]) -> Answer:
    """Send content of the right size with other bytes in its second half."""
    full = answer(request)
    half = len(full.body) // 2
    return replace(full, body=full.body[:half] + bytes(byte ^ 0xFF for byte in full.body[half:]))


def crowded_out(request: Request, answer: Callable[[Request], Answer]) -> Answer:
    """Refuse with 429, and ask the client to wait for a second."""
    return status(429, retry_after="1")(request, answer)


@dataclass
class PlannedFault:
    """A fault for the next `times` requests whose method, unquoted path (as a pattern) and part of the body match."""

    method: str
    pattern: str
    fault: Fault
    times: int
    body: bytes = b""
    has_struck: bool = False

    def matches(self, request: Request) -> bool:
        matches = self.times > 0 and request.method == self.method and fnmatchcase(request.path, self.pattern)
        return matches and (not self.body or self.body in request.body)

    @property
    def name(self) -> str:
        return self.fault.__qualname__.split(".")[0]
