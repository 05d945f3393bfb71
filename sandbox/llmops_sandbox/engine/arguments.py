"""The command line of the simulated engine: that of the vLLM whose version it plays, read as vLLM reads it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from llmops.config.vllm.command_line import Refused, ServeParser
from llmops.config.vllm.flags import Flag, nearest


@dataclass(frozen=True)
class ServeArguments:
    """The arguments that the simulated engine uses; it validates and ignores the others."""

    model: str
    served_names: tuple[str, ...]
    host: str | None
    port: int
    api_keys: tuple[str, ...]
    max_model_len: int | None
    max_num_seqs: int
    max_logprobs: int
    tool_call_parser: str | None
    auto_tool_choice: bool
    reasoning_parser: str | None
    shutdown_timeout: int
    quantization: str | None
    gpu_memory_utilization: float
    middleware: tuple[str, ...]
    given: dict[str, object]


def parser_of(version: str, removed: Iterable[str] = (), added: Iterable[str] = ()) -> ServeParser:
    """The parser of `vllm serve`.

    Args:
        version: vLLM's version; one without a table has the flags of the last one before it that has.
        removed: Flags that the image does not have, though vLLM has.
        added: Flags without a value that it has besides.
    """
    gone = set(removed)
    left = (
        replace(flag, names=tuple(name for name in flag.names if name not in gone)) for flag in nearest(version).flags
    )
    return ServeParser((*(flag for flag in left if flag.names), *(Flag((name,), "switch") for name in added)))


def parse_arguments(
    arguments: Sequence[str],
    environ: Mapping[str, str],
    removed: Iterable[str] = (),
    added: Iterable[str] = (),
    version: str = "0.32.0",
) -> ServeArguments:
    """Parse the arguments of `vllm serve`.

    Raises:
        SystemExit: Code 2, after argparse's message on stderr, as in vLLM.
        ValueError: No model, or an unreadable file of options; vLLM ends with a traceback.
        IndexError: The last argument lacks its value; vLLM ends with a traceback.
    """
    try:
        values = parser_of(version, removed, added).read(arguments).values
    except Refused as refused:
        sys.stderr.write(refused.output)
        raise SystemExit(refused.code) from refused
    model = values["model_tag"] or values.get("model") or "Qwen/Qwen3-0.6B"
    key = environ.get("VLLM_API_KEY")
    return ServeArguments(
        model=model,
        served_names=tuple(values.get("served_model_name") or [model]),
        host=values.get("host"),
        port=8000 if values.get("port") is None else values["port"],
        api_keys=tuple(values.get("api_key") or ([key] if key else [])),
        max_model_len=None if values.get("max_model_len") in (None, -1) else values["max_model_len"],
        max_num_seqs=values.get("max_num_seqs") or 256,
        max_logprobs=20 if values.get("max_logprobs") is None else values["max_logprobs"],
        tool_call_parser=values.get("tool_call_parser"),
        auto_tool_choice=bool(values.get("enable_auto_tool_choice")),
        reasoning_parser=values.get("reasoning_parser"),
        shutdown_timeout=values.get("shutdown_timeout") or 0,
        quantization=values.get("quantization"),
        gpu_memory_utilization=values.get("gpu_memory_utilization") or 0.92,
        middleware=tuple(values.get("middleware") or ()),
        given={
            name: value
            for name, value in values.items()
            if value not in (None, False) and name not in ("api_key", "hf_token")
        },
    )
