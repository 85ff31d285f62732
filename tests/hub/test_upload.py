"""What becomes of a publication when the Hub or the line fails: in a process with the real client, case by case."""

import json
import logging
from dataclasses import dataclass, field

import pytest
from huggingface_hub import HfApi

from hf_maskattn.hub import upload as hub_calls
from hf_maskattn.hub.upload import as_told, call, may_pass
from tests.hub import faults
from tests.hub.client import run_client
from tests.hub.server import Hub
from tests.toy_folder import write_model_folder

PUBLISH_ALL = """
    import json, sys
    from huggingface_hub import HfApi
    from hf_maskattn.hub import publish as hub, upload as hub_calls, upload as hub_commit
    hub.load_without_package = lambda folder: 600
    hub_calls.WAITS = hub_commit.WAITS = (0.01, 0.01, 0.01)

    def publish(name, settings):
        try:
            found = hub.publish("model", f"user/{name}", **settings)
            return "published" if found.is_new else "nothing to publish"
        except (OSError, ValueError) as error:
            return f"{type(error).__name__}: {error}"

    def on_hub(name):
        refs = HfApi().list_repo_refs(f"user/{name}", include_pull_requests=True)
        branches = [branch.name for branch in refs.branches]
        commits = {branch: len(HfApi().list_repo_commits(f"user/{name}", revision=branch)) - 1 for branch in branches}
        return {**commits, "requests": len(refs.pull_requests)}

    found = {}
    for name, settings in json.load(open("cases.json")).items():
        first, after = publish(name, settings), on_hub(name)
        found[name] = [first, after, publish(name, settings), on_hub(name)]
    json.dump(found, open("found.json", "w"))
"""

LATER = "later"


def somebody_else(repository):
    """Another client commits while this one does."""

    def fault(request, answer):
        repository.commit({"notes.md": "theirs"}, title="theirs")
        return answer(request)

    return fault


def arriving_late():
    """Two faults: a commit that is cut off, and arrives just before the second try."""
    held = []

    def cut_off(request, answer):
        held.append(request)
        return faults.unheard(request, answer)

    def overtaken(request, answer):
        answer(held[0])
        return answer(request)

    return cut_off, overtaken


@dataclass
class Case:
    """A publication under faults, and what is to come of it.

    Attributes:
        faults: Method, pattern of the address, fault, and to how many requests.
        first: What `publish` says.
        commits: How many commits are on the branch then.
        requests: How many pull requests.
        again: What it says when it is called again without faults.
        commits_again: How many commits are there in the end.
        settings: Those of `publish`.
    """

    faults: list = field(default_factory=list)
    first: str = "published"
    commits: int = 1
    requests: int = 0
    again: str = "nothing to publish"
    commits_again: int = 1
    settings: dict = field(default_factory=dict)


FAILED = {"commits": 0, "again": "published"}
COMMIT = ("POST", "*/user/{name}/commit/main")
LARGE = ("PUT", "*/lfs/models/user/{name}/*")
PR = {"settings": {"create_pr": True}, "commits": 0, "again": "published", "commits_again": 0}
first_try, second_try = arriving_late()
CASES = {
    "everything-before-the-commit": Case(
        [
            *(("POST", "/api/repos/create", fault, 1) for fault in (faults.status(500), faults.lost, faults.crowded_out)),
            ("POST", "/api/validate-yaml", faults.status(502), 1),
            ("POST", "/api/validate-yaml", faults.dropped, 1),
            *(("GET", "*/models/user/{name}/revision/main", fault, 1) for fault in (faults.unheard, faults.truncated)),
            ("POST", "*/user/{name}/preupload/main", faults.crowded_out, 1),
            ("POST", "*/user/{name}.git/info/lfs/objects/batch", faults.status(503), 1),
        ]
    ),
    "uploads-failing": Case([(*LARGE, faults.status(500), 1)]),
    "uploads-cut": Case([(*LARGE, faults.unheard, 1)]),
    "uploads-dropped": Case([(*LARGE, faults.dropped, 1)]),
    "uploads-refused": Case(
        [(*LARGE, faults.status(403), 1)], first="PermissionError: the token may not write to user/uploads-refused", **FAILED
    ),
    "lost": Case([(*COMMIT, faults.lost, 1)]),
    "dropped": Case([(*COMMIT, faults.dropped, 1)]),
    "truncated": Case([(*COMMIT, faults.truncated, 1)]),
    "unheard": Case([(*COMMIT, faults.unheard, 1)]),
    "late": Case([(*COMMIT, first_try, 1), (*COMMIT, second_try, 1)]),
    "failing-once": Case([(*COMMIT, faults.status(500), 1)]),
    "failing": Case([(*COMMIT, faults.status(500), 4)], first="OSError: {url} failed with 500 (the server is told", **FAILED),
    "unreachable": Case([(*COMMIT, faults.unheard, 4)], first="ConnectionError: {url} cannot be reached", **FAILED),
    "crowded": Case([(*COMMIT, faults.crowded_out, 1)]),
    "crowded-for-long": Case(
        [(*COMMIT, faults.status(429, retry_after="3600"), 1)], first="OSError: {url} has had too many requests", **FAILED
    ),
    "refused": Case([(*COMMIT, faults.status(422), 1)], first="ValueError: {url} refuses with 422 what was sent", **FAILED),
    "lost-and-unreachable": Case(
        [(*COMMIT, faults.lost, 1), ("GET", "*/models/user/{name}/revision/?????*", faults.status(500), 4)],
        first="OSError: {url} cannot be reached, or broke off (Server disconnected without sending a response): try again "
        "later. Whether the commit arrived is not known, as the Hub could not be asked afterwards: publish again",
    ),
    "somebody-else": Case(
        [(*COMMIT, LATER, 1)],
        first="OSError: somebody else has committed to user/somebody-else in the meantime, nothing was changed: look at",
        again="published",
        commits_again=2,
    ),
    "branch": Case(
        [("POST", "*/user/{name}/branch/dev", faults.lost, 1), ("POST", "*/user/{name}/commit/dev", faults.lost, 1)],
        settings={"revision": "dev"},
    ),
    "request-lost": Case([(*COMMIT, faults.lost, 1)], **PR | {"requests": 1}),
    "request-crowded": Case([(*COMMIT, faults.crowded_out, 1)], **PR | {"requests": 1}),
    "request-unheard": Case(
        [(*COMMIT, faults.unheard, 1)],
        first="OSError: {url} cannot be reached, or broke off (Server disconnected without sending a response): try again "
        "later. No new pull request is there yet: look at {url}/user/request-unheard/discussions before you publish again.",
        **PR,
    ),
}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """What the process found, by case, and the Hub."""
    folder = tmp_path_factory.mktemp("faults")
    write_model_folder(folder / "model")
    with Hub() as hub:
        for name, case in CASES.items():
            for method, pattern, fault, times in case.faults:
                if fault is LATER:
                    fault = somebody_else(hub.create(f"user/{name}"))
                body = "" if "{name}" in pattern else name
                hub.fail(method, pattern.format(name=name), fault, times=times, body=body)
        (folder / "cases.json").write_text(json.dumps({name: case.settings for name, case in CASES.items()}))
        done = run_client(hub, PUBLISH_ALL, folder, token=hub.token)
        assert done.returncode == 0, done.stderr
        assert [fault for fault in hub._faults if fault.times] == []
        yield json.loads((folder / "found.json").read_text()), hub


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_lost_or_doubled(outcome, name):
    (first, after, again, in_the_end), hub = outcome[0][name], outcome[1]
    case = CASES[name]
    branch = case.settings.get("revision", "main")
    assert first.startswith(case.first.format(url=hub.url))
    assert (after[branch], after["requests"]) == (case.commits, case.requests)
    assert again == case.again
    assert in_the_end[branch] == case.commits_again
    repository = hub.repository(f"user/{name}")
    whole = "refs/pr/1" if case.settings.get("create_pr") else branch
    assert {"model.safetensors", "config.json", "modeling_maskattn.py", "tokenizer.json"} <= set(repository.files(whole))


