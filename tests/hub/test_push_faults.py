"""`push_to_hub` of our classes when the Hub fails once; nothing is lost, and a second push of the same model doubles nothing.

| request | fault | outcome of the push | on the server then | after a second push |
| --- | --- | --- | --- | --- |
| create repository | 500, or 429 with Retry-After | error (not retried) | nothing | one commit |
| create repository | done, answer lost | error | an empty repository | one commit |
| preupload | 429, Retry-After: 1 | done after the wait | one commit | the same one |
| LFS batch | 500 | done after a retry | one commit | the same one |
| LFS batch | half an answer | error | an empty repository | one commit |
| PUT of the weights | 500, or cut in the middle, before or after it is done | done after a retry | one commit | the same one |
| verify | answer dropped in the middle | done after a retry | one commit | the same one |
| commit | 500, 429 with Retry-After, or cut before it is done | error (not retried) | an empty repository | one commit |
| commit | done, answer lost, dropped in the middle, or half an answer | error | **one commit** | the same one |

"An empty repository" holds what came with it, and no file of the model: a commit is made whole or not at all.
"""

import pytest

from tests.hub import faults
from tests.hub.client import findings
from tests.hub.server import Hub
from tests.hub.toys import TOY

CREATE = "/api/repos/create"
PREUPLOAD = "*/user/{}/preupload/main"
BATCH = "/user/{}.git/info/lfs/objects/batch"
PUT = "/lfs/models/user/{}/*"
VERIFY = "/lfs/models/user/{}/*/verify"
COMMIT = "*/user/{}/commit/main"

FAULTY = {
    "create-500": ("POST", CREATE, faults.status(500), "HfHubHTTPError: Server error '500", None),
    "create-429": ("POST", CREATE, faults.crowded_out, "HfHubHTTPError: 429 Too Many Requests", None),
    "create-lost": ("POST", CREATE, faults.lost, "RemoteProtocolError: Server disconnected", 0),
    "preupload-429": ("POST", PREUPLOAD, faults.crowded_out, None, 1),
    "batch-500": ("POST", BATCH, faults.status(500), None, 1),
    "batch-truncated": ("POST", BATCH, faults.truncated, "JSONDecodeError: ", 0),
    "put-500": ("PUT", PUT, faults.status(500), None, 1),
    "put-cut": ("PUT", PUT, faults.unheard, None, 1),
    "put-hung-up": ("PUT", PUT, faults.hung_up, None, 1),
    "put-lost": ("PUT", PUT, faults.lost, None, 1),
    "verify-dropped": ("POST", VERIFY, faults.dropped, None, 1),
    "commit-500": ("POST", COMMIT, faults.status(500), "HfHubHTTPError: Server error '500", 0),
    "commit-429": ("POST", COMMIT, faults.crowded_out, "HfHubHTTPError: 429 Too Many Requests", 0),
    "commit-cut": ("POST", COMMIT, faults.unheard, "RemoteProtocolError: Server disconnected", 0),
    "commit-lost": ("POST", COMMIT, faults.lost, "RemoteProtocolError: Server disconnected", 1),
    "commit-dropped": ("POST", COMMIT, faults.dropped, "RemoteProtocolError: peer closed connection", 1),
    "commit-truncated": ("POST", COMMIT, faults.truncated, "JSONDecodeError: ", 1),
}
"""By name of a repository: the request that fails once, how, what the push says (None: nothing), and the commits it made."""

PUSH = """
    import time
    api = huggingface_hub.HfApi()
    model = build()

    def on_the_server(name):
        return [commit.title for commit in api.list_repo_commits(name)][:-1], sorted(api.list_repo_files(name))

    for name in FAULTY:
        start = time.monotonic()
        attempt(name, lambda: model.push_to_hub(f"user/{name}"))
        found[f"{name}, seconds"] = time.monotonic() - start
        attempt(f"{name}, then", lambda: on_the_server(f"user/{name}"))
        attempt(f"{name}, again", lambda: model.push_to_hub(f"user/{name}"))
"""


@pytest.fixture(scope="module")
def pushed(tmp_path_factory):
    """The Hub, and what the pushes gave or raised."""
    with Hub() as hub:
        for name, (method, pattern, fault, _, _) in FAULTY.items():
            hub.fail(method, pattern.format(name), fault, body=name if pattern == CREATE else "")
        yield hub, findings(hub, tmp_path_factory.mktemp("push"), TOY, f"FAULTY = {list(FAULTY)}\n", PUSH, token=hub.token)


@pytest.mark.parametrize("name", FAULTY)
def test_a_fault_ends_in_one_commit_or_in_an_error_and_a_second_push_doubles_nothing(pushed, name):
    hub, found = pushed
    method, pattern, _, message, commits = FAULTY[name]
    struck = [
        it for it in hub.requests(method, pattern.format(name)) if it.fault and (pattern != CREATE or name.encode() in it.body)
    ]
    assert len(struck) == 1
    if message is None:
        assert found[name].startswith(f"{hub.url}/user/{name}/commit/")
    else:
        assert found[name].startswith(message)
    repository = hub.repository(f"user/{name}")
    uploaded = ["Upload MaskAttnForSequenceClassification"]
    if commits is None:
        assert found[f"{name}, then"].startswith("RepositoryNotFoundError")
    elif commits == 0:
        assert found[f"{name}, then"] == [[], [".gitattributes"]]
    else:
        assert found[f"{name}, then"] == [uploaded, sorted(repository.at().tree)]
    assert found[f"{name}, again"] == f"{hub.url}/user/{name}/commit/{repository.at().oid}"
    assert repository.titles() == uploaded
    assert len(repository.large) == 1
    assert {"config.json", "model.safetensors", "README.md", "modeling_maskattn.py"} <= repository.files().keys()


def test_what_failed_and_was_pushed_again_is_what_is_pushed_without_a_fault(pushed):
    hub, _ = pushed
    first, *others = [hub.repository(f"user/{name}").files() for name in FAULTY]
    assert all(files == first for files in others)


def test_a_client_waits_as_long_as_it_is_told(pushed):
    _, found = pushed
    assert found["preupload-429, seconds"] >= 1
