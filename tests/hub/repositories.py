"""Repositories of the loopback Hub with commits, branches, tags and pull requests, in memory."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

from tests.hub.messages import HubError, entry_not_found, revision_not_found

LARGE = (".safetensors", ".bin", ".pt", ".parquet", ".onnx", ".png", ".model")
"""Suffixes of files that are stored by LFS at any size. Others are large from `LARGE_SIZE` bytes on."""
LARGE_SIZE = 1_000_000


@dataclass(frozen=True)
class Blob:
    """The content of a file, in git or LFS."""

    content: bytes
    large: bool = False

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def pointer(self) -> bytes:
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.content)}\n".encode()

    @cached_property
    def git_oid(self) -> str:
        stored = self.pointer if self.large else self.content
        return hashlib.sha1(b"blob %d\0" % len(stored) + stored).hexdigest()

    @property
    def etag(self) -> str:
        """The id of the content for clients."""
        return self.sha256 if self.large else self.git_oid


@dataclass(frozen=True)
class Commit:
    """All files of a repository at one commit, and its parent."""

    oid: str
    parent: "Commit | None"
    title: str
    description: str
    author: str
    date: str
    tree: dict[str, Blob]


class Repository:
    """One repository of models or datasets.

    Args:
        kind: "models", "datasets" or "spaces", as in the URLs of the Hub.
        name: `namespace/name`.
        private: Whether only its owner can read it.
    """

    def __init__(self, kind: str, name: str, *, private: bool = False):
        self.kind, self.name, self.private = kind, name, private
        self.large: dict[str, bytes] = {}  # LFS objects by sha256
        attributes = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LARGE)
        first = self._make_commit(None, "initial commit", "", {".gitattributes": Blob(attributes.encode())})
        self.commits: dict[str, Commit] = {first.oid: first}
        self.refs: dict[str, str] = {"refs/heads/main": first.oid}

    @property
    def owner(self) -> str:
        return self.name.split("/")[0]

    def ref_of(self, revision: str) -> str | None:
        """Return the full name of a branch, tag or pull request, None if there is none."""
        return next((ref for ref in (f"refs/heads/{revision}", f"refs/tags/{revision}", revision) if ref in self.refs), None)

    def at(self, revision: str = "main") -> Commit:
        """Return the commit of a branch, tag, pull request or commit id."""
        ref = self.ref_of(revision)
        oid = self.refs[ref] if ref else revision
        if oid not in self.commits:
            raise revision_not_found(revision)
        return self.commits[oid]

    def files(self, revision: str = "main") -> dict[str, bytes]:
        """Return the content of every file at a revision, without `.gitattributes`."""
        return {path: blob.content for path, blob in self.at(revision).tree.items() if path != ".gitattributes"}

    def blob(self, revision: str, path: str) -> Blob:
        commit = self.at(revision)
        if path not in commit.tree:
            raise entry_not_found(path, revision, commit.oid)
        return commit.tree[path]

    def history(self, revision: str = "main") -> list[Commit]:
        """Return the commits, latest first."""
        commits, commit = [], self.at(revision)
        while commit:
            commits.append(commit)
            commit = commit.parent
        return commits

    def titles(self, revision: str = "main") -> list[str]:
        """Return the titles of the commits after the initial one, latest first."""
        return [commit.title for commit in self.history(revision)][:-1]

    def commit(
        self,
        changes: Mapping[str, Blob | bytes | str | None],
        *,
        revision: str = "main",
        title: str = "change",
        description: str = "",
        parent: str | None = None,
        create_pr: bool = False,
    ) -> Commit:
        """Commit files to a branch or pull request. `None` removes a file.

        Raises:
            HubError: 412 if `parent` is not the head of the branch, 404 if there is no such revision.
        """
        base = self.at(revision)
        ref = self.ref_of(revision) or ""
        if create_pr:
            ref = f"refs/pr/{1 + sum(name.startswith('refs/pr/') for name in self.refs)}"
        elif not ref.startswith(("refs/heads/", "refs/pr/")):
            raise HubError(400, f"{revision} is not a branch")
        if parent is not None and parent != base.oid:
            raise HubError(412, "A commit has happened since. Please refresh and try again.")
        tree = {**base.tree, **{path: as_blob(path, content) for path, content in changes.items() if content is not None}}
        tree = {path: blob for path, blob in tree.items() if changes.get(path, blob) is not None}
        commit = self._make_commit(base, title, description, tree)
        self.commits[commit.oid] = commit
        self.refs[ref] = commit.oid
        return commit

    def add_ref(self, ref: str, revision: str) -> None:
        if ref in self.refs:
            raise HubError(409, f"Reference {ref} already exists")
        self.refs[ref] = self.at(revision).oid

    def tag(self, name: str, revision: str = "main") -> None:
        self.add_ref(f"refs/tags/{name}", revision)

    def branch(self, name: str, revision: str = "main") -> None:
        self.add_ref(f"refs/heads/{name}", revision)

    def _make_commit(self, parent: Commit | None, title: str, description: str, tree: dict[str, Blob]) -> Commit:
        for blob in tree.values():
            if blob.large:
                self.large[blob.sha256] = blob.content
        named = repr((self.kind, self.name, parent and parent.oid, title, [(path, blob.etag) for path, blob in tree.items()]))
        date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        return Commit(hashlib.sha1(named.encode()).hexdigest(), parent, title, description, self.owner, date, tree)


def is_large(path: str, size: int) -> bool:
    """Whether a file is stored by LFS."""
    return path.endswith(LARGE) or size >= LARGE_SIZE


def as_blob(path: str, content: Blob | bytes | str) -> Blob:
    if isinstance(content, Blob):
        return content
    data = content.encode() if isinstance(content, str) else content
    return Blob(data, is_large(path, len(data)))
