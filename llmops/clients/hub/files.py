"""Selects the files of a commit that a release takes. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice
from types import MappingProxyType

from llmops.clients.hub import loading as rules
from llmops.clients.hub.loading import Loading
from llmops.clients.hub.refusals import NAMES_SHOWN, no_weights, shown, some
from llmops.config.catalog.spec import UNSAFE_SUFFIXES
from llmops.errors import BadRelease
from llmops.worker.pins import unusable

BY_DEFAULT = Loading()
NOTHING_READ: Mapping[str, object] = MappingProxyType({})


@dataclass(frozen=True, order=True)
class HubFile:
    """One file of a commit: size in bytes, and one hash.

    A file in LFS or Xet has `sha256`, the hash of its content. Any other file has `git_sha1`, its git blob hash.
    """

    path: str
    size: int
    sha256: str | None = None
    git_sha1: str | None = None


def documents_needed(
    files: Iterable[HubFile], include: Sequence[str], exclude: Sequence[str] = (), loading: Loading = BY_DEFAULT
) -> tuple[HubFile, ...]:
    """The JSON files whose content `select` needs: few, and none for most repositories with one file of weights."""
    present = {file.path: file for file in files}
    matched = [path for path in present if _selected(path, include, exclude)]
    needed: set[str] = set()
    if loading.known:
        top = rules.top_tensors(matched, loading)
        if top.tensors and top.index in matched:
            needed.add(top.index)
        if any(rules.is_weights(path) and _is_below(path, include) for path in matched):
            needed |= {rules.CONFIG, rules.MODULES}
        if not any(rules.is_weights(path) and "/" not in path and not rules.is_adapter(path) for path in present):
            needed.add(rules.ADAPTER_CONFIG)
    if loading.remote_code and any(path.endswith(".py") for path in present):
        needed |= set(rules.WITH_CODE)
    return tuple(present[path] for path in sorted(needed & present.keys()))


def select(
    files: Iterable[HubFile],
    include: Sequence[str],
    exclude: Sequence[str] = (),
    allow_pickle: bool = False,
    *,
    loading: Loading = BY_DEFAULT,
    documents: Mapping[str, object] | None = NOTHING_READ,
) -> tuple[HubFile, ...]:
    """The files that a release takes, sorted by path: the weights that vLLM loads, and what else the patterns select.

    Patterns work as `allow_patterns` and `ignore_patterns` of `huggingface_hub` do: `*` also matches `/`, a pattern
    that ends in `/` selects everything below, and case matters. In a pattern that begins with `/`, the top folder, `*`
    does not match `/`.

    Of the weights that patterns select, those are taken that vLLM loads (see `loading`). Below the top folder these are
    the ones that the model's architecture names, or a pattern that has a folder in it. Where a folder's safetensors are
    left out, so is the rest of the folder: it is the same model in another form.

    Whatever the patterns select, formats that can run code when an engine loads them are left out unless `allow_pickle`
    is set. The repository's Python files are taken where the engine runs them.

    Args:
        files: All files of the commit.
        include: Patterns of files to take.
        exclude: Patterns of files to leave out.
        allow_pickle: Whether to take formats that can run code when loaded.
        loading: How the engine is told to load.
        documents: Content of the files of `documents_needed`, by name. An index that is not among them does not count;
            then the numbers in the names say whether a sharded file is complete. None where nothing can be read: then
            the weights below the top folder are taken, and an index may list fewer files than the numbers imply.

    Raises:
        BadRelease: No weights that vLLM loads are selected, a sharded file is incomplete, or a name cannot be used.
    """
    present = sorted(files)
    if loading.remote_code and rules.asks_for_code(documents or {}):
        include = (*include, "/*.py")
    matched = [file for file in present if _selected(file.path, include, exclude)]
    allowed = [file for file in matched if allow_pickle or not is_unsafe(file.path)]
    paths = [file.path for file in allowed]
    taken = frozenset(_loaded(paths, include, loading, documents) if loading.known else paths)
    judged = loading.known or loading.load_format in rules.BY_PATTERNS
    if not taken or (judged and not any(rules.is_weights(path) for path in taken)):
        everything = [file.path for file in present]
        raise no_weights(everything, [file.path for file in matched], include, exclude, allow_pickle, documents or {})
    _refuse_unusable(sorted(taken))
    return tuple(file for file in allowed if file.path in taken)


def require_config(files: Iterable[HubFile], loading: Loading) -> None:
    """Refuse files without the model's configuration: vLLM ends without one.

    Raises:
        BadRelease: There is none.
    """
    paths = {file.path for file in files}
    mistral = rules.MISTRAL_CONFIG in paths and any(fnmatchcase(path, "consolidated*.safetensors") for path in paths)
    if rules.CONFIG in paths or mistral or loading.other_config or loading.config_format not in ("auto", "hf"):
        return
    raise BadRelease(
        f"The selected files have no {rules.CONFIG}, which the engine needs.",
        code="ConfigMissing",
        about=rules.CONFIG,
        remedy="Correct weights.include and weights.exclude, or take a repository or a revision that has one.",
    )


def is_unsafe(path: str) -> bool:
    """Whether the file's format can run code when an engine loads it, or has no safe loader."""
    return path.lower().endswith(UNSAFE_SUFFIXES)


