"""One case of the storm: a rollout, an act at its moment, an operator who runs it again, and what is left."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx2
from llmops_sandbox.cluster.binaries import find_or_build_kubectl

from bench.storm.acts import MANAGER, MOMENTS, Changed, Drawn, Scene
from bench.storm.judge import (
    MOST_RERUNS,
    Attempt,
    Gap,
    Left,
    down_by,
    ending_of,
    faults,
    is_sound,
    names_actor,
    repairs,
    rerun_options,
    untrue,
)
from llmops.cli.exits import Exit
from llmops.config import names
from llmops.config.steps import Step
from llmops.errors import LlmopsError
from llmops.rollout.ops.cleanup import release_of
from llmops.rollout.ops.serving import is_ready
from tests.support.dying import Run
from tests.support.world import Model

USUAL_SECONDS = 2.0
"""How long a stage takes of which no record says so."""
LOOK_SECONDS = 0.1
RUN_SECONDS = 600.0
CALM_SECONDS = 90.0
"""How long the objects may take to come to rest after a run: pods end their requests first."""


class Probe:
    """Asks a ready pod of main for a completion, again and again, in a thread."""

    def __init__(self, model: Model) -> None:
        self.gaps: list[Gap] = []
        self.looks = 0
        self._model, self._stop = model, threading.Event()
        self._cluster = model.cluster
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Probe:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def answers(self) -> bool:
        """Whether at least one ready pod of main's Service answers a request."""
        service = self._cluster.get("Service", self._model.name)
        if service is None:
            return False
        pods = self._cluster.list("Pod", labels=service["spec"]["selector"])
        return any(self._asked(pod["status"]["podIP"]) for pod in pods if is_ready(pod))

    def _asked(self, address: str) -> bool:
        body = {"model": self._model.name, "prompt": "What is 1 + 10?", "max_tokens": 1}
        try:
            url = f"http://{address}:{names.ENGINE_PORT}/v1/completions"
            return httpx2.post(url, json=body, timeout=30).status_code == 200
        except httpx2.HTTPError:
            return False

    def _look(self) -> None:
        down: float | None = None
        while not self._stop.wait(LOOK_SECONDS):
            now = time.monotonic()
            try:
                # A pod may end between the list and the question: ask twice.
                up = self.answers() or self.answers()
            except LlmopsError:
                continue
            self.looks += 1
            if not up and down is None:
                down = now
            elif up and down is not None:
                self.gaps.append(Gap(down, now))
                down = None
        if down is not None:
            self.gaps.append(Gap(down, time.monotonic()))


def log_of(folder: Path, *parts: object) -> Path:
    """The path of a new log in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ("-".join(map(str, parts)) + ".log")
    for old in (path, path.with_name(f"{path.name}.steps")):
        old.unlink(missing_ok=True)
    return path.resolve()


def until(holds: Callable[[], object], seconds: float) -> bool:
    """Wait until something holds; False if it does not in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def usual(model: Model, stage: str) -> float:
    """Seconds that a stage of this model took in its last passed trial."""
    passed = (record.stages.get(stage) for record in model.records.history(model.name) if record.verdict == "Passed")
    return next((seconds for seconds in passed if seconds), USUAL_SECONDS)


def reaches(model: Model, run: Run, stage: str, before: str | None) -> bool:
    """Wait until the run's trial is at the stage, or past it; False if the run ends first."""

    def at_stage() -> bool:
        if stage == MOMENTS[0]:
            return run.reached(Step.LEASE_ACQUIRED)
        candidate = model.records.state(model.name).candidate
        opened = model.records.opened(model.name, candidate) if candidate not in (None, before) else None
        return opened is not None and MOMENTS.index(stage) <= MOMENTS.index(
            opened.stage.replace("traffic", "promotion")
        )

    until(lambda: run.ended or at_stage(), RUN_SECONDS)
    return not run.ended


def act(model: Model, run: Run, drawn: Drawn, seconds: float, before: str | None) -> tuple[float | None, Changed]:
    """Do the act at its moment; when it began and what it changed, or None and nothing if the run ended before."""
    if not reaches(model, run, drawn.stage, before):
        return None, ()
    moment = time.monotonic() + seconds * drawn.fraction
    until(lambda: run.ended or time.monotonic() >= moment, RUN_SECONDS)
    if run.ended:
        return None, ()
    began = time.monotonic()
    changed = drawn.act.do(Scene(model, run, drawn.seconds))
    return (began, changed) if changed else (None, ())


