"""The rules for an entry's `engine.args`: flags that its engine has, that no field sets, and that it allows."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Literal, NamedTuple

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from llmops.config.loading import did_you_mean
from llmops.config.schema import Problem
from llmops.config.vllm.arguments import Argument, refusal, take_apart
from llmops.config.vllm.flags import Flag, Flags, known, newest
from llmops.config.vllm.hazards import hazards

Allowance = Literal["code", "files", "flags"]

MOST_KEYS = 32
"""Deepest key of `--flag.key.key=value`."""

RESERVED_FLAGS = {
    "--model": "use weights.repo",
    "--served-model-name": "llmops sets the model's name",
    "--host": "engines listen on all addresses of their pod",
    "--port": "engines listen on 8000",
    "--uds": "engines listen on 8000",
    "--config": "the file's content would not be part of the release; write its options here",
    "--api-server-count": "the drain needs one process that answers all users",
    "--api-key": "use access.api_key, which keeps the secret out of the arguments",
    "--hf-token": "use weights.token; engines run offline",
    "--help": "the engine would end",
    "--revision": "use weights.revision",
    "--shutdown-timeout": "use rollout.drain_seconds",
    "--max-model-len": "use engine.options.max_model_len",
    "--max-num-seqs": "use engine.options.max_num_seqs",
    "--gpu-memory-utilization": "use engine.options.gpu_memory_utilization",
    "--tensor-parallel-size": "use engine.options.tensor_parallel_size",
    "--dtype": "use engine.options.dtype",
    "--quantization": "use engine.options.quantization",
    "--kv-cache-dtype": "use engine.options.kv_cache_dtype",
    "--enforce-eager": "use engine.options.enforce_eager",
    "--trust-remote-code": "use engine.options.trust_remote_code",
}


def one_argument(text: str) -> str:
    """Refuse what is no flag, and what another field or llmops itself sets, by any name that vLLM takes for it.

    Raises:
        ValueError: With the reason.
    """
    argument = take_apart(text)
    if argument is None:
        short = newest().by_name.get(text.partition("=")[0]) if text[:2] != "--" else None
        hint = f" ({text.partition('=')[0]} is short for {short.name})" if short else ""
        raise ValueError(f"must be a flag: '--flag' or '--flag=value'{hint}")
    if (name := _reserved(argument.flag)) is not None:
        also = "" if argument.flag in (name, f"--no-{name[2:]}") else f" ({argument.flag} is read as it)"
        raise ValueError(f"{name} is reserved: {RESERVED_FLAGS[name]}{also}")
    if argument.keys and argument.value is None:
        raise ValueError(f"needs a value: {argument.text}=value; vLLM would take the next argument for it")
    if len(argument.keys) > MOST_KEYS:
        raise ValueError(f"has more than {MOST_KEYS} keys")
    return text


def _reserved(flag: str) -> str | None:
    """The reserved flag that a version could take this for."""
    tables = known().values()
    exact = [table.by_name[flag] for table in tables if flag in table.by_name]
    begun = [table.by_name[name] for table in tables for name in table.abbreviated(flag)]
    names = [entry.name for entry in exact or begun]
    if not exact:
        # A version that no table has may have other flags, but it has these.
        plain = flag.replace("--no-", "--", 1)
        names += [name for name in RESERVED_FLAGS if name.startswith(plain)]
    return next((name for name in names if name in RESERVED_FLAGS), None)


class Versions(NamedTuple):
    """The versions that an entry allows, as far as they are known.

    Args:
        tables: Their flags, the newest last.
        known: Whether no other version is allowed. The table of a version stands for its later patch releases, too.
    """

    tables: tuple[Flags, ...]
    known: bool

    @classmethod
    def allowed(cls, specifier: str) -> Versions:
        """The known versions of a PEP 440 specifier."""
        allowed = SpecifierSet(specifier, prereleases=True)
        tables = tuple(table for version, table in known().items() if allowed.contains(version))
        return cls(tables, bool(tables) and not any(allowed.contains(version) for version in _beyond()))

    @property
    def nearest(self) -> Flags:
        """The newest known version that is allowed; else the newest of all."""
        return self.tables[-1] if self.tables else newest()


def _beyond() -> Iterator[str]:
    """Versions right before and after the known series. A range that has any other version has one of these."""
    first, last = (Version(version).release[:2] for version in (next(iter(known())), newest().version))
    yield f"{first[0]}.{first[1] - 1}.9999"
    yield from (f"{last[0]}.{last[1] + 1}.0", f"{last[0]}.{last[1] + 1}.1", f"{last[0]}.{last[1] + 2}.0")


def problems(
    arguments: Sequence[str], versions: Versions, allow: Collection[str], *, trust_remote_code: bool
) -> Iterator[Problem]:
    """What is wrong with arguments that are each well-formed, by the index of the argument.

    Args:
        arguments: The arguments.
        versions: The versions that the entry allows.
        allow: What it allows besides.
        trust_remote_code: Whether it allows code of repositories.
    """
    parts = [part for part in map(take_apart, arguments) if part is not None]
    for index, part in enumerate(parts):
        flag = versions.nearest.by_name.get(part.flag)
        # An unknown version may take a beginning for any of these.
        meant = [flag] if flag else [versions.nearest.by_name[name] for name in versions.nearest.abbreviated(part.flag)]
        unallowed = (_unallowed(part, candidate, allow, trust_remote_code) for candidate in meant or [None])
        problem = next(filter(None, unallowed), "")
        if not problem and versions.known and "flags" not in allow:
            problem = unfit(part, versions.tables)
        if problem or (problem := _contradiction(part, flag, parts[:index], versions.nearest)):
            yield (index,), problem


def unfit(argument: Argument, tables: Sequence[Flags]) -> str:
    """Why no version of these takes an argument; empty if one does."""
    problem = ""
    for table in tables:
        if not (problem := _unfit(argument, table)):
            return ""
    return problem


def _unfit(argument: Argument, table: Flags) -> str:
    flag, version = table.by_name.get(argument.flag), f"vLLM {table.version}"
    if flag is None:
        names = table.abbreviated(argument.flag)
        if len(names) == 1:
            return f"{argument.flag} is short for {names[0]}: write that"
        meant = f"it could be {', '.join(names[:5])}" if names else did_you_mean(argument.flag, table.by_name).strip()
        return f"{version} has no flag {argument.flag}" + (f"; {meant}" if meant else "")
    if argument.keys and not flag.json:
        return f"{argument.flag} takes no keys in {version}: write {argument.flag}=value"
    if flag.switch and argument.value is not None:
        off = f" or {flag.negations[0]}" if flag.negations else ""
        return f"{argument.flag} is a switch and takes no value: write {flag.name}{off}"
    reason = refusal(argument.text, table)
    return f"{version} refuses it: {reason}" if reason else ""


def _unallowed(argument: Argument, flag: Flag | None, allow: Collection[str], trust_remote_code: bool) -> str:
    for hazard in hazards(argument, flag):
        if hazard.kind in allow or (hazard.remote and trust_remote_code):
            continue
        if hazard.remote:
            return f"{hazard.what} runs code of a repository: set engine.options.trust_remote_code to allow it"
        if hazard.kind == "code":
            return f"{hazard.what} loads code: write engine.allow: [code] to allow it"
        instead = "; engine.chat_template takes the file beside the entry" if hazard.what == "--chat-template" else ""
        return (
            f"{hazard.what} names files of the pod, which are not part of the release: write engine.allow: [files] to "
            f"allow it{instead}"
        )
    return ""


def _contradiction(argument: Argument, flag: Flag | None, before: Sequence[Argument], table: Flags) -> str:
    """What an earlier argument says of the same flag in a way that vLLM does not add up."""
    if flag is None:
        return ""
    others = [other for other in before if table.by_name.get(other.flag) is flag]
    if any((other.flag in flag.negations) != (argument.flag in flag.negations) for other in others):
        return f"switches {flag.name} the other way than another argument: remove one"
    if any(bool(other.keys) != bool(argument.keys) for other in others):
        return f"{flag.name} is given whole and by keys, of which vLLM takes the keys alone: write one or the other"
    return ""
