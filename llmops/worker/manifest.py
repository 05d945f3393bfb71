"""The manifest beside verified weights, and the parts of shards that it is merged from.

Beside a folder `KEY` are `KEY.json` (the manifest, with BLAKE3 for fast checks later), `KEY.sha256` (for
`sha256sum -c`, run in the parent of `KEY`) and `KEY.manifest/` (one part per shard). `KEY.json` is written last: if it
exists, the weights are verified.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmops.worker.files import remove_folder, write_atomically, write_json
from llmops.worker.foreign import parse_json
from llmops.worker.pins import Pins
from llmops.worker.report import Problem


@dataclass(frozen=True)
class Part:
    """Result of one shard. `run` separates the parts of a Job from those of an earlier Job."""

    run: str
    pins: str
    index: int
    of: int
    files: dict[str, dict[str, Any]]
    problems: tuple[Problem, ...]


def manifest_path(target: Path) -> Path:
    """Path of the manifest of a weights folder; if the file exists, the weights are verified."""
    return target.with_name(f"{target.name}.json")


def sums_path(target: Path) -> Path:
    """Path of the list for `sha256sum -c`."""
    return target.with_name(f"{target.name}.sha256")


def parts_path(target: Path) -> Path:
    """Folder of the shards' parts."""
    return target.with_name(f"{target.name}.manifest")


def write_part(target: Path, part: Part) -> None:
    """Write a part. If it has problems, remove the manifest first: wrong weights are never verified."""
    if part.problems:
        withdraw(target)
    folder = parts_path(target)
    folder.mkdir(parents=True, exist_ok=True)
    # Kubernetes runs a shard twice if its node seems lost, so the temporary files here may be another process's. A
    # killed process leaves a small one, which is deleted with the folder.
    write_json(folder / f"{part.index}-of-{part.of}.json", asdict(part))


def read_parts(target: Path) -> list[Part]:
    """The parts of all runs. A part that cannot be read counts as missing."""
    parts: list[Part] = []
    for path in sorted(parts_path(target).glob("*-of-*.json")):
        try:
            content = parse_json(path.read_bytes())
            problems = tuple(Problem(**item) for item in content.pop("problems"))
            parts.append(Part(**content, problems=problems))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            # Another process has removed the part, or another version wrote it: its shard writes it again.
            continue
    return parts


def known_problems(target: Path) -> list[Problem]:
    """Problems that checks of this folder have found: a download replaces these files.

    Empty if a manifest exists: then a later check has found no problem.
    """
    if manifest_path(target).exists():
        return []
    return [problem for part in read_parts(target) for problem in part.problems]


def merge(target: Path, pins: Pins, *, run: str, of: int, verified_at: str) -> bool:
    """Write the manifest if all `of` parts of this run exist and have no problem.

    Several shards may do it at the same time: they write the same content.

    Args:
        target: The weights folder.
        pins: The files that the parts cover.
        run: Only parts of this run count.
        of: Number of shards.
        verified_at: Time of the verification, ISO 8601.

    Returns:
        Whether the weights are now verified.
    """
    parts = [part for part in read_parts(target) if (part.run, part.pins, part.of) == (run, pins.hash, of)]
    if len(parts) < of or any(part.problems for part in parts):
        return False
    files = {path: entry for part in parts for path, entry in part.files.items()}
    if files.keys() != {file.path for file in pins.files}:
        return False
    write_atomically(sums_path(target), sums(target.name, {path: files[path]["sha256"] for path in files}).encode())
    write_json(
        manifest_path(target),
        {
            "model": pins.model,
            "repo": pins.repo,
            "commit": pins.commit,
            "pins": pins.hash,
            "verified_at": verified_at,
            "bytes": pins.size,
            "files": files,
        },
    )
    return True


def sums(folder: str, digests: dict[str, str]) -> str:
    """Lines for `sha256sum -c`, run in the parent of `folder`."""
    return "".join(f"{digest}  {folder}/{path}\n" for path, digest in sorted(digests.items()))


def read_manifest(target: Path) -> dict[str, Any] | None:
    """The manifest of a weights folder; None if there is none, or it is damaged."""
    try:
        content = parse_json(manifest_path(target).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return content if isinstance(content, dict) and {"pins", "files"} <= content.keys() else None


def withdraw(target: Path) -> None:
    """Remove the manifest: the folder is no longer verified."""
    manifest_path(target).unlink(missing_ok=True)
    sums_path(target).unlink(missing_ok=True)


def forget(target: Path) -> None:
    """Remove the manifest and the parts of a weights folder."""
    withdraw(target)
    remove_folder(parts_path(target))


def describe(problems: Sequence[Problem]) -> str:
    """The problems in one sentence: the number of each kind, and the first three files."""
    kinds = sorted({problem.kind for problem in problems})
    counts = ", ".join(f"{sum(item.kind == kind for item in problems)} {kind}" for kind in kinds)
    named = ", ".join(f"{item.path} ({item.kind})" for item in problems[:3])
    return f"{counts}: {named}{' and more' if len(problems) > 3 else ''}"
