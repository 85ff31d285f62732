"""The loopback Hub speaks to an unmodified `huggingface_hub`, keeps what it is given, and fails as it is told."""

import json
import urllib.error
import urllib.request

import pytest

from tests.hub import faults
from tests.hub.client import findings
from tests.hub.server import Hub

CLIENT = """
    import pathlib
    import huggingface_hub as h

    api, nobody, reader, other = (h.HfApi(token=token) for token in TOKENS)
    folder = pathlib.Path("up")
    (folder / "sub").mkdir(parents=True)
    (folder / "README.md").write_text("---\\nlicense: mit\\n---\\nA card.")
    (folder / "sub" / "small.txt").write_text("small")
    (folder / "weights.safetensors").write_bytes(b"\\1" * 3000)
    add = lambda path, **settings: api.create_commit("user/a", [h.CommitOperationAdd(path, b"new")], **settings)
    card = lambda text: api.upload_file(repo_id="user/a", path_or_fileobj=text.encode(), path_in_repo="README.md")
    read = lambda *place, **settings: pathlib.Path(h.hf_hub_download(*place, **settings)).read_bytes().decode()

    attempt("who", lambda: api.whoami()["name"])
    attempt("created", lambda: api.create_repo("user/a").repo_id)
    attempt("created twice", lambda: api.create_repo("user/a"))
    attempt("created twice, fine", lambda: api.create_repo("user/a", exist_ok=True).repo_id)
    attempt("uploaded", lambda: api.upload_folder(repo_id="user/a", folder_path=folder).oid)
    attempt("unchanged", lambda: api.upload_folder(repo_id="user/a", folder_path=folder).oid)
    first = found["uploaded"]
    api.create_tag("user/a", tag="v1")
    api.create_branch("user/a", branch="dev")
    api.create_branch("user/a", branch="later", revision="v1")
    api.create_tag("user/a", tag="v2", revision="later")
    api.upload_file(repo_id="user/a", path_or_fileobj=b"changed", path_in_repo="sub/small.txt", revision="dev")
    pull = add("new.txt", commit_message="new", create_pr=True)
    found["pull"] = [pull.pr_revision, pull.pr_url]
    attempt("stale", lambda: add("x", commit_message="x", revision="dev", parent_commit=first))
    for revision in ["main", "v1", "dev", first, "refs/pr/1"]:
        attempt(f"small {revision}", lambda: read("user/a", "sub/small.txt", revision=revision))
    attempt("new", lambda: read("user/a", "new.txt", revision="refs/pr/1"))
    attempt("weights", lambda: len(read("user/a", "weights.safetensors")))
    attempt("snapshot", lambda: sorted(p.name for p in pathlib.Path(h.snapshot_download("user/a")).rglob("*") if p.is_file()))
    attempt("tree", lambda: [entry.path for entry in api.list_repo_tree("user/a")])
    attempt("paths", lambda: [entry.path for entry in api.get_paths_info("user/a", ["README.md", "none"])])
    refs = api.list_repo_refs("user/a", include_pull_requests=True)
    found["refs"] = [[ref.name for ref in group] for group in (refs.branches, refs.tags, refs.pull_requests)]
    found["commits"] = [commit.title for commit in api.list_repo_commits("user/a", revision="dev")]
    api.delete_folder("sub", "user/a")
    api.delete_branch("user/a", branch="later")
    api.delete_tag("user/a", tag="v2")
    attempt("bad card", lambda: card("---\\na: [\\n---\\n"))

    attempt("no file", lambda: read("user/a", "none.txt"))
    attempt("no revision", lambda: read("user/a", "README.md", revision="none"))
    attempt("no repository", lambda: read("user/none", "README.md"))
    attempt("exists", lambda: [api.repo_exists("user/a"), api.repo_exists("user/none"), api.file_exists("user/a", "none")])
    attempt("wrong token", lambda: h.HfApi(token="hf_wrong").repo_info("user/a"))
    attempt("read only", lambda: reader.upload_file(repo_id="user/a", path_or_fileobj=b"x", path_in_repo="x"))
    attempt("not the owner", lambda: other.upload_file(repo_id="user/a", path_or_fileobj=b"x", path_in_repo="x"))
    api.update_repo_settings("user/a", private=True)
    for name, who in {"owner": api, "reader": reader, "nobody": nobody, "other": other}.items():
        attempt(f"private, {name}", lambda: who.repo_info("user/a").sha)
    api.create_repo("user/gone", repo_type="dataset")
    api.delete_repo("user/gone", repo_type="dataset")

    api.create_repo("user/large")
    large = bytes(range(256)) * 100_000
    attempt("large up", lambda: api.upload_file(repo_id="user/large", path_or_fileobj=large, path_in_repo="w.bin").oid)
    attempt("large down", lambda: pathlib.Path(h.hf_hub_download("user/large", "w.bin")).read_bytes() == large)
"""


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """A Hub, and what a client found on it."""
    with Hub() as hub:
        tokens = [hub.token, False, hub.new_token("user", role="read"), hub.new_token("other")]
        hub.fail("PUT", "/lfs/models/user/large/*", faults.hung_up)
        hub.fail("GET", "*/user/large/*/w.bin", faults.dropped)
        told = f"TOKENS = {tokens!r}\n"
        yield hub, findings(hub, tmp_path_factory.mktemp("client"), told, CLIENT, token=hub.token, package=False)


