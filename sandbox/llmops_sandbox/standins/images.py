"""The sandbox's images: names and digests, each with a local program.

The stand-in registry serves manifests and configs of these images, and the node agent starts their programs. Both read
one JSON file at each use, so that a new image is known at once.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict

from llmops.errors import BadInput

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"

_HOST = re.compile(r"^(?:[^/]*[.:][^/]*|localhost)$")
_REPOSITORY = re.compile(r"^[^/@\s]+(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)+$")
_TAG = re.compile(r"^\w[\w.-]{0,127}$", re.ASCII)


@dataclass(frozen=True)
class Image:
    """An image: its name and digest in a registry, and its program.

    Args:
        repository: Full name with its host, for example `docker.io/vllm/vllm-openai`.
        tag: The tag under which it was added.
        digest: `sha256:...` of `manifest_bytes`.
        program: Entrypoint; empty if it has files alone. The node agent fills in `{pod_ip}` and `{python}`.
        env: Environment that the image sets.
        root: Folder of this machine with the image's files, as they lie below its `/`; empty if it has none.
        files: SHA-256 over those files when the image was added; later changes of the folder do not change it.
    """

    repository: str
    tag: str
    digest: str
    program: tuple[str, ...]
    env: Mapping[str, str]
    root: str = ""
    files: str = ""

    @property
    def reference(self) -> str:
        """Repository and digest, which never name another image."""
        return f"{self.repository}@{self.digest}"


@dataclass(frozen=True)
class Reference:
    """The parts of an image's name, with host and `library/` filled in, as container runtimes do."""

    repository: str
    tag: str | None
    digest: str | None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Parse `repo[:tag][@digest]`; without either the tag is `latest`.

        Raises:
            BadInput: InvalidImageName.
        """
        rest, _, digest = text.partition("@")
        head, separator, last = rest.rpartition("/")
        last, colon, tag = last.partition(":")
        repository = normalise(head + separator + last)
        if (
            not _REPOSITORY.match(repository)
            or (colon and not _TAG.match(tag))
            or ("@" in text and not re.fullmatch(r"sha256:[0-9a-f]{64}", digest))
        ):
            raise BadInput(
                f"{text!r} is not an image reference: expected repository[:tag][@sha256:digest]",
                code="InvalidImageName",
                about=text,
            )
        return cls(repository, tag or (None if digest else "latest"), digest or None)

    def __str__(self) -> str:
        return self.repository + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def normalise(repository: str) -> str:
    """Repository with its host: `vllm/x` is `docker.io/vllm/x`, `busybox` is `docker.io/library/busybox`."""
    host, slash, rest = repository.partition("/")
    if not slash or not _HOST.match(host):
        host, rest = "docker.io", repository
    if host == "index.docker.io":
        host = "docker.io"
    if host == "docker.io" and "/" not in rest:
        rest = f"library/{rest}"
    return f"{host}/{rest}"


def config_bytes(image: Image) -> bytes:
    """The OCI image config: the same bytes for the same program and environment, on every machine."""
    return _config(image.program, image.env, image.files)


def manifest_bytes(image: Image) -> bytes:
    """The OCI manifest; its SHA-256 is the image's digest."""
    return _manifest(image.program, image.env, image.files)


def _json(content: object) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def _config(program: tuple[str, ...], env: Mapping[str, str], files: str) -> bytes:
    return _json({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": list(program), "Env": [f"{key}={env[key]}" for key in sorted(env)]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{files}"] if files else []},
    })  # fmt: skip


def _manifest(program: tuple[str, ...], env: Mapping[str, str], files: str) -> bytes:
    config = _config(program, env, files)
    return _json({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {
            "mediaType": CONFIG_TYPE,
            "digest": f"sha256:{hashlib.sha256(config).hexdigest()}",
            "size": len(config),
        },
        "layers": [],
    })  # fmt: skip


def _hash_of(root: Path) -> str:
    """SHA-256 over the names and bytes of all files below a folder."""
    hashed = hashlib.sha256()
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        hashed.update(f"{digest}  {path.relative_to(root).as_posix()}\n".encode())
    return hashed.hexdigest()


class _Content(TypedDict):
    program: list[str]
    env: dict[str, str]
    root: NotRequired[str]
    files: NotRequired[str]


class _Repository(TypedDict):
    tags: dict[str, str]
    images: dict[str, _Content]


def _image(repository: str, tag: str, digest: str, content: _Content) -> Image:
    program, root, files = tuple(content["program"]), content.get("root", ""), content.get("files", "")
    return Image(repository, tag, digest, program, content["env"], root, files)


class ImageStore:
    """The images in one JSON file. Every call reads the file; a change replaces it as a whole.

    Args:
        path: The file; the first change makes it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(
        self,
        repository: str,
        tag: str,
        program: tuple[str, ...] = (),
        env: Mapping[str, str] | None = None,
        root: Path | None = None,
    ) -> Image:
        """Add an image under a tag. An existing tag moves; its former image stays known by digest.

        Raises:
            BadInput: InvalidImageName, or ProgramMissing: neither a program nor a folder with files is given.
        """
        parsed = Reference.parse(f"{repository}:{tag}")
        if not program and root is None:
            raise BadInput(
                f"image {parsed}: it needs a program or a folder with files", code="ProgramMissing", about=str(parsed)
            )
        variables, files = dict(env or {}), _hash_of(root) if root else ""
        digest = f"sha256:{hashlib.sha256(_manifest(program, variables, files)).hexdigest()}"
        content = _Content(program=list(program), env=variables)
        if root:
            content["root"], content["files"] = str(root.resolve()), files
        with self._change() as known:
            images = known.setdefault(parsed.repository, {"tags": {}, "images": {}})
            images["images"][digest] = content
            images["tags"][tag] = digest
        return _image(parsed.repository, tag, digest, content)

    def resolve(self, reference: str) -> Image | None:
        """The image of `repo:tag`, `repo@sha256:...` or both; None if there is none.

        A digest wins over the tag beside it, as in a registry.
        """
        try:
            parsed = Reference.parse(reference)
        except BadInput:
            return None
        known = self._read().get(parsed.repository)
        if known is None:
            return None
        digest = parsed.digest or known["tags"].get(parsed.tag or "latest", "")
        content = known["images"].get(digest)
        if content is None:
            return None
        tag = parsed.tag or next((name for name, value in known["tags"].items() if value == digest), "")
        return _image(parsed.repository, tag, digest, content)

    def all(self) -> list[Image]:
        """Every tagged image, in the order in which repositories and tags were added."""
        return [
            _image(repository, tag, digest, known["images"][digest])
            for repository, known in self._read().items()
            for tag, digest in known["tags"].items()
        ]

    def remove(self, repository: str, tag: str) -> None:
        """Remove a tag, if it exists, and its image if no other tag names it."""
        repository = normalise(repository)
        with self._change() as content:
            known = content.get(repository)
            digest = known["tags"].pop(tag, None) if known else None
            if known and digest and digest not in known["tags"].values():
                del known["images"][digest]
            if known and not known["images"]:
                del content[repository]

    def _read(self) -> dict[str, _Repository]:
        try:
            return json.loads(self.path.read_text())
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise BadInput(
                f"{self.path}: not an image store: {error}",
                code="FileMalformed",
                about=str(self.path),
                remedy="Remove the file.",
            ) from error

    @contextmanager
    def _change(self) -> Generator[dict[str, _Repository]]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            content = self._read()
            yield content
            temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
            temporary.write_text(json.dumps(content, indent=1))
            temporary.replace(self.path)
