"""`make demo-auto`: runs the day on a new sandbox, and writes `build/demo-auto.json`."""

from __future__ import annotations

import argparse
import base64
import json
import secrets
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from llmops_sandbox.cluster.binaries import line_progress
from llmops_sandbox.sandbox import Sandbox, default_folder
from llmops_sandbox.timeline import Timeline
from rich.console import Console

from demos.auto.day import STEPS, Day
from demos.auto.receiver import Receiver
from demos.auto.system import start
from demos.auto.watching import watched
from llmops.cli import show
from llmops.clients.kubernetes.client import Cluster
from llmops.config.settings import load_settings
from llmops.errors import LlmopsError

MODEL = "smollm2-135m"


def main() -> None:
    """Run the day; exits 0 if every step ends as it has to."""
    arguments = argparse.ArgumentParser(prog="demos.auto", description=__doc__)
    arguments.add_argument("--output", type=Path, default=Path("build/demo-auto.json"))
    arguments.add_argument(
        "--dir", type=Path, default=default_folder("demo-auto"), help="folder of the sandbox, which is created anew"
    )
    arguments.add_argument("--keep", action="store_true", help="leave the sandbox running")
    options = arguments.parse_args()
    timeline = Timeline(Console(stderr=True, highlight=False, soft_wrap=True))
    problem = ""
    started = time.monotonic()
    steps: list[dict[str, Any]] = []
    try:
        run(options.dir, timeline, steps, keep=options.keep)
    except LlmopsError as error:
        problem = str(error)
        show.say(f"demo-auto: {error}", "red", err=True)
    report = {
        "held": not problem,
        "problem": problem,
        "seconds": round(time.monotonic() - started, 1),
        "steps": steps,
        "timeline": timeline.entries,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=2) + "\n")
    show.say(f"\n{options.output}: {len(steps)} of {len(STEPS)} steps, {report['seconds']:.0f} s in all", err=True)
    sys.exit(1 if problem else 0)


def run(folder: Path, timeline: Timeline, steps: list[dict[str, Any]], *, keep: bool) -> None:
    """Run the day on a new sandbox in `folder`; adds each finished step with its seconds to `steps`."""
    project = Path.cwd()
    day_project = folder / "project"
    Sandbox(folder, project=day_project).down(erase=True)
    shutil.copytree(project / "evals", day_project / "evals")
    (day_project / "models").mkdir()
    repo = _declare(project / "models" / f"{MODEL}.yaml", day_project / "models")
    sandbox = Sandbox(folder, project=day_project)
    secret = f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"
    with Receiver(secret, lambda alert: timeline.add("alert", alert["line"], kind=alert["kind"])) as receiver:
        try:
            timeline.add("world", f"a new sandbox in {folder}, with llmops and Dagster on it")
            ui = start(sandbox, line_progress(lambda line: show.say(line, err=True)), receiver.url, secret)
            timeline.add("seen", f"Dagster's UI is at {ui.url}")
            cluster = Cluster.connect(load_settings(sandbox.settings_file))
            day = Day(sandbox, cluster, timeline, receiver, MODEL, repo)
            with watched(timeline, cluster, ui):
                for step in STEPS:
                    began = time.monotonic()
                    show.say(f"\n== {step.name}: {(step.run.__doc__ or '').strip()}", "bold", err=True)
                    step.run(day)
                    steps.append({"name": step.name, "seconds": round(time.monotonic() - began, 1)})
        finally:
            if not keep:
                sandbox.down()


def _declare(original: Path, models: Path) -> str:
    """Declare the shipped model, with re-validation each minute and repair; returns its repository."""
    from ruamel.yaml import YAML

    yaml = YAML()
    spec: dict[str, Any] = yaml.load(original)
    spec["automation"] = {"revalidate": "* * * * *", "repair": ["weights"]}
    yaml.dump(spec, models / original.name)
    return str(spec["weights"]["repo"])


if __name__ == "__main__":
    main()
