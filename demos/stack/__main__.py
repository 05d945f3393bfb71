"""`make demo-stack`: two models, a router, Prometheus, an autoscaler; writes `build/demo-stack.json`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from llmops_sandbox.cluster.binaries import line_progress
from llmops_sandbox.sandbox import Sandbox, default_folder
from llmops_sandbox.timeline import Timeline
from rich.console import Console

from demos.stack.steps import STEPS
from demos.stack.world import make_world
from llmops.cli import show
from llmops.errors import LlmopsError


def main() -> None:
    """Run the demo; exits 0 if every step holds."""
    arguments = argparse.ArgumentParser(prog="demos.stack", description=__doc__)
    arguments.add_argument("--engine", choices=("simulated", "vllm"), default="simulated")
    arguments.add_argument("--output", type=Path, default=Path("build/demo-stack.json"))
    arguments.add_argument(
        "--dir", type=Path, default=default_folder("demo-stack"), help="folder of the sandbox, which is created anew"
    )
    arguments.add_argument("--keep", action="store_true", help="leave the sandbox running")
    options = arguments.parse_args()
    timeline = Timeline(Console(stderr=True, highlight=False, soft_wrap=True))
    steps: list[dict[str, Any]] = []
    problem = ""
    started = time.monotonic()
    try:
        world = make_world(options.dir, options.engine, timeline, line_progress(lambda line: show.say(line, err=True)))
        for step in STEPS:
            show.say(f"\n== {step.name}: {(step.run.__doc__ or '').strip()}", "bold", err=True)
            began = time.monotonic()
            figures = step.run(world)
            steps.append({"name": step.name, "seconds": round(time.monotonic() - began, 1), "figures": figures})
    except LlmopsError as error:
        problem = str(error)
        show.say(f"demo-stack: {error}", "red", err=True)
    finally:
        if not options.keep:
            Sandbox(options.dir).down()
    report = {
        "held": not problem,
        "problem": problem,
        "engine": options.engine,
        "seconds": round(time.monotonic() - started, 1),
        "steps": steps,
        "timeline": timeline.entries,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=2) + "\n")
    show.say(f"\n{options.output}: {len(steps)} of {len(STEPS)} steps, {report['seconds']:.0f} s in all", err=True)
    sys.exit(1 if problem else 0)


if __name__ == "__main__":
    main()
