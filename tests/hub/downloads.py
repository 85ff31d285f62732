"""Routes for the content of files: small ones directly, large ones by a redirect to a second server."""

from urllib.parse import quote

from tests.hub.messages import Answer, HubError, Request
from tests.hub.routes import readable, route


@route("HEAD", "/{prefix}{name}/resolve/{revision}/{rest}")
@route("GET", "/{prefix}{name}/resolve/{revision}/{rest}")
def resolve(hub, request: Request, name: str, revision: str, rest: str, prefix: str = "") -> Answer:
    repository = readable(hub, request, name, prefix=prefix)
    blob = repository.blob(revision, rest)
    headers = {"X-Repo-Commit": repository.at(revision).oid, "ETag": f'"{blob.etag}"'}
    if not blob.large:
        return content(request, blob.content, headers)
    place = f"{hub.large_files_url}/lfs/{repository.kind}/{name}/{blob.sha256}/{quote(rest)}"
    linked = {"X-Linked-ETag": f'"{blob.sha256}"', "X-Linked-Size": str(len(blob.content)), "Location": place}
    return Answer(302, {**headers, **linked})


@route("HEAD", "/lfs/{kind}/{name}/{sha256}/{rest}")
@route("GET", "/lfs/{kind}/{name}/{sha256}/{rest}")
def large_file(hub, request: Request, kind: str, name: str, sha256: str, rest: str) -> Answer:
    """Answer without a token, as for a signed URL."""
    repository = hub.repositories.get((kind, name))
    if repository is None or sha256 not in repository.large:
        raise HubError(403, "There is no such file.")
    return content(request, repository.large[sha256], {"ETag": f'"{sha256}"'})


def content(request: Request, data: bytes, headers: dict[str, str]) -> Answer:
    """Return the requested bytes: all, or the `Range` of the request."""
    headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", **headers}
    wanted = request.headers.get("range")
    if wanted is None or request.method == "HEAD":
        return Answer(200, headers, data)
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    start = int(first) if first else len(data) - int(last)
    end = min(int(last) if first and last else len(data) - 1, len(data) - 1)
    if start > end:
        return Answer(416, {**headers, "Content-Range": f"bytes */{len(data)}"})
    return Answer(206, {**headers, "Content-Range": f"bytes {start}-{end}/{len(data)}"}, data[start : end + 1])
