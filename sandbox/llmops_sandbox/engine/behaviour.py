"""The behaviour of a simulated engine: the weights' `simulation.json`, overridden by the image's variables."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

FILE = "simulation.json"
PREFIX = "SIM_"
ALL_FAULTS = "SIM_FAULTS"
OOM_MARKER = "LLMOPS_SANDBOX_OOM_MARKER"

ProtocolFault = Literal[
    "tool_calls_as_text",
    "invalid_arguments",
    "wrong_argument_types",
    "one_call_only",
    "ignores_tool_choice",
    "json_format_ignored",
    "json_schema_ignored",
    "stream_differs",
    "stream_without_usage",
    "stop_ignored",
    "max_tokens_ignored",
    "n_ignored",
    "logprobs_missing",
    "usage_wrong",
    "finish_reason_wrong",
    "reasoning_in_content",
    "cuts_multibyte",
    "errors_as_200",
    "forgets_system",
    "forgets_turns",
]


@dataclass(frozen=True)
class Behaviour:
    """Speed, quality and faults. The package's docstring explains each field."""

    version: str = "0.32.0"
    removed_flags: tuple[str, ...] = ()
    added_flags: tuple[str, ...] = ()
    load_seconds: float | None = None
    load_mb_per_second: float = 2000.0
    ttft_ms: float = 30.0
    ttft_jitter_ms: float = 3.0
    ttft_factor: float = 1.0
    tokens_per_second: float = 120.0
    tokens_factor: float = 1.0
    quality: float = 1.0
    garbage: bool = False
    crash_on_load: str | None = None
    oom_on_load: Literal["gpu", "host"] | None = None
    hang_on_load: bool = False
    completions: Literal["ok", "error", "hang"] = "ok"
    error_rate: float = 0.0
    crash_after_requests: int | None = None
    die_after_seconds: float | None = None
    divergence: float = 0.0
    logprob_noise: float = 0.0
    prompt_logprobs: bool = True
    chat_template_tokens: int = 0
    protocol_fault: ProtocolFault | None = None

    @property
    def first_token_seconds(self) -> float:
        """Mean time to first token, seconds, of a request that did not wait."""
        return self.ttft_ms * self.ttft_factor / 1000

    @property
    def token_seconds(self) -> float:
        """Time between tokens, seconds."""
        return 1 / (self.tokens_per_second * self.tokens_factor)


FIELDS = typing.get_type_hints(Behaviour)


def from_environment(environ: Mapping[str, str]) -> dict[str, object]:
    """The image's behaviour: the object in `SIM_FAULTS`, overridden by single `SIM_*` variables.

    Raises:
        ValueError: A variable is not JSON, or names an unknown behaviour.
    """
    settings: dict[str, object] = {}
    if ALL_FAULTS in environ:
        settings |= json.loads(environ[ALL_FAULTS])
    for name, text in environ.items():
        if name.startswith(PREFIX) and name != ALL_FAULTS:
            try:
                value: object = json.loads(text)
            except ValueError:
                value = text
            settings[name.removeprefix(PREFIX).lower()] = value
    return settings


def from_weights(folder: Path) -> dict[str, object]:
    """The weights' behaviour, without the answers; empty if the folder has no `simulation.json`.

    Raises:
        ValueError: The file is not a JSON object.
    """
    file = folder / FILE
    if not file.is_file():
        return {}
    content = json.loads(file.read_text())
    content.pop("answers", None)
    return content


def resolve(weights: Mapping[str, object], image: Mapping[str, object]) -> Behaviour:
    """The defaults, overridden by the weights, overridden by the image.

    Raises:
        ValueError: A key is unknown or its value has the wrong type.
    """
    return Behaviour(**{key: _checked(key, value) for key, value in ({**weights, **image}).items()})  # pyright: ignore[reportArgumentType] -- _checked holds each value to its field's type


def _checked(key: str, value: object) -> object:
    kind = FIELDS.get(key)
    if kind is None:
        raise ValueError(f"simulated engine: unknown behaviour {key!r}; known: {', '.join(sorted(FIELDS))}")
    if kind == tuple[str, ...] and isinstance(value, list | tuple):
        return tuple(str(item) for item in value)
    allowed = typing.get_args(kind) or (kind,)
    for option in allowed:
        literal = typing.get_args(option) if typing.get_origin(option) is Literal else ()
        if value in literal or option == value:
            return value
        if option is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if isinstance(option, type) and type(value) is option:
            return value
    raise ValueError(f"simulated engine: {key} must be {kind}, found {value!r}")


def to_json(behaviour: Behaviour) -> dict[str, object]:
    """The fields that differ from the defaults, for `simulation.json`."""
    plain = Behaviour()
    return {name: value for name, value in dataclasses.asdict(behaviour).items() if value != getattr(plain, name)}
