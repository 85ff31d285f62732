"""What can go wrong between a client and the Hub, on demand.

A fault takes the request and the function that answers it, and returns another answer. It decides whether the server
does the work at all.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from tests.hub.messages import Answer, HubError, Request

Fault = Callable[[Request, Callable[[Request], Answer]], Answer]


def status(code: int, **headers: str) -> Fault:
    """Refuse, with nothing done; `retry_after="1"` becomes the header `Retry-After: 1`."""
    named = {name.replace("_", "-").title(): value for name, value in headers.items()}

    def refused(request: Request, answer: Callable[[Request], Answer]) -> Answer:
        return HubError(code, "the server is told to fail", **named).answer()

    return refused


def dropped(request: Request, answer: Callable[[Request], Answer]) -> Answer:
    """Do the work, and cut the connection in the middle of the answer's body."""
    full = answer(request)
    return replace(full, sent=len(full.body) // 2)


def lost(request: Request, answer: Callable[[Request], Answer]) -> Answer:
    """Do the work, and cut the connection before the answer."""
    return replace(answer(request), sent=-1)


def unheard(request: Request, answer: Callable[[Request], Answer]) -> Answer:
    """Do nothing, and cut the connection when the request has arrived."""
    request.receive()
    return Answer(sent=-1)


def hung_up(request: Request, answer: Callable[[Request], Answer]) -> Answer:
    """Do nothing, and cut the connection when half of the request has arrived."""
    request.body = request.source.read(request.size // 2)
    return Answer(sent=-1)


def truncated(request: Request, answer: Callable[[Request], Answer]) -> Answer:
    """Send the first half of the content as if it were the whole."""
    full = answer(request)
    return replace(full, body=full.body[: len(full.body) // 2])


def corrupted(request: Request, answer: Callable[[Request], Answer]) -> Answer:
    """Send content of the right size in which the bytes of the second half are flipped."""
    full = answer(request)
    half = len(full.body) // 2
    return replace(full, body=full.body[:half] + bytes(byte ^ 0xFF for byte in full.body[half:]))


def crowded_out(request: Request, answer: Callable[[Request], Answer]) -> Answer:
    """Refuse with 429 and tell the client to come back after a second."""
    return status(429, retry_after="1")(request, answer)


@dataclass
class PlannedFault:
    """A fault for the next `times` requests of a method whose path (unquoted) fits a pattern and whose body holds `body`."""

    method: str
    pattern: str
    fault: Fault
    times: int
    body: bytes = b""

    def fits(self, request: Request) -> bool:
        fits = self.times > 0 and request.method == self.method and fnmatchcase(request.path, self.pattern)
        return fits and (not self.body or self.body in request.body)

    @property
    def name(self) -> str:
        return self.fault.__qualname__.split(".")[0]
