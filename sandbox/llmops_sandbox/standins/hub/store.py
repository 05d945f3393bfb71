"""Repositories of the stand-in hub, in a folder.

```
ROOT/tokens.json                               {token: user}
ROOT/hashes.json                               sha256 of files already hashed, by inode, size and time
ROOT/repos/OWNER/NAME/refs.json                {"branches": {"main": commit}, "tags": {}}
ROOT/repos/OWNER/NAME/access.json              private or gated, and the tokens that may read
ROOT/repos/OWNER/NAME/commits/COMMIT/commit.json
ROOT/repos/OWNER/NAME/commits/COMMIT/files/... the files as they are
```

Several processes may read while one writes: files are replaced as a whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import BaseModel

Content = bytes | str | Path
# The hub keeps these in LFS at any size (its default .gitattributes, shortened), others from this size on.
_LFS_SUFFIXES = frozenset({".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx"})
_LFS_BYTES = 10 * 1024 * 1024
# Smaller files are copied: that is cheap, and an edit of the source does not change the store.
_LINK_BYTES = 16 * 1024 * 1024


class StoredFile(BaseModel, frozen=True):
    """One file of a commit; `sha256` is set where it is stored in LFS."""

    size: int
    blob_id: str
    sha256: str | None = None
    pointer_size: int | None = None


class Commit(BaseModel, frozen=True):
    """One commit: its files and its parent."""

    id: str
    parent: str | None
    message: str
    date: datetime
    files: dict[str, StoredFile]


class Refs(BaseModel, frozen=True):
    """Names of commits."""

    branches: dict[str, str] = {}
    tags: dict[str, str] = {}


class Access(BaseModel, frozen=True):
    """The rule for reading a repository."""

    mode: Literal["public", "gated", "private"] = "public"
    tokens: tuple[str, ...] = ()


class HubStore:
    """Repositories of the stand-in hub, in the folder `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.root.mkdir(parents=True, exist_ok=True)

    def commit(self, repo: str, files: Path | Mapping[str, Content], branch: str = "main", message: str = "") -> str:
        """Make `files` the whole content of a branch, and return the commit's id, 40 hex digits.

        The id depends on content, message and parent alone. Equal content makes no new commit. Large files become hard
        links where the file system has them: do not edit their sources in place.

        Args:
            repo: OWNER/NAME; the first commit makes it.
            files: A folder, or paths in the repository with their bytes, text, or source file.
            branch: Branch to move.
            message: Commit message; the first line is its title.
        """
        content = _folder(files) if isinstance(files, Path) else dict(files)
        home = self._home(repo)
        commits = home / "commits"
        commits.mkdir(parents=True, exist_ok=True)
        refs = self.refs(repo)
        parent = refs.branches.get(branch)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=commits))
        try:
            stored = self._take(content, partial / "files")
            if parent and self.read_commit(repo, parent).files == stored:
                return parent
            commit = _commit(stored, parent, message)
            _write(partial / "commit.json", commit.model_dump_json())
            target = commits / commit.id
            if not target.exists():
                partial.replace(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        _write(home / "refs.json", Refs(branches=refs.branches | {branch: commit.id}, tags=refs.tags))
        return commit.id

    def tag(self, repo: str, name: str, revision: str = "main") -> None:
        """Tag the present commit of `revision`."""
        commit = self.resolve(repo, revision)
        if commit is None:
            raise KeyError(f"{repo} has no revision {revision}")
        refs = self.refs(repo)
        _write(self._home(repo) / "refs.json", Refs(branches=refs.branches, tags=refs.tags | {name: commit}))

    def add_token(self, token: str, user: str = "someone") -> None:
        """Make `token` a valid token of `user`, with access to public repositories."""
        _write(self.root / "tokens.json", json.dumps({**self.tokens(), token: user}))

    def set_public(self, repo: str) -> None:
        """Let everyone read the repository."""
        _write(self._home(repo) / "access.json", Access())

    def set_gated(self, repo: str, token: str) -> None:
        """Let everyone see the repository, and only the holder of `token` read its files."""
        self._grant(repo, "gated", token)

    def set_private(self, repo: str, token: str) -> None:
        """Hide the repository from everyone but the holder of `token`."""
        self._grant(repo, "private", token)

    def _grant(self, repo: str, mode: Literal["gated", "private"], token: str) -> None:
        self.add_token(token)
        _write(self._home(repo) / "access.json", Access(mode=mode, tokens=(token,)))

    def exists(self, repo: str) -> bool:
        """Whether the repository has a commit."""
        return (self._home(repo) / "refs.json").is_file()

    def refs(self, repo: str) -> Refs:
        """Branches and tags; none if the repository does not exist."""
        path = self._home(repo) / "refs.json"
        return Refs.model_validate_json(path.read_bytes()) if path.is_file() else Refs()

    def access(self, repo: str) -> Access:
        """The rule for reading the repository."""
        path = self._home(repo) / "access.json"
        return Access.model_validate_json(path.read_bytes()) if path.is_file() else Access()

    def tokens(self) -> dict[str, str]:
        """Valid tokens and their users."""
        path = self.root / "tokens.json"
        return json.loads(path.read_bytes()) if path.is_file() else {}

    def resolve(self, repo: str, revision: str) -> str | None:
        """The commit of a branch, tag or commit id; None if there is none."""
        refs = self.refs(repo)
        for name in (revision, revision.removeprefix("refs/heads/"), revision.removeprefix("refs/tags/")):
            if commit := refs.branches.get(name) or refs.tags.get(name):
                return commit
        is_commit = revision.isalnum() and (self._home(repo) / "commits" / revision / "commit.json").is_file()
        return revision if is_commit else None

    def read_commit(self, repo: str, commit: str) -> Commit:
        """A commit that `resolve` returned."""
        return _read_commit(self._home(repo) / "commits" / commit / "commit.json")

    def file(self, repo: str, commit: str, path: str) -> Path:
        """The path of a commit's file."""
        return self._home(repo) / "commits" / commit / "files" / path

    def _home(self, repo: str) -> Path:
        owner, _, name = repo.partition("/")
        if not owner or not name or "/" in name or owner.startswith(".") or name.startswith("."):
            raise ValueError(f"{repo!r} is not OWNER/NAME")
        return self.root / "repos" / owner / name

    def _take(self, content: Mapping[str, Content], into: Path) -> dict[str, StoredFile]:
        known: dict[str, str] = {}
        index = self.root / "hashes.json"
        if index.is_file():
            known = json.loads(index.read_bytes())
        before = dict(known)
        stored: dict[str, StoredFile] = {}
        for name in sorted(content):
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise ValueError(f"{name!r} is not a path inside a repository")
            target = into / name
            target.parent.mkdir(parents=True, exist_ok=True)
            _place(content[name], target)
            stored[name] = _stored(target, known)
        if known != before:
            _write(index, json.dumps(known))
        return stored


def _folder(root: Path) -> dict[str, Content]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path for path in files}


def _place(content: Content, target: Path) -> None:
    if isinstance(content, str):
        content = content.encode()
    if isinstance(content, bytes):
        target.write_bytes(content)
        return
    if content.stat().st_size >= _LINK_BYTES:
        try:
            os.link(content.resolve(), target)
        except OSError:  # another file system, or one without links
            shutil.copy2(content, target)
    else:
        shutil.copy2(content, target)


def _stored(path: Path, known: dict[str, str]) -> StoredFile:
    size = path.stat().st_size
    if path.suffix not in _LFS_SUFFIXES and size <= _LFS_BYTES:
        return StoredFile(size=size, blob_id=_git_blob(path.read_bytes()))
    sha256 = _sha256(path, known)
    # The blob that git itself holds is a pointer; its form is fixed by the LFS specification.
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
    return StoredFile(size=size, blob_id=_git_blob(pointer), sha256=sha256, pointer_size=len(pointer))


def _sha256(path: Path, known: dict[str, str]) -> str:
    stat = path.stat()
    # A link shares inode, size and time with its source: each large file is hashed once, however often committed.
    key = f"{stat.st_dev}:{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}"
    if key in known:
        return known[key]
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if stat.st_size >= _LINK_BYTES:
        known[key] = digest
    return digest


def _git_blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _commit(files: dict[str, StoredFile], parent: str | None, message: str) -> Commit:
    content = json.dumps(
        {"parent": parent, "message": message, "files": {name: file.blob_id for name, file in files.items()}},
        sort_keys=True,
    )
    identity = hashlib.sha1(content.encode(), usedforsecurity=False).hexdigest()
    return Commit(id=identity, parent=parent, message=message, date=datetime.now(UTC), files=files)


@lru_cache(maxsize=1024)
def _read_commit(path: Path) -> Commit:
    return Commit.model_validate_json(path.read_bytes())


def _write(path: Path, content: BaseModel | str) -> None:
    text = content if isinstance(content, str) else content.model_dump_json()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text)
    partial.replace(path)
