"""The difference between two releases, in lines that read like a changelog."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

from llmops.config.catalog.spec import Strict
from llmops.releases.release import EnginePin, Release, SuitePin, WeightsPin

SHORT = 12


def diff(old: Release | None, new: Release) -> list[str]:
    """The changes from a release to the next, one a line; empty without a change.

    Args:
        old: The release that serves now; None before the first.
        new: The next release.
    """
    if old is None:
        return [
            f"first release: engine {new.engine.tag}, weights {new.weights.repo} at {new.weights.commit[:SHORT]} "
            f"({len(new.weights.files)} files, {new.weights.size / 1e9:.1f} GB)"
        ]
    return [
        *_engine(old.engine, new.engine),
        *_weights(old.weights, new.weights),
        *_suites(old.suites, new.suites),
        *_fields("gpu", old.gpu, new.gpu),
        *_fields("resources", old.resources, new.resources),
        *_fields("evaluation", old.evaluation, new.evaluation),
        *_fields("rollout", old.rollout, new.rollout),
        *_fields("access", old.access, new.access),
        *_fields("traffic", old.traffic, new.traffic),
    ]


def _engine(old: EnginePin, new: EnginePin) -> Iterator[str]:
    if old.image != new.image:
        yield f"engine image {old.image}:{old.tag} -> {new.image}:{new.tag}"
    elif old.tag != new.tag:
        yield f"engine {old.tag} -> {new.tag}"
    elif old.digest != new.digest:
        # Somebody pushed the same tag again.
        yield f"engine {old.tag} was rebuilt: {_digest(old.digest)} -> {_digest(new.digest)}"
    yield from _items("engine argument", _by_flag(old.args), _by_flag(new.args))
    yield from _items("engine variable", dict(old.env), dict(new.env))
    if old.chat_template != new.chat_template:
        yield f"engine chat template {_lines(old.chat_template)} -> {_lines(new.chat_template)}"
    if old.user != new.user:
        yield f"engine user {old.user} -> {new.user}"


def _weights(old: WeightsPin, new: WeightsPin) -> Iterator[str]:
    if old.repo != new.repo:
        yield f"weights {old.repo} -> {new.repo}"
    before, after = {file.path: file for file in old.files}, {file.path: file for file in new.files}
    changed = sum(1 for path, file in after.items() if path in before and before[path] != file)
    counts = {
        "changed": changed,
        "added": len(after.keys() - before.keys()),
        "removed": len(before.keys() - after.keys()),
    }
    files = ", ".join(f"{count} {_files(count)} {word}" for word, count in counts.items() if count)
    if old.commit != new.commit:
        yield f"weights {old.commit[:SHORT]} -> {new.commit[:SHORT]} ({files or 'the same files'})"
    elif files:
        yield f"weights {new.commit[:SHORT]}: {files}"
    if old.strategy != new.strategy:
        yield f"weights.strategy {old.strategy} -> {new.strategy}"
    before_image, after_image = (f"{pin.reference}{pin.path}" if pin else "none" for pin in (old.image, new.image))
    if before_image != after_image:
        yield f"weights.image {before_image} -> {after_image}"
    if old.token != new.token:
        yield f"weights.token {_value(old.token)} -> {_value(new.token)}"


def _suites(old: tuple[SuitePin, ...], new: tuple[SuitePin, ...]) -> Iterator[str]:
    before, after = {suite.name: suite.sha256 for suite in old}, {suite.name: suite.sha256 for suite in new}
    for name in sorted(before.keys() & after.keys()):
        if before[name] != after[name]:
            yield f"suite {name} {before[name][:SHORT]} -> {after[name][:SHORT]}"


def _fields(name: str, old: Strict, new: Strict) -> Iterator[str]:
    for field in type(new).model_fields:
        before, after = getattr(old, field), getattr(new, field)
        if before != after:
            yield f"{name}.{field} {_value(before)} -> {_value(after)}"


def _items(name: str, old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if before == after:
            continue
        if before is None:
            yield f"{name} {key}{_assigned(after)} added"
        elif after is None:
            yield f"{name} {key}{_assigned(before)} removed"
        else:
            yield f"{name} {key} {before} -> {after}"


def _by_flag(arguments: tuple[str, ...]) -> dict[str, str]:
    values_of: dict[str, list[str]] = {}
    for argument in arguments:
        flag, _, value = argument.partition("=")
        values_of.setdefault(flag, []).append(value)
    return {flag: " ".join(values) for flag, values in values_of.items()}


def _assigned(value: str | None) -> str:
    return f"={value}" if value else ""


def _value(value: object) -> str:
    match value:
        case None | ():
            return "none"
        case Strict():
            fields = value.model_dump(exclude_defaults=True)
            return "{" + ", ".join(f"{key}: {item}" for key, item in fields.items()) + "}"
        case tuple():
            return ", ".join(map(_value, value))
        case _:
            return str(value)


def _lines(text: str | None) -> str:
    """Length and hash of a text."""
    if text is None:
        return "of the repository"
    return f"of {len(text.splitlines())} lines ({hashlib.sha256(text.encode()).hexdigest()[:SHORT]})"


def _digest(digest: str) -> str:
    return digest.removeprefix("sha256:")[:SHORT]


def _files(count: int) -> str:
    return "file" if count == 1 else "files"
