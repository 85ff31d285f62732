"""The routes of the loopback Hub and the checks of access."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import unquote

from tests.hub.messages import Answer, HubError, Request, repository_not_found
from tests.hub.repositories import Repository

if TYPE_CHECKING:
    from tests.hub.server import Hub

Route = Callable[..., Answer]
ROUTES: list[tuple[str, re.Pattern[str], Route]] = []

# Parts of a quoted path: {kind}, {prefix} and {name} (with one slash) of a repository, {rest} to the end, others one step.
_PARTS = {"kind": "models|datasets|spaces", "prefix": "(?:(?:datasets|spaces)/)?", "name": "[^/]+/[^/]+?", "rest": ".+"}


def route(method: str, pattern: str) -> Callable[[Route], Route]:
    """Register a function for a method and paths such as `/api/{kind}/{name}/refs`. It gets the unquoted parts."""
    expression = re.sub(
        r"\{(\w+)\}", lambda part: f"(?P<{part[1]}>{_PARTS.get(part[1], '[^/]+')})", pattern.replace(".", r"\.")
    )

    def register(function: Route) -> Route:
        ROUTES.append((method, re.compile(expression), function))
        return function

    return register


def find(request: Request) -> tuple[Route, dict[str, str]]:
    """Return the function that answers a request, and the parts of its path."""
    for method, expression, function in ROUTES:
        match = expression.fullmatch(request.raw_path)
        if match and method == request.method:
            return function, {name: unquote(part) for name, part in match.groupdict().items() if part is not None}
    raise HubError(404, f"no such path: {request.method} {request.raw_path}")


def readable(hub: "Hub", request: Request, name: str, kind: str = "", prefix: str = "") -> Repository:
    """Return the repository of a request, if its sender has read access."""
    repository = hub.repositories.get((kind or prefix.rstrip("/") or "models", name))
    user = hub.user(request)
    if repository is None or (repository.private and (user is None or user.name != repository.owner)):
        raise repository_not_found(anonymous=user is None)
    return repository


def writable(hub: "Hub", request: Request, name: str, kind: str = "", prefix: str = "") -> Repository:
    """Return the repository of a request, if its sender has write access."""
    repository = readable(hub, request, name, kind, prefix)
    check_write_right(hub, request, repository.owner)
    return repository


def check_write_right(hub: "Hub", request: Request, owner: str) -> None:
    user = hub.user(request)
    if user is None:
        raise HubError(401, "Invalid username or password.")
    if user.name != owner or user.role != "write":
        raise HubError(403, f"You don't have the rights to write to the namespace {owner!r} with this token.")
