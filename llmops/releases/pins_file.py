"""Pins from a file in place of the hub: for sites that cannot reach one.

The file is the manifest that the checksum stage writes beside verified weights (`weights/MODEL/KEY.json` on the
volume of a site that has a hub), or anything else with its `repo`, `commit` and `files`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llmops.clients.hub import HubFile
from llmops.errors import BadInput

HEX = r"^[0-9a-f]+$"


class _File(BaseModel):
    model_config = ConfigDict(frozen=True)

    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=HEX, min_length=64, max_length=64)] | None = None
    git_sha1: Annotated[str, Field(pattern=HEX, min_length=40, max_length=40)] | None = None


class _Manifest(BaseModel):
    model_config = ConfigDict(frozen=True)

    repo: str
    commit: str
    files: dict[str, _File]


class PinsFile:
    """Answers as the hub would, for the one commit that the file is of.

    Args:
        path: The file.

    Raises:
        BadInput: It cannot be read, or is no manifest.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._manifest = _Manifest.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise BadInput(
                f"{path}: cannot be read as pins (weights.pins): {error}",
                remedy="Copy the manifest of verified weights from a site that has a hub: weights/MODEL/KEY.json on "
                "its volume.",
            ) from error

    def resolve(self, repo: str, revision: str) -> str:
        """The commit, if it is the one that the file is of.

        Raises:
            BadInput: It is not.
        """
        self._require(repo, revision)
        return self._manifest.commit

    def list_files(self, repo: str, commit: str) -> Sequence[HubFile]:
        """All files of the commit. One that the hub pins by its git hash is pinned by that here, too.

        Raises:
            BadInput: The file is of another commit, or pins one of its files by nothing.
        """
        self._require(repo, commit)
        if loose := [path for path, file in self._manifest.files.items() if not (file.sha256 or file.git_sha1)]:
            raise BadInput(f"{self._path}: {', '.join(loose[:3])}: neither sha256 nor git_sha1 is given")
        return [
            HubFile(path, file.size, None if file.git_sha1 else file.sha256, file.git_sha1)
            for path, file in sorted(self._manifest.files.items())
        ]

    def check_access(self, repo: str) -> None:
        """Nobody is asked."""

    def _require(self, repo: str, revision: str) -> None:
        if (repo, revision) != (self._manifest.repo, self._manifest.commit):
            raise BadInput(
                f"{self._path} has the pins of {self._manifest.repo} at {self._manifest.commit}, and not those of "
                f"{repo} at {revision}",
                remedy="Correct weights.repo and weights.revision, or give weights.pins the file that belongs to them.",
            )