def test_what_is_uploaded_comes_back_at_every_revision(session):
    hub, found = session
    assert found["who"] == "user"
    first = found["uploaded"]
    expected = {"main": "small", "v1": "small", "dev": "changed", first: "small", "refs/pr/1": "small"}
    assert {revision: found[f"small {revision}"] for revision in expected} == expected
    assert found["weights"] == 3000
    assert found["new"] == "new"
    assert found["snapshot"] == [".gitattributes", "README.md", "small.txt", "weights.safetensors"]
    assert found["tree"] == [".gitattributes", "README.md", "sub", "weights.safetensors"]
    assert found["paths"] == ["README.md"]
    assert found["refs"] == [["main", "dev", "later"], ["v1", "v2"], ["1"]]
    assert set(hub.repository("user/a").refs) == {"refs/heads/main", "refs/heads/dev", "refs/tags/v1", "refs/pr/1"}
    assert found["pull"] == ["refs/pr/1", f"{hub.url}/user/a/discussions/1"]
    assert found["commits"] == [
        "Upload sub/small.txt with huggingface_hub",
        "Upload folder using huggingface_hub",
        "initial commit",
    ]
    assert set(hub.repository("user/a").files()) == {"README.md", "weights.safetensors"}


def test_large_files_go_by_another_address_without_the_token(session):
    hub, _ = session
    a_weights = hub.repository("user/a").at().tree["weights.safetensors"]
    assert a_weights.large
    for method, pattern in [("PUT", f"/lfs/models/user/a/{a_weights.sha256}"), ("GET", "/lfs/*/user/a/*/weights.safetensors")]:
        (request,) = hub.requests(method, pattern)
        assert not request.authorized
        assert request.headers["host"] == hub.large_files_url.removeprefix("http://")
    assert all(request.authorized for request in hub.requests("POST", "*/commit/*"))


def test_what_is_there_already_is_not_committed_again(session):
    hub, found = session
    assert found["unchanged"] == found["uploaded"]
    assert found["created twice"].startswith("HfHubHTTPError: Client error '409 Conflict'")
    assert found["created twice, fine"] == "user/a"
    assert hub.repository("user/a").titles()[::-1][0] == "Upload folder using huggingface_hub"


