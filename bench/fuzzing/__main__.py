"""`python -m bench.fuzzing PARSER... --minutes N --seed S`; inputs that fail are kept in build/fuzzing/PARSER/."""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import time
from pathlib import Path

from bench.fuzzing.mutation import judge, mutated
from bench.fuzzing.parsers import PARSERS

KEPT = Path("build/fuzzing")
MEASURED = 20
"""The memory of one input in so many is counted."""
MOST_FAULTS = 20


def fuzz(name: str, minutes: float, seed: int) -> int:
    """Damaged inputs for one parser; the number of its different faults."""
    parser, chance = PARSERS[name], random.Random(f"{name} {seed}")  # noqa: S311 - repeatable, not secret
    faults: set[str] = set()
    inputs, end = 0, time.process_time() + minutes * 60
    while time.process_time() < end and len(faults) < MOST_FAULTS:
        content = mutated(parser.seeds, chance)
        inputs += 1
        fault = judge(parser, content, measure_memory=inputs % MEASURED == 0)
        if fault and (kind := fault.what[:60]) not in faults:
            faults.add(kind)
            path = KEPT / name / hashlib.sha256(fault.content).hexdigest()[:12]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(fault.content)
            sys.stdout.write(f"{name}: {path} {fault.what}\n")
    sys.stdout.write(f"{name}: {inputs:,} inputs, {len(faults)} faults\n")
    sys.stdout.flush()
    return len(faults)


def main() -> int:
    """Exit with 1 if a parser has a fault."""
    options = argparse.ArgumentParser(prog="bench.fuzzing", description=__doc__)
    options.add_argument("parser", nargs="*", help=f"none: all of {', '.join(PARSERS)}")
    options.add_argument("--minutes", type=float, default=10.0, help="of the processor, for each parser")
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    names = given.parser or list(PARSERS)
    if unknown := set(names) - PARSERS.keys():
        options.error(f"no parser {', '.join(sorted(unknown))}; there are {', '.join(PARSERS)}")
    return int(sum(fuzz(name, given.minutes, given.seed) for name in names) > 0)


if __name__ == "__main__":
    sys.exit(main())
