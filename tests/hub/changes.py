"""Routes that change something: repositories, branches, tags, uploads and commits."""

import base64
import hashlib
import json

from tests.hub.messages import Answer, HubError, Request, as_json
from tests.hub.repositories import Blob, is_large
from tests.hub.routes import check_write_right, readable, route, writable


@route("POST", "/api/repos/create")
def create_repository(hub, request: Request) -> Answer:
    wanted = request.json()
    user = hub.user(request)
    owner = wanted.get("organization") or (user.name if user else "")
    check_write_right(hub, request, owner)
    kind, name = f"{wanted.get('type') or 'model'}s", f"{owner}/{wanted['name']}"
    url = hub.page(kind, name)
    if (kind, name) in hub.repositories:
        error = "You already created this " + kind.removesuffix("s") + " repo"
        return as_json({"error": error, "url": url}, 409, **{"X-Error-Message": error})
    hub.create(name, kind=kind, private=wanted.get("visibility") == "private" or wanted.get("private") is True)
    return as_json({"url": url, "name": name})


@route("POST", "/api/{kind}/{name}/branch/{branch}")
def create_branch(hub, request: Request, kind: str, name: str, branch: str) -> Answer:
    wanted = request.json() if request.body else {}
    writable(hub, request, name, kind).branch(branch, wanted.get("startingPoint") or "main")
    return as_json({})


@route("POST", "/api/{kind}/{name}/tag/{revision}")
def create_tag(hub, request: Request, kind: str, name: str, revision: str) -> Answer:
    writable(hub, request, name, kind).tag(request.json()["tag"], revision)
    return as_json({})


@route("POST", "/api/{kind}/{name}/preupload/{revision}")
def preupload(hub, request: Request, kind: str, name: str, revision: str) -> Answer:
    """Answer for each file whether it is uploaded by LFS, and the id of its current content."""
    tree = _uploadable(hub, request, name, kind).at(revision).tree
    files = []
    for file in request.json()["files"]:
        path = file["path"]
        mode = "lfs" if is_large(path, file["size"]) else "regular"
        files.append(
            {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": tree[path].etag if path in tree else None}
        )
    return as_json({"files": files})


@route("POST", "/{prefix}{name}.git/info/lfs/objects/batch")
def large_files_batch(hub, request: Request, name: str, prefix: str = "") -> Answer:
    """Answer for each object where to upload it, with no actions if it exists."""
    repository = _uploadable(hub, request, name, prefix.rstrip("/") or "models")
    objects = []
    for wanted in request.json()["objects"]:
        entry = {"oid": wanted["oid"], "size": wanted["size"]}
        if wanted["oid"] not in repository.large:
            path = f"lfs/{repository.kind}/{name}/{wanted['oid']}"
            verify = f"{hub.url}/{path}/verify"
            entry["actions"] = {"upload": {"href": f"{hub.large_files_url}/{path}"}, "verify": {"href": verify}}
        objects.append(entry)
    return as_json({"transfer": "basic", "objects": objects})


@route("PUT", "/lfs/{kind}/{name}/{sha256}")
def put_large_file(hub, request: Request, kind: str, name: str, sha256: str) -> Answer:
    if hashlib.sha256(request.body).hexdigest() != sha256:
        raise HubError(400, "The content does not match its sha256.")
    hub.repositories[kind, name].large[sha256] = request.body
    return Answer(200, {"ETag": f'"{sha256}"'})


@route("POST", "/lfs/{kind}/{name}/{sha256}/verify")
def verify_large_file(hub, request: Request, kind: str, name: str, sha256: str) -> Answer:
    content = _uploadable(hub, request, name, kind).large.get(sha256)
    if content is None or len(content) != request.json()["size"]:
        raise HubError(404, "The object was not uploaded.")
    return as_json({})


@route("POST", "/api/{kind}/{name}/commit/{revision}")
def make_commit(hub, request: Request, kind: str, name: str, revision: str) -> Answer:
    create_pr = "create_pr" in request.query
    repository = readable(hub, request, name, kind) if create_pr else writable(hub, request, name, kind)
    lines = [json.loads(line) for line in request.body.splitlines() if line.strip()]
    header, changes = {}, {}
    for line in lines:
        key, value = line["key"], line["value"]
        if key == "header":
            header = value
        elif key == "file":
            changes[value["path"]] = Blob(base64.b64decode(value["content"]))
        elif key == "lfsFile":
            if value["oid"] not in repository.large:
                raise HubError(400, f"LFS pointer of {value['path']} points to an object that was not uploaded")
            changes[value["path"]] = Blob(repository.large[value["oid"]], large=True)
        elif key == "deletedFile":
            changes[value["path"]] = None
        else:
            raise HubError(400, f"unknown operation {key}")
    commit = repository.commit(
        changes,
        revision=revision,
        title=header["summary"],
        description=header.get("description") or "",
        parent=header.get("parentCommit"),
        create_pr=create_pr,
    )
    page = hub.page(kind, name)
    answer = {"success": True, "commitOid": commit.oid, "commitUrl": f"{page}/commit/{commit.oid}", "hookOutput": ""}
    if create_pr:
        number = sum(ref.startswith("refs/pr/") for ref in repository.refs)
        answer["pullRequestUrl"] = f"{page}/discussions/{number}"
    return as_json(answer)


def _uploadable(hub, request: Request, name: str, kind: str):
    """Find a repository to upload to: read access is enough for a pull request, and the commit checks for write access."""
    repository = readable(hub, request, name, kind)
    if hub.user(request) is None:
        raise HubError(401, "Invalid username or password.")
    return repository