def test_what_must_not_be_is_refused_with_the_code_that_clients_know(session):
    hub, found = session
    expected = {
        "stale": "HfHubHTTPError: Client error '412 Precondition Failed'",
        "bad card": "ValueError: Invalid metadata in README.md",
        "no file": "RemoteEntryNotFoundError: 404",
        "no revision": "RevisionNotFoundError: 404",
        "no repository": "RepositoryNotFoundError: 404",
        "wrong token": "HfHubHTTPError: Client error '401 Unauthorized'",
        "read only": "HfHubHTTPError: 403 Forbidden: You don't have the rights to write",
        "not the owner": "HfHubHTTPError: 403 Forbidden: You don't have the rights to write",
        "private, nobody": "RepositoryNotFoundError: 401",
        "private, other": "RepositoryNotFoundError: 404",
    }
    for name, message in expected.items():
        assert found[name].startswith(message), (name, found[name])
    assert found["exists"] == [True, False, False]
    assert found["private, owner"] == found["private, reader"] == hub.repository("user/a").at().oid
    assert hub.repository("user/a").private
    assert ("datasets", "user/gone") not in hub.repositories
    assert hub.repository("user/a").titles("dev") == [
        "Upload sub/small.txt with huggingface_hub",
        "Upload folder using huggingface_hub",
    ]


def test_an_upload_that_is_cut_is_sent_again_and_a_download_goes_on_where_it_was_cut(session):
    hub, found = session
    assert found["large down"] is True
    (name,) = hub.repository("user/large").large
    cut, whole = hub.requests("PUT", f"/lfs/models/user/large/{name}")
    assert len(cut.body) * 2 == len(whole.body) == 25_600_000
    first, second = hub.requests("GET", "/lfs/*/user/large/*/w.bin")
    assert (first.status, first.headers.get("range")) == (200, None)
    assert (second.status, second.headers["range"]) == (206, "bytes=10485760-")
    assert len(hub.repository("user/large").titles()) == 1


def _status(url, method="GET", data=None):
    request = urllib.request.Request(url, method=method, data=data)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers.get("Retry-After")


def test_faults_strike_the_requests_they_are_planned_for_and_are_forgotten(hub):
    hub.create("user/a", {"config.json": json.dumps({"a": 1})})
    url = f"{hub.url}/user/a/resolve/main/config.json"
    whole = _status(url)
    assert whole == (200, b'{"a": 1}')
    hub.fail("GET", "*/config.json", faults.crowded_out, times=2)
    hub.fail("GET", "*/config.json", faults.truncated)
    assert [_status(url) for _ in range(4)] == [(429, "1"), (429, "1"), (200, b'{"a"'), whole]
    hub.fail("GET", "*/config.json", faults.corrupted)
    status, changed = _status(url)
    assert (status, len(changed), changed[:4]) == (200, 8, b'{"a"')
    assert changed != whole[1]
    hub.fail("GET", "*/config.json", faults.lost, times=5)
    hub.fail("POST", "*", faults.status(500), body="not in it")
    with pytest.raises(ConnectionError):
        _status(url)
    assert _status(f"{hub.url}/api/validate-yaml", "POST", b'{"content": "text"}')[0] == 200
    hub.heal()
    assert _status(url) == whole
    assert [request.fault for request in hub.requests("GET")][1:4] == ["crowded_out", "crowded_out", "truncated"]


@pytest.mark.parametrize(
    ("header", "status"),
    [("base_model: a/b\ndatasets:\n- pets", 200), ("base_model: /home/me/b", 400), ("datasets:\n- a/b\n- data/x/y.dict", 400)],
)
def test_a_card_that_links_what_is_no_repository_is_refused(hub, header, status):
    card = json.dumps({"content": f"---\n{header}\n---\n"}).encode()
    assert _status(f"{hub.url}/api/validate-yaml", "POST", card)[0] == status


def test_an_address_that_is_not_served_is_seen_in_the_log(hub):
    assert _status(f"{hub.url}/api/unknown") == (404, None)
    assert [str(request) for request in hub.log] == ["GET /api/unknown 404"]
