"""The CPU time that `llmops` takes to start, beside that of the libraries of any such command line."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
from typing import Any

from llmops.config.settings import SETTINGS_VARIABLE

ROUNDS = 9
SMALL: dict[str, Any] = {"rounds": 1}
"""Arguments of `run` for the shortest run."""
COMMANDS = {
    "help": ("-m", "llmops.cli", "--help"),
    "check": ("-m", "llmops.cli", "check"),
    "libraries": ("-c", "import typer, rich.console"),
}


def run(rounds: int = ROUNDS) -> dict[str, float]:
    """CPU seconds of `llmops --help`, of `llmops check` on this catalog, and of importing typer and rich.

    Medians of rounds in alternation, including the interpreter's start; `vs_libraries` is how many times more.
    """
    for arguments in COMMANDS.values():  # a first run compiles the modules and reads them from the disk
        _cpu_seconds(arguments)
    taken = {name: list[float]() for name in COMMANDS}
    for _ in range(rounds):
        for name, arguments in COMMANDS.items():
            taken[name].append(_cpu_seconds(arguments))
    medians = {name: statistics.median(values) for name, values in taken.items()}
    figures = {f"startup.{name}_cpu_seconds": seconds for name, seconds in medians.items()}
    figures |= {f"startup.{name}_vs_libraries": medians[name] / medians["libraries"] for name in ("help", "check")}
    return {key: round(value, 3) for key, value in figures.items()}


def _cpu_seconds(arguments: tuple[str, ...]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {name: value for name, value in os.environ.items() if name != SETTINGS_VARIABLE}
    subprocess.run([sys.executable, *arguments], env=environment, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
