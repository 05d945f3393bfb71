"""Selects the files of a commit that a release takes. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from llmops.config.catalog.spec import UNSAFE_SUFFIXES
from llmops.errors import BadRelease

SAFE_SUFFIX = ".safetensors"
_SHARD = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.\w+)$")
_NAMES_SHOWN = 5


@dataclass(frozen=True, order=True)
class HubFile:
    """One file of a commit: size in bytes, and one hash.

    A file in LFS or Xet has `sha256`, the hash of its content. Any other file has `git_sha1`, its git blob hash.
    """

    path: str
    size: int
    sha256: str | None = None
    git_sha1: str | None = None


def select(
    files: Iterable[HubFile],
    include: Sequence[str],
    exclude: Sequence[str] = (),
    allow_pickle: bool = False,
) -> tuple[HubFile, ...]:
    """The files that a release takes, sorted by path.

    Patterns work as `allow_patterns` and `ignore_patterns` of `huggingface_hub` do: `*` also matches `/`, a pattern
    that ends in `/` selects everything below, and case matters. Whatever the patterns select, formats that can run
    code when an engine loads them are left out unless `allow_pickle` is set.

    Raises:
        BadRelease: No safe weights are selected, or a sharded file is incomplete.
    """
    present = sorted(files)
    matched = [file for file in present if _matches(file.path, include) and not _matches(file.path, exclude)]
    taken = tuple(file for file in matched if allow_pickle or not is_unsafe(file.path))
    if not any(_is_weights(file.path) for file in taken):
        raise _no_weights(present, matched, include, exclude, allow_pickle)
    if missing := missing_shards(file.path for file in taken):
        raise BadRelease(
            f"The selected weights are incomplete: {_names(missing)} of a sharded file "
            f"{_is(missing)} not among the selected files.",
            code="ShardsMissing",
            about=missing[0],
            remedy="Correct weights.include and weights.exclude, or choose a revision whose upload is complete.",
        )
    return taken


def is_unsafe(path: str) -> bool:
    """Whether the file's format can run code when an engine loads it, or has no safe loader."""
    return path.lower().endswith(UNSAFE_SUFFIXES)


def missing_shards(paths: Iterable[str]) -> tuple[str, ...]:
    """Shards that the names of the others imply: `model-00001-of-00003.safetensors` implies two more."""
    sets: defaultdict[tuple[str, str, str], set[int]] = defaultdict(set)
    for path in paths:
        if match := _SHARD.match(path):
            sets[match["stem"], match["count"], match["suffix"]].add(int(match["number"]))
    return tuple(
        f"{stem}-{number:05d}-of-{count}{suffix}"
        for (stem, count, suffix), numbers in sorted(sets.items())
        for number in range(1, int(count) + 1)
        if number not in numbers
    )


def _matches(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(path, f"{item}*" if item.endswith("/") else item) for item in patterns)


def _is_weights(path: str) -> bool:
    return path.endswith(SAFE_SUFFIX) or is_unsafe(path)


def _no_weights(
    present: Sequence[HubFile],
    matched: Sequence[HubFile],
    include: Sequence[str],
    exclude: Sequence[str],
    allow_pickle: bool,
) -> BadRelease:
    safe = [file.path for file in present if file.path.endswith(SAFE_SUFFIX)]
    unsafe = [file.path for file in present if is_unsafe(file.path)]
    patterns = f"weights.include {list(include)} without weights.exclude {list(exclude)}"
    if safe:
        return BadRelease(
            f"{patterns} selects no safetensors file; the repository has {_names(safe)}.",
            code="WeightsNotSelected",
            about="weights.include",
            remedy="Correct weights.include and weights.exclude.",
        )
    if unsafe and allow_pickle:
        return BadRelease(
            f"{patterns} selects no weights; the repository has {_names(unsafe)}.",
            code="WeightsNotSelected",
            about="weights.include",
            remedy="Add a pattern for them, such as '*.bin', to weights.include.",
        )
    if unsafe:
        return BadRelease(
            f"The repository has no safetensors, only formats that can run code when loaded: {_names(unsafe)}.",
            code="OnlyUnsafeWeights",
            about=unsafe[0],
            remedy="Use a repository or a revision with safetensors; or, if you trust its authors, set "
            "weights.allow_pickle: true and add a pattern for these files to weights.include.",
        )
    names = [file.path for file in (matched or present)]
    return BadRelease(
        f"The repository has no weights at all: it has {_names(names) if names else 'no files'}.",
        code="NoWeights",
        remedy="Correct weights.repo or weights.revision.",
    )


def _names(paths: Sequence[str]) -> str:
    shown = ", ".join(paths[:_NAMES_SHOWN])
    more = len(paths) - _NAMES_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _is(items: Sequence[str]) -> str:
    return "is" if len(items) == 1 else "are"
