"""The part of a release that the worker needs: the pinned files of a commit."""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

from llmops.worker.foreign import parse_json
from llmops.worker.report import WorkerError

LONGEST_NAME = 255
"""Bytes of a file's name: NAME_MAX of Linux and of most file systems."""
LONGEST_PATH = 3500
"""Bytes of a path in a repository: PATH_MAX of Linux, 4,096, less the folder on the volume."""


@dataclass(frozen=True)
class FilePin:
    """One file: path in the repository, size in bytes, and one of sha256 and git blob sha1, in lower-case hex."""

    path: str
    size: int
    sha256: str | None
    git_sha1: str | None

    @property
    def digest(self) -> str:
        """The pinned hash with its name, for messages."""
        return f"sha256:{self.sha256}" if self.sha256 else f"git-sha1:{self.git_sha1}"


@dataclass(frozen=True)
class Pins:
    """The weights of a release."""

    model: str
    repo: str
    commit: str
    files: tuple[FilePin, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def hash(self) -> str:
        """SHA-256 over repository, commit and files; a manifest names it as `pins`."""
        content = {"repo": self.repo, "commit": self.commit, "files": [asdict(file) for file in self.files]}
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_pins(path: Path) -> Pins:
    """Read the pins from a release file.

    Raises:
        WorkerError: The file cannot be read, is not a release, or names a file outside of its folder (kind `usage`).
    """
    try:
        content: Any = parse_json(path.read_bytes())
        weights = content["weights"]
        files = tuple(
            FilePin(item["path"], item["size"], item.get("sha256"), item.get("git_sha1")) for item in weights["files"]
        )
        pins = Pins(content["model"], weights["repo"], weights["commit"], files)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WorkerError("usage", f"{path} cannot be read as a release: {type(error).__name__}: {error}") from error
    if not files:
        raise WorkerError("usage", f"{path} pins no files of {pins.repo}")
    _refuse_unsafe(pins.files, path)
    return pins


def _refuse_unsafe(files: Sequence[FilePin], source: Path) -> None:
    if reason := unusable([file.path for file in files]):
        path, problem = reason
        raise WorkerError("usage", f"{source} pins {path!r}, which {problem}", remedy="Do not use this repository.")
    for file in files:
        if bool(file.sha256) == bool(file.git_sha1):
            raise WorkerError("usage", f"{source} must pin {file.path!r} by exactly one of sha256 and git_sha1")


def unusable(paths: Sequence[str]) -> tuple[str, str] | None:
    """The first path that no folder of a volume can hold beside the others, and why; None if one can hold all."""
    for path in paths:
        if reason := unsafe_path(path):
            return path, reason
    # In this order what is below a path comes right after it.
    ordered = sorted(paths, key=lambda path: path.split("/"))
    for path, following in pairwise(ordered):
        if following == path:
            return path, "is listed twice"
        if following.startswith(f"{path}/"):
            return path, f"is both a file and the folder of {following}"
    return None


def unsafe_path(path: str) -> str | None:
    """Why a path of a repository is not safe to use below a folder; None if it is safe."""
    try:
        content = path.encode()
    except UnicodeEncodeError:
        return "is not text"
    if len(content) > LONGEST_PATH or max(map(len, content.split(b"/"))) > LONGEST_NAME:
        return f"is too long: a name may have {LONGEST_NAME} bytes, and a path {LONGEST_PATH}"
    if not path or path != PurePosixPath(path).as_posix():
        return "is not a plain relative path"
    if "\\" in path or any(ord(letter) < 32 or ord(letter) == 127 for letter in path):
        return "contains a backslash or a control character"
    parts = PurePosixPath(path).parts
    if path.startswith("/") or ".." in parts:
        return "leads out of its folder"
    if parts[0] == ".cache":
        return "is where a download keeps its own files"
    return None


def shards(files: Iterable[FilePin], count: int) -> list[list[FilePin]]:
    """Assign files to `count` shards, the largest file first to the least loaded shard.

    The order of the files does not matter, so all pods compute the same shards.
    """
    assigned: list[list[FilePin]] = [[] for _ in range(count)]
    loads = [(0, index) for index in range(count)]
    for file in sorted(files, key=lambda item: (-item.size, item.path)):
        load, index = heapq.heappop(loads)
        assigned[index].append(file)
        heapq.heappush(loads, (load + file.size, index))
    return assigned
