"""The manifest beside verified weights, and the shards' parts that it is merged from.

Beside a folder `KEY` stand `KEY.json` (what was proven, with BLAKE3 for fast checks later), `KEY.sha256` (for
`sha256sum -c`, run in the folder that holds `KEY`) and `KEY.manifest/` (one part per shard). `KEY.json` is written
last: where it is, the weights are verified.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmops.worker.files import remove_folder, write_atomically, write_json
from llmops.worker.pins import Pins
from llmops.worker.report import Problem


@dataclass(frozen=True)
class Part:
    """What one shard found. `run` tells the parts of one Job from those of an earlier one."""

    run: str
    pins: str
    index: int
    of: int
    files: dict[str, dict[str, Any]]
    problems: tuple[Problem, ...]


def manifest_path(target: Path) -> Path:
    """The manifest of a weights folder: what says that it is verified."""
    return target.with_name(f"{target.name}.json")


def sums_path(target: Path) -> Path:
    """The list for `sha256sum -c`."""
    return target.with_name(f"{target.name}.sha256")


def parts_path(target: Path) -> Path:
    """The folder of the shards' parts."""
    return target.with_name(f"{target.name}.manifest")


def write_part(target: Path, part: Part) -> None:
    """Keep what a shard found. Where something is wrong, the manifest goes first: wrong weights are never verified."""
    if part.problems:
        withdraw(target)
    folder = parts_path(target)
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{part.index}-of-{part.of}.json"
    # One process at a time has a shard: what is half written there, it left when it was killed.
    for left in folder.glob(f".{name}.*"):
        left.unlink(missing_ok=True)
    write_json(folder / name, asdict(part))


def read_parts(target: Path) -> list[Part]:
    """The parts that are there, of whatever run. Parts that cannot be read count as not there."""
    found: list[Part] = []
    for path in sorted(parts_path(target).glob("*-of-*.json")):
        try:
            content = json.loads(path.read_bytes())
            problems = tuple(Problem(**item) for item in content.pop("problems"))
            found.append(Part(**content, problems=problems))
        except (OSError, ValueError, TypeError, KeyError):
            # Removed by another process, or not ours: its shard will write it again.
            continue
    return found


def known_problems(target: Path) -> list[Problem]:
    """What checks of this folder found wrong: a download that finds any replaces the folder.

    None where there is a manifest: then a later check found everything right.
    """
    if manifest_path(target).exists():
        return []
    return [problem for part in read_parts(target) for problem in part.problems]


def merge(target: Path, pins: Pins, *, run: str, of: int, verified_at: str) -> bool:
    """Write the manifest if all `of` parts of this run are there and nothing is wrong.

    Any number of shards may do it at the same time: they write the same.

    Args:
        target: The weights folder.
        pins: What the parts prove.
        run: Only parts of this run count.
        of: Number of shards.
        verified_at: Time of the proof, ISO 8601.

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
    """Lines that `sha256sum -c` accepts in the folder that holds `folder`."""
    return "".join(f"{digest}  {folder}/{path}\n" for path, digest in sorted(digests.items()))


def read_manifest(target: Path) -> dict[str, Any] | None:
    """The manifest of a weights folder; None if it is not verified, or the manifest itself is spoilt."""
    try:
        found = json.loads(manifest_path(target).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) and {"pins", "files"} <= found.keys() else None


def withdraw(target: Path) -> None:
    """Say that a folder is not verified."""
    manifest_path(target).unlink(missing_ok=True)
    sums_path(target).unlink(missing_ok=True)


def forget(target: Path) -> None:
    """Remove everything that stands beside a weights folder."""
    withdraw(target)
    remove_folder(parts_path(target))


def describe(problems: Sequence[Problem]) -> str:
    """The problems in one sentence: how many of which kind, and the first few by name."""
    kinds = sorted({problem.kind for problem in problems})
    counts = ", ".join(f"{sum(item.kind == kind for item in problems)} {kind}" for kind in kinds)
    named = ", ".join(f"{item.path} ({item.kind})" for item in problems[:3])
    return f"{counts}: {named}{' and more' if len(problems) > 3 else ''}"
