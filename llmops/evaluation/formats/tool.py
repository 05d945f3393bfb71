"""An evaluation tool: how to start it, where it writes, and what reads its files. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from llmops.evaluation.formats.reading import Files, Reading

KEY_VARIABLE = "OPENAI_API_KEY"
RESULTS_PLACE = "{results}"
OFFLINE: Mapping[str, str] = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}
"""Variables of every tool: its image and its suite have all it needs, and it talks to the engine alone."""


@dataclass(frozen=True)
class Tool:
    """One tool.

    Args:
        name: The name that suites use.
        program: The program and its first arguments; the suite's arguments follow.
        saving: Arguments that make the tool write its results; `{results}` is the results folder.
        reserved: Flags that a suite may not give, because `saving` gives them or llmops relies on their default.
        patterns: Names of the results files, below the results folder.
        parse: Reads the results files.
        environment: Variables of this tool, besides those of every tool.
    """

    name: str
    program: tuple[str, ...]
    saving: tuple[str, ...]
    reserved: tuple[str, ...]
    patterns: tuple[str, ...]
    parse: Callable[[Files], Reading]
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
