"""A release: a spec with everything pinned.

Its id is the hash of its content, so that the same inputs are the same release on every machine and at any time.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal

from pydantic import Field

from llmops.config.catalog.spec import Access, Evaluation, Gpu, Resources, Rollout, SecretKey, Strict
from llmops.config.catalog.traffic import Traffic


class FilePin(Strict):
    """One file of a commit, pinned by size and hash.

    Exactly one hash is set: `sha256` if the hub stores the file as LFS/Xet, else `git_sha1`, the git blob hash.
    """

    path: str
    size: Annotated[int, Field(ge=0)]
    sha256: str | None = None
    git_sha1: str | None = None


class ImagePin(Strict):
    """The exact image with the weights in its folder `path`."""

    repository: str
    tag: str
    digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    path: str = "/"

    @property
    def reference(self) -> str:
        """The image by digest: a tag can move."""
        return f"{self.repository}@{self.digest}"


class WeightsPin(Strict):
    """The exact files of one commit, and how engines get them."""

    repo: str
    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    files: tuple[FilePin, ...]
    token: SecretKey | None = None
    strategy: Literal["volume", "init", "image"] = "volume"
    image: ImagePin | None = None

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def key(self) -> str:
        """Folder name from commit, file set and place of the files: a proof holds for exactly these."""
        listing = json.dumps([file.model_dump() for file in self.files], sort_keys=True, separators=(",", ":"))
        if self.strategy != "volume":
            listing += self.strategy + (f"{self.image.reference}{self.image.path}" if self.image else "")
        return f"{self.commit[:12]}-{hashlib.sha256(listing.encode()).hexdigest()[:8]}"


class EnginePin(Strict):
    """The exact image and arguments; the manifest adds model path, name, port and drain."""

    image: str
    tag: str
    digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    user: Annotated[int, Field(ge=0)] = Field(default=2000, description="User id that the engine runs as.")
    chat_template: str | None = Field(default=None, description="Text of the chat template.")

    @property
    def reference(self) -> str:
        """The image by digest: a tag can move."""
        return f"{self.image}@{self.digest}"


class SuitePin(Strict):
    """A suite, pinned by the hash of its definition and cases."""

    name: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Release(Strict):
    """Everything that decides how a model behaves, pinned. Replicas are not part of it: scale is not behaviour."""

    model: str
    weights: WeightsPin
    engine: EnginePin
    gpu: Gpu
    resources: Resources
    evaluation: Evaluation
    suites: tuple[SuitePin, ...]
    rollout: Rollout
    access: Access
    traffic: Traffic = Traffic()

    @property
    def baked(self) -> bool:
        """Whether the engine's own image has the weights."""
        return self.weights.image is not None and self.weights.image.repository == self.engine.image

    def canonical(self) -> str:
        """The values other than defaults, as JSON with sorted keys and no white space. The id is its hash.

        It leaves out defaults, so that a new field in a new version of llmops changes no id and starts no trial. A
        default must therefore never change; a test holds them.
        """
        content = self.model_dump(mode="json", exclude_defaults=True)
        return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)

    @property
    def id(self) -> str:
        """First 12 hex digits of the SHA-256 of the content.

        Calculated on each access: `model_copy` would copy a cached id to other content.
        """
        return hashlib.sha256(self.canonical().encode()).hexdigest()[:12]
