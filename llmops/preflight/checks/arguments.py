"""Whether the engine takes its arguments: one that it refuses ends it before it loads."""

from __future__ import annotations

from collections.abc import Iterator

from packaging.version import Version

from llmops.clients.registry.versions import Tag
from llmops.config.catalog.arguments import unfit
from llmops.config.vllm.arguments import MODEL, take_apart
from llmops.config.vllm.command_line import Refused, parser_of
from llmops.config.vllm.flags import Flags, known, nearest
from llmops.preflight.checks.case import Case, Check, count, some
from llmops.preflight.finding import Finding

SUBJECT = "engine arguments"


def _arguments(case: Case) -> Iterator[Finding]:
    """Hold the pinned release's arguments against the flags of its version."""
    if case.release is None:
        return
    engine = case.release.engine
    tag = Tag.parse(engine.tag)
    exact = next((table for name, table in known().items() if tag and tag.version == Version(name)), None)
    table = exact or nearest(str(tag.version) if tag else "")
    parts = [part for part in map(take_apart, engine.args) if part is not None]
    problems = [problem for part in parts if (problem := unfit(part, (table,)))]
    if not problems:
        yield from _repeated(engine.args, table)
        if exact:
            yield Finding("ok", SUBJECT, f"vLLM {table.version} takes {count(len(parts), 'argument')}")
    elif exact and "flags" not in case.spec.engine.allow:
        yield Finding(
            "error",
            SUBJECT,
            some(problems),
            "Correct engine.options or engine.args, or take another engine.version; write engine.allow: [flags] for an "
            "image with flags of its own.",
        )
    elif not exact:
        yield Finding(
            "warning",
            SUBJECT,
            f"llmops does not know the flags of {engine.tag}; {some(problems)}",
            "Look up the flags in vLLM's release notes. The canary ends at once if the engine refuses one.",
        )


def _repeated(arguments: tuple[str, ...], table: Flags) -> Iterator[Finding]:
    """What is given more than once, where one value counts alone."""
    try:
        repeated = parser_of(table).read((MODEL, *arguments)).repeated
    except (Refused, ValueError, IndexError):
        return
    if once := [name for name in repeated if not (name in table.by_name and table.by_name[name].append)]:
        yield Finding("warning", SUBJECT, f"{some(once)} more than once: the last one counts", "Remove the others.")


CHECKS = (Check("engine.arguments", SUBJECT, (), _arguments),)