def _loaded(
    paths: Sequence[str], include: Sequence[str], loading: Loading, documents: Mapping[str, object] | None
) -> Iterable[str]:
    """Of the selected paths, without the weights that the engine does not load.

    Raises:
        BadRelease: The weights are incomplete.
    """
    tensors = _complete(rules.top_tensors(paths, loading), paths, documents)
    engines = rules.folders(documents or {})

    def left_out(path: str) -> bool:
        if not path.endswith(rules.SAFE_SUFFIX) and not is_unsafe(path):
            return False
        if "/" not in path:
            return path.endswith((rules.SAFE_SUFFIX, *rules.PICKLES)) and not rules.is_read(path, tensors)
        return documents is not None and _is_below(path, include) and not engines(path.rpartition("/")[0])

    dropped = {path for path in paths if left_out(path)}
    copies = {path.rpartition("/")[0] for path in dropped if "/" in path and path.endswith(rules.SAFE_SUFFIX)}

    def in_a_copy(path: str) -> bool:
        return any(path[: match.start()] in copies for match in re.finditer("/", path)) and _is_below(path, include)

    kept = [path for path in paths if path not in dropped and not in_a_copy(path)]
    _refuse_incomplete(rules.missing_shards(path for path in kept if rules.is_weights(path) and path not in tensors))
    return kept


def _complete(top: rules.Top, paths: Sequence[str], documents: Mapping[str, object] | None) -> frozenset[str]:
    """The safetensors of the top folder that the engine loads.

    Raises:
        BadRelease: The index lists others as well, or there is none and the names imply others.
    """
    with_index = bool(top.tensors) and top.index in paths
    if documents is None and with_index:
        return top.tensors
    if documents and with_index and top.index in documents:
        listed = rules.listed(documents[top.index], top.index)
        # vLLM looks for the listed files among all safetensors, or all of Mistral's.
        there = top.tensors if top.index == rules.MISTRAL_INDEX else {path for path in paths if "/" not in path}
        _refuse_incomplete(sorted(listed - there), f"of {top.index}")
        return listed
    _refuse_incomplete(rules.missing_shards(top.tensors))
    return top.tensors


def _refuse_incomplete(missing: Iterable[str], source: str = "of a sharded file") -> None:
    # A name may imply a million others: the first are enough.
    first = list(islice(missing, NAMES_SHOWN + 1))
    if not first:
        return
    names = some(first[:NAMES_SHOWN]) + (" and more" if len(first) > NAMES_SHOWN else "")
    raise BadRelease(
        f"The selected weights are incomplete: {names} {source} {'is' if len(first) == 1 else 'are'} not among the "
        "selected files.",
        code="ShardsMissing",
        about=shown(first[0]),
        remedy="Correct weights.include and weights.exclude, or choose a revision whose upload is complete.",
    )


def _refuse_unusable(paths: Sequence[str]) -> None:
    if reason := unusable(paths):
        path, problem = reason
        raise BadRelease(
            f"The repository has {shown(path)}, which {problem}.",
            code="FileNameUnusable",
            about=shown(path),
            remedy="Leave the file out with weights.exclude if the engine does not need it, or use another repository.",
        )


def _selected(path: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    return _matches(path, include) and not _matches(path, exclude)


def _matches(path: str, patterns: Sequence[str]) -> bool:
    return any(_match(path, pattern) for pattern in patterns)


def _match(path: str, pattern: str) -> bool:
    if pattern.startswith("/") and not pattern.endswith("/"):
        parts, patterns = path.split("/"), pattern[1:].split("/")
        return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))
    pattern = pattern.removeprefix("/")
    return fnmatchcase(path, f"{pattern}*" if pattern.endswith("/") else pattern)


def _is_below(path: str, include: Sequence[str]) -> bool:
    """Whether a file is below the top folder, and no pattern with a folder in it selects it."""
    return "/" in path and not _matches(path, [pattern for pattern in include if "/" in pattern[1:]])
