"""Publications while the Hub or the connection fails: nothing is lost, and nothing is committed twice."""

import logging
import time
from dataclasses import dataclass, field

import pytest
from huggingface_hub import HfApi

from hf_maskattn.hub import publish as publish_module
from hf_maskattn.hub.publish import publish
from hf_maskattn.hub.upload import call_with_retries, is_transient, to_readable_error
from tests.hub import faults


def somebody_else(repository):
    """Another client commits just before this one."""

    def fault(request, answer):
        repository.commit({"notes.md": "theirs"}, title="theirs")
        return answer(request)

    return fault


def arriving_late():
    """Two faults: the connection breaks, and the commit arrives just before its retry."""
    requests = []

    def cut_off(request, answer):
        requests.append(request)
        return faults.unheard(request, answer)

    def overtaken(request, answer):
        answer(requests[0])
        return answer(request)

    return cut_off, overtaken


@dataclass
class Case:
    """A publication under faults, and the expected outcome.

    Attributes:
        faults: Method, pattern of the path, fault, and how many requests it strikes.
        first: Begins what `publish` returns or raises.
        commits: Number of commits on the branch then.
        requests: Number of pull requests then.
        again: The outcome of a second call without faults.
        commits_again: Number of commits in the end.
        settings: Arguments of `publish`.
    """

    faults: list = field(default_factory=list)
    first: str = "published"
    commits: int = 1
    requests: int = 0
    again: str = "nothing to publish"
    commits_again: int = 1
    settings: dict = field(default_factory=dict)


FAILED = {"commits": 0, "again": "published"}
COMMIT = ("POST", "*/user/pets/commit/main")
LARGE = ("PUT", "*/lfs/models/user/pets/*")
INFORMATION = ("GET", "*/models/user/pets/revision/main")
PR = {"settings": {"create_pr": True}, "commits": 0, "again": "published", "commits_again": 0}
BROKEN = (
    "{url} could not be reached, or the connection broke (Server disconnected without sending a response). Try again later."
)
first_try, second_try = arriving_late()
CASES = {
    "everything-before-the-commit": Case(
        [
            *(("POST", "/api/repos/create", fault, 1) for fault in (faults.status(500), faults.lost, faults.crowded_out)),
            ("POST", "/api/validate-yaml", faults.status(502), 1),
            ("POST", "/api/validate-yaml", faults.dropped, 1),
            *((*INFORMATION, fault, 1) for fault in (faults.unheard, faults.truncated)),
            ("POST", "*/user/pets/preupload/main", faults.crowded_out, 1),
            ("POST", "*/user/pets.git/info/lfs/objects/batch", faults.status(503), 1),
        ]
    ),
    "uploads-failing": Case([(*LARGE, faults.status(500), 1)]),
    "uploads-cut": Case([(*LARGE, faults.unheard, 1)]),
    "uploads-dropped": Case([(*LARGE, faults.dropped, 1)]),
    "uploads-refused": Case(
        [(*LARGE, faults.status(403), 1)], first="PermissionError: The token has no write access to user/pets", **FAILED
    ),
    "lost": Case([(*COMMIT, faults.lost, 1)]),
    "dropped": Case([(*COMMIT, faults.dropped, 1)]),
    "truncated": Case([(*COMMIT, faults.truncated, 1)]),
    "unheard": Case([(*COMMIT, faults.unheard, 1)]),
    "late": Case([(*COMMIT, first_try, 1), (*COMMIT, second_try, 1)]),
    "failing-once": Case([(*COMMIT, faults.status(500), 1)]),
    "failing": Case([(*COMMIT, faults.status(500), 4)], first="OSError: {url} failed with status 500 (the server", **FAILED),
    "unreachable": Case([(*COMMIT, faults.unheard, 4)], first="ConnectionError: " + BROKEN, **FAILED),
    "crowded": Case([(*COMMIT, faults.crowded_out, 1)]),
    "crowded-for-long": Case(
        [(*COMMIT, faults.status(429, retry_after="3600"), 1)], first="OSError: {url} received too many requests", **FAILED
    ),
    "refused": Case([(*COMMIT, faults.status(422), 1)], first="ValueError: {url} rejected the request for user/", **FAILED),
    "lost-and-unreachable": Case(
        [(*COMMIT, faults.lost, 1), ("GET", "*/models/user/pets/commits/main", faults.status(500), 99)],
        first=f"OSError: {BROKEN} It is unknown whether the commit arrived, because the Hub could not be reached afterwards.",
    ),
    "somebody-else": Case(
        [(*COMMIT, somebody_else, 1)],
        first="OSError: Somebody else committed to user/pets at the same time, and nothing was changed. Check {url}/",
        again="published",
        commits_again=2,
    ),
    "branch": Case(
        [("POST", "*/user/pets/branch/dev", faults.lost, 1), ("POST", "*/user/pets/commit/dev", faults.lost, 1)],
        settings={"revision": "dev"},
    ),
    "request-lost": Case([(*COMMIT, faults.lost, 1)], **PR | {"requests": 1}),
    "request-crowded": Case([(*COMMIT, faults.crowded_out, 1)], **PR | {"requests": 1}),
    "request-unheard": Case(
        [(*COMMIT, faults.unheard, 1)],
        first=f"OSError: {BROKEN} There is no new pull request yet. Check {{url}}/user/pets/discussions before",
        **PR,
    ),
}