def look(model: Model, probe: Probe) -> Left:
    """What the cluster has of the model now."""
    records, cluster, name = model.records, model.cluster, model.name
    state, main = records.state(name), model.deployment()
    pods = cluster.list("Pod", labels=names.engine_selector(name, "stable"))
    verdicts = {record.release: record.verdict for record in reversed(records.verdicts(name))}
    tried = {record["metadata"]["labels"][names.RELEASE_LABEL] for record in cluster.list(
        "ConfigMap", labels={names.MODEL_LABEL: name, names.RECORD_LABEL: "trial"})}  # fmt: skip
    canary = names.engine_name(name, "canary")
    left = [f"{kind} {canary}" for kind in ("Deployment", "Service") if cluster.get(kind, canary)]
    left += [
        f"Pod {pod['metadata']['name']}" for pod in cluster.list("Pod", labels=names.engine_selector(name, "canary"))
    ]
    return Left(
        stable=state.stable,
        deployed=release_of(main) if main else None,
        template=release_of(main["spec"]["template"]) if main else None,
        pods=[release_of(pod) for pod in pods if is_ready(pod)],
        canaries=left,
        opened=sorted(release for release in tried if records.opened(name, release)),
        verdicts=verdicts,
        answers=probe.answers(),
    )


def calm(model: Model, probe: Probe, seconds: float) -> Left:
    """What the cluster has of the model once it has come to rest, or after so many seconds."""

    def at_rest() -> bool:
        left = look(model, probe)
        return model.serving() is not None and left.answers and not left.canaries and not untrue(left)

    until(at_rest, seconds)
    return look(model, probe)


def operate(model: Model, words: Sequence[str], log: Path) -> Attempt:
    """Run a command that a remedy names, as an operator does."""
    program = {
        "llmops": [sys.executable, "-m", "llmops.cli", "--settings", str(model.settings_file)],
        "kubectl": [str(find_or_build_kubectl()), "--kubeconfig", str(model.sandbox.kubeconfig)],
    }[words[0]]
    as_json = ["--json"] if words[0] == "llmops" else []
    done = subprocess.run(
        [*program, *words[1:], *as_json], capture_output=True, text=True, check=False, timeout=RUN_SECONDS
    )
    log.write_text(done.stdout + done.stderr)
    return Attempt(" ".join(words), done.returncode, ending_of(log.read_text()), log.read_text())


def roll_out(run: Run, *options: str) -> Attempt:
    """Wait for the end of a rollout."""
    code = run.wait(RUN_SECONDS)
    return Attempt(" ".join(("llmops rollout", *options)), code, ending_of(run.text), run.text)


def try_case(model: Model, seed: int, index: int, drawn: Drawn, logs: Path) -> dict[str, Any]:
    """Run one case on a serving model, with its logs in a folder; returns its row."""
    replicas = int(model.spec["replicas"])
    before, seconds = model.records.state(model.name).candidate, usual(model, drawn.stage)
    model.commit(shards=2, ttft_ms=30, seed=1000 + index)
    started = time.monotonic()
    with Probe(model) as probe:
        run = Run(model, log_of(logs, seed, index, 0), None, "--json")
        acted, changed = act(model, run, drawn, seconds, before)
        attempts = [roll_out(run)]
        for number in range(1, MOST_RERUNS + 1):
            last = attempts[-1]
            if last.code == Exit.DONE and is_sound(calm(model, probe, CALM_SECONDS)):
                break
            for place, words in enumerate(repairs(last.ending, replicas)):
                attempts.append(operate(model, words, log_of(logs, seed, index, number, "repair", place)))
            options = rerun_options(last.ending)
            attempts.append(roll_out(Run(model, log_of(logs, seed, index, number), None, "--json", *options), *options))
        left = calm(model, probe, CALM_SECONDS)
    own, actors = down_by(probe.gaps, acted, harms=replicas < drawn.act.spares_from)
    return {
        "seed": seed,
        "case": index,
        "act": drawn.act.name,
        "moment": f"{drawn.stage} + {drawn.fraction * seconds:.1f} s",
        "replicas": replicas,
        "changed": list(changed),
        "attempts": [{"command": a.command, "code": a.code, "ending": a.ending} for a in attempts],
        "passed": attempts[-1].code == Exit.DONE,
        "stable_down": own,
        "stable_down_by_actor": actors,
        "looks": probe.looks,
        "canaries": list(left.canaries),
        "untrue": untrue(left),
        "names_actor": names_actor(attempts, changed, MANAGER),
        "faults": faults(left, attempts, own),
        "seconds": round(time.monotonic() - started, 1),
        "load": round(os.getloadavg()[0], 1),
    }
