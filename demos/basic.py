"""Two rollouts end to end: `make demo`.

Brings the sandbox up, takes a model through all seven stages to production, and then offers a worse release. llmops has
to reject that one while the first goes on serving. Writes a report to `build/demo.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from llmops_sandbox.cluster.binaries import line_progress
from llmops_sandbox.sandbox import Sandbox, default_folder
from llmops_sandbox.seeding import Engine, seed, seed_worse

from llmops.cli import show
from llmops.cli.rollouts import Ended, run_rollout
from llmops.clients.kubernetes.client import Cluster
from llmops.config import names
from llmops.config.settings import load_settings
from llmops.errors import LlmopsError
from llmops.releases.records import Records
from llmops.releases.stages import STAGES

MODEL = "smollm2-135m"


def main() -> None:
    """Run the demo; exits 0 if the good release serves at the end and llmops rejected the worse one."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--engine", choices=("simulated", "vllm"), default="simulated")
    arguments.add_argument("--output", type=Path, default=Path("build/demo.json"))
    arguments.add_argument(
        "--dir", type=Path, default=default_folder("demo"), help="folder of the sandbox, which is created anew"
    )
    arguments.add_argument("--keep", action="store_true", help="leave the sandbox running")
    options = arguments.parse_args()
    sandbox = Sandbox(options.dir)
    try:
        report = run(sandbox, options.engine)
    except LlmopsError as error:
        show.say(f"demo: {error}", "red", err=True)
        sys.exit(1)
    finally:
        if not options.keep:
            sandbox.down()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=2) + "\n")
    promoted, rejected = report["promoted"], report["rejected"]
    held = (
        promoted["verdict"] == "Passed"
        and rejected["verdict"] == "Failed"
        and rejected["deployment"]["release"] == promoted["release"]
    )
    show.say(
        f"\n{options.output}: promoted {promoted['release']}, rejected {rejected['release']} "
        f"({rejected['reason']}), {report['seconds']:.0f} s in all",
        err=True,
    )
    sys.exit(0 if held else 1)


def run(sandbox: Sandbox, engine: Engine) -> dict[str, Any]:
    """Roll out two releases on a new sandbox; returns the report."""
    started = time.monotonic()
    _say(f"a new sandbox in {sandbox.folder}")
    sandbox.down(erase=True)
    sandbox.up(line_progress(lambda line: show.say(line, err=True)))
    os.environ.update(sandbox.environment())
    cluster = Cluster.connect(load_settings())
    version = cluster.version()
    _say(
        f"Kubernetes {version} is up after {time.monotonic() - started:.1f} s; the hub gets {MODEL}, the registry vLLM"
    )
    seed(sandbox, MODEL, engine)
    records = Records(cluster)
    _say(f"llmops rollout {MODEL}")
    promoted = _report(cluster, records, _rollout(records))
    _say("the hub gets a worse commit on main; llmops rollout again")
    seed_worse(sandbox, MODEL, engine)
    rejected = _report(cluster, records, _rollout(records))
    return {
        "promoted": promoted,
        "rejected": rejected,
        "engine": engine,
        "kubernetes": version,
        "seconds": round(time.monotonic() - started, 2),
    }


def _rollout(records: Records) -> Ended:
    ended = run_rollout(records, MODEL, engine_version=None, revision=None, retry=False)
    show.say(ended.line, "green" if ended.record and ended.record.verdict == "Passed" else "yellow", err=True)
    return ended


def _report(cluster: Cluster, records: Records, ended: Ended) -> dict[str, Any]:
    record = ended.record
    if record is None:
        raise LlmopsError(
            f"the rollout of {MODEL} ended without a verdict: {ended.line}", code="NoVerdict", about=f"model {MODEL}"
        )
    main = cluster.get("Deployment", names.engine_name(MODEL, "stable")) or {"metadata": {"labels": {}}}
    spec, status = main.get("spec") or {}, main.get("status") or {}
    containers: list[dict[str, Any]] = spec["template"]["spec"]["containers"] if spec else [{"image": ""}]
    seconds = records.seconds(MODEL, record.release)
    return {
        "release": record.release,
        "verdict": record.verdict,
        "reason": record.reason,
        "stages": {stage: seconds[stage] for stage in STAGES},
        "deployment": {
            "image": containers[0]["image"],
            "release": main["metadata"]["labels"].get(names.RELEASE_LABEL, ""),
            "replicas": spec.get("replicas", 0),
            "ready": status.get("readyReplicas", 0),
        },
    }


def _say(what: str) -> None:
    show.say(f"\n== {what}", "bold", err=True)


if __name__ == "__main__":
    main()
