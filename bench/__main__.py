"""`make bench`: everything, into build/bench.json. Arguments choose single benches."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
from pathlib import Path

BENCHES = ("hashing", "downloading", "load_client", "rollout", "executors", "definitions", "sensors", "verdicts")


def main() -> None:
    """Run the benches one after the other; each is measured against its peer in alternation."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("benches", nargs="*", choices=[*BENCHES, []], help="all, if none is named")
    arguments.add_argument("--output", type=Path, default=Path("build/bench.json"))
    given = arguments.parse_args()
    found: dict[str, object] = json.loads(given.output.read_text()) if given.benches and given.output.exists() else {}
    for name in given.benches or BENCHES:
        sys.stderr.write(f"{name} ...\n")
        measured: dict[str, float] = importlib.import_module(f"bench.{name}").run()
        found |= measured
        for key, value in measured.items():
            sys.stderr.write(f"  {key:<44} {value:g}\n")
    found["machine"] = {
        "cores": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
    }
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