@pytest.fixture
def waits(monkeypatch):
    """The seconds that a client would have waited."""
    seconds = []
    monkeypatch.setattr(time, "sleep", seconds.append)
    return seconds


@pytest.mark.parametrize(
    "case",
    [
        # The faults of uploads and pull requests are those of commits, which all run by default.
        pytest.param(case, id=name, marks=[pytest.mark.slow] if name.startswith(("uploads", "request")) else [])
        for name, case in CASES.items()
    ],
)
def test_publish_neither_loses_nor_doubles_a_commit(case, model_folder, connected, waits, monkeypatch):
    monkeypatch.setattr(publish_module, "load_without_package", lambda folder: 600)

    def outcome():
        try:
            return "published" if publish(model_folder, "user/pets", **case.settings).is_new else "nothing to publish"
        except (OSError, ValueError) as error:
            return f"{type(error).__name__}: {error}"

    for method, pattern, fault, times in case.faults:
        is_maker = fault is somebody_else
        connected.fail(method, pattern, fault(connected.create("user/pets")) if is_maker else fault, times=times)
    branch = case.settings.get("revision", "main")
    assert outcome().startswith(case.first.format(url=connected.url))
    assert connected.waiting_faults() == []
    repository = connected.repository("user/pets")
    requests = [ref for ref in repository.refs if ref.startswith("refs/pr/")]
    assert (len(repository.titles(branch)), len(requests)) == (case.commits, case.requests)
    connected.heal()
    assert outcome() == case.again
    assert len(repository.titles(branch)) == case.commits_again
    revision = "refs/pr/1" if case.settings.get("create_pr") else branch
    names = {"model.safetensors", "config.json", "modeling_maskattn.py", "tokenizer.json"}
    assert names <= set(repository.files(revision))


READ = ("GET", "*/api/models/user/pets")


@pytest.fixture
def read(connected, waits):
    """Read a repository, and return the waits between its requests."""
    connected.create("user/pets")

    def run():
        waits.clear()
        before = len(connected.log)
        try:
            call_with_retries("user/pets", HfApi().model_info, "user/pets")
        finally:
            run.requests = len(connected.log) - before
        return waits

    return run


def test_call_with_retries_waits_longer_each_time(read, connected, caplog):
    for fault in (faults.status(500), faults.unheard, faults.truncated):
        connected.fail(*READ, fault)
    with caplog.at_level(logging.INFO, logger="hf_maskattn"):
        assert read() == [1.0, 2.0, 4.0]
    assert f"{connected.url}: the server fails as planned. Retrying in 1 s ..." in caplog.text


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Retry-After": "7"}, [7.0]),
        ({"Retry-After": "0"}, [1.0]),
        ({"Retry-After": "soon"}, [1.0]),
        ({"RateLimit": '"api";r=0;t=9'}, [9.0]),
    ],
)
def test_call_with_retries_waits_as_requested(read, connected, headers, expected):
    def crowded(request, answer):
        refused = faults.status(429)(request, answer)
        refused.headers.update(headers)
        return refused

    connected.fail(*READ, crowded)
    assert read() == expected


def test_call_with_retries_does_not_wait_too_long(read, connected):
    connected.fail(*READ, faults.status(429, retry_after="61"))
    with pytest.raises(OSError, match=r"received too many requests \(the server fails as planned\)\. Try again later"):
        read()
    assert read.requests == 1


@pytest.mark.parametrize(
    ("status", "kind", "words", "requests"),
    [
        (400, ValueError, "rejected the request for user/pets with status 400: the server fails as planned", 1),
        (401, PermissionError, "rejected the token", 1),
        (403, PermissionError, "The token has no write access to user/pets", 1),
        (404, FileNotFoundError, "has no repository user/pets", 1),
        (409, ValueError, "with status 409", 1),
        (502, OSError, "failed with status 502", 4),
    ],
)
def test_call_with_retries_raises_one_line(read, connected, status, kind, words, requests):
    connected.fail(*READ, faults.status(status), times=9)
    with pytest.raises(kind, match=words) as caught:
        read()
    assert "\n" not in str(caught.value)
    assert read.requests == requests


def test_error_of_an_upload_is_unwrapped():
    broken = RuntimeError("Error while uploading")
    broken.__cause__ = ConnectionResetError("reset by peer")
    assert is_transient(broken)
    assert "the connection broke (reset by peer)" in str(to_readable_error(broken, "user/pets"))
    broken.__cause__ = KeyError("size")
    assert not is_transient(broken)
    assert "The upload to http" in str(to_readable_error(broken, "user/pets"))
    assert "failed ('size')" in str(to_readable_error(broken, "user/pets"))
