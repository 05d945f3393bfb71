"""`make bench`: runs all benches, and writes build/bench.json. Arguments choose single benches."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

BENCHES = (
    "hashing",
    "downloading",
    "load_client",
    "startup",
    "rollout",
    "deciding",
    "executors",
    "definitions",
    "sensors",
    "verdicts",
    "power",
    "live",
)
# The highest value of a figure, on an idle core.
LIMITS = {
    "load_client.cpu_ms_per_request": 1.0,
    "startup.help_cpu_seconds": 0.3,
    "startup.check_cpu_seconds": 0.8,
}


def main() -> None:
    """Run the benches one after the other. Each alternates with its peer."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("benches", nargs="*", choices=[*BENCHES, []], help="all by default")
    arguments.add_argument(
        "--small",
        action="store_true",
        help="the shortest run that shows that a bench works; writes build/bench-small.json",
    )
    arguments.add_argument("--output", type=Path)
    options = arguments.parse_args()
    output: Path = options.output or Path("build/bench-small.json" if options.small else "build/bench.json")
    figures: dict[str, Any] = json.loads(output.read_text()) if options.benches and output.exists() else {}
    for name in options.benches or BENCHES:
        sys.stderr.write(f"{name} ...\n")
        bench = importlib.import_module(f"bench.{name}")
        measured: dict[str, Any] = bench.run(**bench.SMALL) if options.small else bench.run()
        for key, value in _flat(measured):
            sys.stderr.write(f"  {key:<44} {value:g}{_limit(key, value)}\n")
        # Written after each bench, so that a later bench that breaks loses nothing.
        figures |= measured | {"machine": _machine()}
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(figures, indent=2) + "\n")


def _flat(figures: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, float]]:
    """The figures one by one; those of a group by its name and their own."""
    for key, value in figures.items():
        if isinstance(value, Mapping):
            yield from _flat(cast(Mapping[str, Any], value), f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _limit(key: str, value: float) -> str:
    most = LIMITS.get(key)
    return "" if most is None else f" (at most {most:g}{': over' if value > most else ''})"


def _machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
    }


if __name__ == "__main__":
    main()
