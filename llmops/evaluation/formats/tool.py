"""What the pipeline knows of an evaluation tool: how it starts, where it writes, and who reads its files. Pure."""

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
"""Of every tool: what it needs is in its image or in the suite, and nothing is sent anywhere but to the engine."""


@dataclass(frozen=True)
class Tool:
    """One tool.

    Args:
        name: As suites name it.
        program: What is started, as its image has it on the path; a suite's arguments follow.
        saving: Arguments that make it write its results; `{results}` is the folder for them.
        reserved: Flags that a suite may not give, as `saving` does.
        patterns: Names of the files that it writes and that are read, below that folder.
        parse: Reads them.
        environment: Variables that it runs with, besides those of every tool.
    """

    name: str
    program: tuple[str, ...]
    saving: tuple[str, ...]
    reserved: tuple[str, ...]
    patterns: tuple[str, ...]
    parse: Callable[[Files], Reading]
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