READ = ("GET", "*/api/models/user/pets")


@pytest.fixture
def read(connected, monkeypatch):
    """Reads a repository; returns how often it had to ask, and how long it waited in between."""
    connected.create("user/pets")
    waited = []
    monkeypatch.setattr(hub_calls.time, "sleep", waited.append)

    def run():
        waited.clear()
        before = len(connected.log)
        try:
            call("user/pets", HfApi().model_info, "user/pets")
        finally:
            run.requests = len(connected.log) - before
        return waited

    return run


def test_what_passes_is_tried_again_after_longer_and_longer_waits(read, connected, caplog):
    for fault in (faults.status(500), faults.unheard, faults.truncated):
        connected.fail(*READ, fault)
    with caplog.at_level(logging.INFO, logger="hf_maskattn"):
        assert read() == [1.0, 2.0, 4.0]
    assert f"{connected.url}: the server is told to fail; trying again in 1 s ..." in caplog.text


@pytest.mark.parametrize(
    ("headers", "waits"),
    [
        ({"Retry-After": "7"}, [7.0]),
        ({"Retry-After": "0"}, [1.0]),
        ({"Retry-After": "soon"}, [1.0]),
        ({"RateLimit": '"api";r=0;t=9'}, [9.0]),
    ],
)
def test_the_hub_says_how_long_to_wait(read, connected, headers, waits):
    def crowded(request, answer):
        refused = faults.status(429)(request, answer)
        refused.headers.update(headers)
        return refused

    connected.fail(*READ, crowded)
    assert read() == waits


def test_a_wait_that_is_too_long_is_not_waited(read, connected):
    connected.fail(*READ, faults.status(429, retry_after="61"))
    with pytest.raises(OSError, match=r"has had too many requests \(the server is told to fail\): try again later"):
        read()
    assert read.requests == 1


@pytest.mark.parametrize(
    ("status", "kind", "words", "requests"),
    [
        (400, ValueError, "refuses with 400 what was sent for user/pets: the server is told to fail", 1),
        (401, PermissionError, "does not accept the token", 1),
        (403, PermissionError, "the token may not write to user/pets", 1),
        (404, FileNotFoundError, "has no user/pets", 1),
        (409, ValueError, "refuses with 409", 1),
        (502, OSError, "failed with 502", 4),
        (503, OSError, "failed with 503", 4),
    ],
)
def test_what_does_not_pass_is_told_in_one_line(read, connected, status, kind, words, requests):
    connected.fail(*READ, faults.status(status), times=9)
    with pytest.raises(kind, match=words) as caught:
        read()
    assert "\n" not in str(caught.value)
    assert read.requests == requests


def test_an_upload_is_told_by_what_broke_it():
    broken = RuntimeError("Error while uploading")
    broken.__cause__ = ConnectionResetError("reset by peer")
    assert may_pass(broken)
    assert "broke off (reset by peer)" in str(as_told(broken, "user/pets"))
    broken.__cause__ = KeyError("size")
    assert not may_pass(broken)
    assert "the upload to http" in str(as_told(broken, "user/pets"))
    assert "failed ('size')" in str(as_told(broken, "user/pets"))
