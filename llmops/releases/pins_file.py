"""Pins from a file, for sites that cannot reach a hub.

The file is the manifest that the checksum stage writes beside verified weights (`weights/MODEL/KEY.json` on the
volume of a site with a hub), or another JSON file with its `repo`, `commit` and `files`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llmops.clients.hub import HubFile
from llmops.config.loading import dotted, explain
from llmops.errors import BadInput

HEX = r"^[0-9a-f]+$"
PROBLEMS_SHOWN = 5


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
    """Answers like the hub, for the one commit of the file.

    Args:
        path: The file.

    Raises:
        BadInput: The file cannot be read, or is no manifest.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._manifest = _Manifest.model_validate_json(path.read_bytes())
        except OSError as error:
            raise self._bad(str(error)) from error
        except ValidationError as error:
            problems = [f"{dotted(place) or 'the file'} {problem}" for place, problem in explain(error, _Manifest)]
            raise self._bad("; ".join(problems[:PROBLEMS_SHOWN])) from error

    def _bad(self, problem: str) -> BadInput:
        return BadInput(
            f"{self._path}: is no manifest of verified weights (weights.pins): {problem}",
            code="BadPinsFile",
            about=str(self._path),
            remedy="Copy weights/MODEL/KEY.json from the volume of a site with a hub.",
        )

    def resolve(self, repo: str, revision: str) -> str:
        """The file's commit.

        Raises:
            BadInput: The file has the pins of another repository or revision.
        """
        self._require(repo, revision)
        return self._manifest.commit

    def list_files(self, repo: str, commit: str) -> Sequence[HubFile]:
        """All files of the commit. A git hash comes before SHA-256, as at the hub: the release's id stays the same.

        Raises:
            BadInput: The file has the pins of another commit, or no hash of one of its files.
        """
        self._require(repo, commit)
        if unpinned := [path for path, file in self._manifest.files.items() if not (file.sha256 or file.git_sha1)]:
            raise BadInput(
                f"{self._path}: {', '.join(unpinned[:3])}: has neither sha256 nor git_sha1",
                code="FileNotPinned",
                about=f"{self._path}: {unpinned[0]}",
                remedy="Add one of them.",
            )
        return [
            HubFile(path, file.size, None if file.git_sha1 else file.sha256, file.git_sha1)
            for path, file in sorted(self._manifest.files.items())
        ]

    def check_access(self, repo: str) -> None:
        """A file gives access to everybody."""

    def read_documents(self, repo: str, commit: str, files: Sequence[HubFile]) -> None:
        """None: the file has hashes, and no content. It lists what the site with a hub took by that content."""

    def _require(self, repo: str, revision: str) -> None:
        if (repo, revision) != (self._manifest.repo, self._manifest.commit):
            raise BadInput(
                f"{self._path}: has the pins of {self._manifest.repo} at {self._manifest.commit}, not of {repo} at "
                f"{revision}",
                code="OtherPins",
                about=str(self._path),
                remedy="Correct weights.repo and weights.revision, or set weights.pins to the file of that commit.",
            )
