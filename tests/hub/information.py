"""Routes that change nothing: users, repositories and their files."""

import json
import re
from typing import Any
from urllib.parse import parse_qs

import yaml

from tests.hub.messages import Answer, HubError, Request, as_json, entry_not_found
from tests.hub.repositories import Blob, Commit
from tests.hub.routes import readable, route

PIPELINES = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForMaskedLM": "fill-mask",
}


@route("GET", "/api/agent-harnesses")
def agent_harnesses(hub, request: Request) -> Answer:
    return as_json({"standardVars": [], "harnesses": []})


@route("GET", "/api/whoami-v2")
def who_am_i(hub, request: Request) -> Answer:
    user = hub.user(request)
    if user is None:
        raise HubError(401, "Invalid username or password.")
    access = {"displayName": "test", "role": user.role}
    return as_json({"type": "user", "name": user.name, "orgs": [], "auth": {"type": "access_token", "accessToken": access}})


@route("GET", "/api/{kind}/{name}")
@route("GET", "/api/{kind}/{name}/revision/{revision}")
def repository_info(hub, request: Request, kind: str, name: str, revision: str = "main") -> Answer:
    repository = readable(hub, request, name, kind)
    commit = repository.at(revision)
    card = read_card(commit.tree.get("README.md"))
    config = _read_config(commit)
    return as_json(
        {
            "id": name,
            "modelId": name,
            "sha": commit.oid,
            "createdAt": repository.history()[-1].date,
            "lastModified": commit.date,
            "private": repository.private,
            "tags": card.get("tags") or [],
            "cardData": card,
            "config": config,
            "pipeline_tag": card.get("pipeline_tag") or _pipeline_of(config),
            "library_name": card.get("library_name") or ("transformers" if config else None),
            "siblings": [_sibling(path, blob) for path, blob in sorted(commit.tree.items())],
        }
    )


@route("GET", "/api/{kind}/{name}/tree/{revision}")
@route("GET", "/api/{kind}/{name}/tree/{revision}/{rest}")
def tree(hub, request: Request, kind: str, name: str, revision: str, rest: str = "") -> Answer:
    commit = readable(hub, request, name, kind).at(revision)
    folder = f"{rest.rstrip('/')}/" if rest else ""
    entries = {path: entry for path, entry in _entries(commit).items() if path.startswith(folder) and path != folder}
    if folder and not entries:
        raise entry_not_found(rest, revision, commit.oid)
    if request.query.get("recursive", [""])[0].lower() not in ("true", "1"):
        entries = {path: entry for path, entry in entries.items() if "/" not in path.removeprefix(folder)}
    return as_json(list(entries.values()))


@route("POST", "/api/{kind}/{name}/paths-info/{revision}")
def paths_info(hub, request: Request, kind: str, name: str, revision: str) -> Answer:
    entries = _entries(readable(hub, request, name, kind).at(revision))
    form = parse_qs(request.body.decode())
    return as_json([entries[path] for path in form.get("paths", []) if path in entries])


@route("GET", "/api/{kind}/{name}/refs")
def refs(hub, request: Request, kind: str, name: str) -> Answer:
    repository = readable(hub, request, name, kind)

    def named(start: str) -> list[dict[str, str]]:
        found = [(ref, oid) for ref, oid in repository.refs.items() if ref.startswith(start)]
        return [{"name": ref.removeprefix(start), "ref": ref, "targetCommit": oid} for ref, oid in found]

    pull_requests = named("refs/pr/") if "include_prs" in request.query else []
    groups = {"branches": named("refs/heads/"), "tags": named("refs/tags/"), "converts": [], "pullRequests": pull_requests}
    return as_json(groups)


@route("GET", "/api/{kind}/{name}/commits/{revision}")
def commits(hub, request: Request, kind: str, name: str, revision: str) -> Answer:
    history = readable(hub, request, name, kind).history(revision)
    return as_json(
        [
            {
                "id": commit.oid,
                "title": commit.title,
                "message": commit.description,
                "date": commit.date,
                "authors": [{"user": commit.author}],
            }
            for commit in history
        ]
    )


@route("POST", "/api/validate-yaml")
def validate_yaml(hub, request: Request) -> Answer:
    try:
        metadata = front_matter(request.json()["content"])
    except yaml.YAMLError as error:
        return as_json({"errors": [{"message": str(error)}], "warnings": []}, 400)
    if not isinstance(metadata, dict):
        return as_json({"errors": [{"message": "the metadata must be a mapping"}], "warnings": []}, 400)
    links = [name for key in ("base_model", "datasets") for name in _listed(metadata.get(key))]
    errors = [{"message": f'"{name}" is not a valid id'} for name in links if not _REPO_ID.fullmatch(str(name))]
    return as_json({"errors": errors, "warnings": []}, 400 if errors else 200)


_REPO_ID = re.compile(r"(?:[\w.-]+/)?[\w.-]+", re.ASCII)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def front_matter(text: str) -> Any:
    """Return the metadata between the first two `---` of a card, an empty mapping if there are none."""
    if not text.startswith("---\n"):
        return {}
    return yaml.safe_load(text[4:].split("\n---", 1)[0]) or {}


def read_card(blob: Blob | None) -> dict[str, Any]:
    return front_matter(blob.content.decode()) if blob else {}


def _read_config(commit: Commit) -> dict[str, Any]:
    blob = commit.tree.get("config.json")
    try:
        found = json.loads(blob.content) if blob else {}
    except ValueError:
        return {}
    return {key: found[key] for key in ("architectures", "model_type", "auto_map") if key in found}


def _pipeline_of(config: dict[str, Any]) -> str | None:
    name = next(iter(config.get("architectures") or ()), "")
    return next((task for suffix, task in PIPELINES.items() if name.endswith(suffix)), None)


def _sibling(path: str, blob: Blob) -> dict[str, Any]:
    found: dict[str, Any] = {"rfilename": path, "size": len(blob.content), "blobId": blob.git_oid}
    if blob.large:
        found["lfs"] = {"sha256": blob.sha256, "size": len(blob.content), "pointerSize": len(blob.pointer)}
    return found


def _entries(commit: Commit) -> dict[str, dict[str, Any]]:
    """Return files and folders of a commit by path, as in the tree listing."""
    entries: dict[str, dict[str, Any]] = {}
    for path, blob in sorted(commit.tree.items()):
        steps = path.split("/")
        for end in range(1, len(steps)):
            folder = "/".join(steps[:end])
            entries.setdefault(folder, {"type": "directory", "path": folder, "oid": commit.oid, "size": 0})
        entries[path] = {"type": "file", "path": path, "oid": blob.git_oid, "size": len(blob.content)}
        if blob.large:
            entries[path]["lfs"] = {"oid": blob.sha256, "size": len(blob.content), "pointerSize": len(blob.pointer)}
    return entries
