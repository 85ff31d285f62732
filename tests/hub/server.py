"""A Hub on a free local port for unmodified clients. It logs every request and fails on demand."""

import secrets
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.hub import changes, downloads, information  # noqa: F401  (their routes)
from tests.hub.faults import Fault, PlannedFault
from tests.hub.messages import Answer, HubError, Request
from tests.hub.repositories import Blob, Repository
from tests.hub.routes import find


@dataclass(frozen=True)
class User:
    """The user of a token and its role, "read" or "write"."""

    name: str
    role: str


class Hub:
    """Repositories of models and datasets, with a second server for large files.

    Attributes:
        url: URL of the Hub, for `HF_ENDPOINT`.
        large_files_url: URL of the large files.
        token: Token of the user "user" with write access.
        log: Every request, in the order of the answers.
        repositories: By kind ("models", "datasets") and name.
    """

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.log: list[Request] = []
        self._users: dict[str, User] = {}
        self._faults: list[PlannedFault] = []
        self._lock = threading.RLock()
        self._servers = [_Server(self), _Server(self)]
        self.url = f"http://127.0.0.1:{self._servers[0].server_port}"
        # Another name, since huggingface_hub 1 tells hosts apart by their names only.
        self.large_files_url = f"http://localhost:{self._servers[1].server_port}"
        self.token = self.new_token()

    def __enter__(self) -> "Hub":
        for server in self._servers:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def new_token(self, user: str = "user", role: str = "write") -> str:
        """Create a token of a user with the role "read" or "write"."""
        token = f"hf_{secrets.token_hex(17)}"
        self._users[token] = User(user, role)
        return token

    def create(
        self, name: str, files: Mapping[str, Blob | bytes | str] | None = None, *, kind: str = "models", private: bool = False
    ) -> Repository:
        """Create a repository, and a commit if there are files."""
        with self._lock:
            repository = self.repositories[kind, name] = Repository(kind, name, private=private)
            if files:
                repository.commit(files, title="files")
        return repository

    def repository(self, name: str, kind: str = "models") -> Repository:
        return self.repositories[kind, name]

    def fail(self, method: str, pattern: str, fault: Fault, *, times: int = 1, body: str = "") -> None:
        """Plan a fault of `tests/hub/faults.py` for the next requests of a method whose path matches a pattern.

        Args:
            method: Such as "GET".
            pattern: Of the path, unquoted, without the query, such as `"*/commit/main"`; `*` includes slashes.
            fault: The fault.
            times: Number of requests.
            body: Text that the body of the request must contain.
        """
        with self._lock:
            self._faults.append(PlannedFault(method, pattern, fault, times, body.encode()))

    def heal(self) -> None:
        """Remove all planned faults."""
        with self._lock:
            self._faults.clear()

    def waiting_faults(self) -> list[str]:
        """Names of the planned faults that have struck no request."""
        return [fault.name for fault in self._faults if not fault.has_struck]

    def requests(self, method: str = "*", pattern: str = "*") -> list[Request]:
        """Return the logged requests of a method whose path matches a pattern."""
        return [request for request in self.log if fnmatchcase(request.method, method) and fnmatchcase(request.path, pattern)]

    def user(self, request: Request) -> User | None:
        """Return the user of the token of a request, None without a token."""
        if request.token is None:
            return None
        if request.token not in self._users:
            raise HubError(401, "Invalid credentials in Authorization header")
        return self._users[request.token]

    def page(self, kind: str, name: str) -> str:
        """Return the page of a repository."""
        return f"{self.url}/{'' if kind == 'models' else f'{kind}/'}{name}"

    def answer(self, request: Request) -> Answer:
        """Answer a request, with its planned fault, and log it."""
        planned = self._plan(request)
        if planned is None:
            answer = self._answer(request)
        else:
            request.fault = planned.name
            answer = planned.fault(request, self._answer)
        request.status = answer.status
        with self._lock:
            self.log.append(request)
        return answer

    def _plan(self, request: Request) -> PlannedFault | None:
        with self._lock:
            planned = next((fault for fault in self._faults if fault.matches(request)), None)
            if planned is not None:
                planned.times -= 1
                planned.has_struck = True
        return planned

    def _answer(self, request: Request) -> Answer:
        """Handle one request at a time, after its body has arrived."""
        request.receive()
        try:
            with self._lock:
                function, parts = find(request)
                return function(self, request, **parts)
        except HubError as error:
            return error.answer()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, hub: Hub):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub = hub

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore broken connections. Anything else is a bug of this server."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_request(self, *args: object) -> None:
        """Print nothing: the log is `Hub.log`."""

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, headers, self.rfile)
        answer = self.server.hub.answer(request)
        request.receive()
        self._send(answer)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _send(self, answer: Answer) -> None:
        if answer.sent == -1:
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in {**answer.headers, "Content-Length": str(len(answer.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body[: answer.sent])
        if answer.sent is not None:
            self.close_connection = True
