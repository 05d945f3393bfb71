"""`python -m bench.storm --rollouts N --seed S`: N rollouts, each with an act of somebody else at a random moment.

Each case draws its act and moment from the seed and its number alone: `--seed S --only K` repeats case K. The bench
fails if stable does not answer for another reason than the act itself, if a canary stays, if a record says what is not
so, or if a run ends with a stack trace. Results go to build/storm.json, the logs of all runs to build/storm/.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from llmops_sandbox.cluster.binaries import find_or_build_kubectl
from llmops_sandbox.sandbox import Sandbox
from rich.console import Console
from rich.table import Table

from bench.storm.acts import MANAGER, MOMENTS, Changed, Drawn, Scene, draw, neighbour
from bench.storm.judge import (
    FAULTS,
    KILLED,
    MOST_RERUNS,
    Attempt,
    Gap,
    Left,
    down_by,
    ending_of,
    faults,
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
from tests.support.dying import Run, few_cases
from tests.support.planes import sandbox_at
from tests.support.world import Model, new_model

RESULTS, LOGS = Path("build/storm.json"), Path("build/storm")
REPLICAS = (1, 2)
"""Of the models, which take turns."""
USUAL_SECONDS = 2.0
"""How long a stage takes of which no record says so."""
LOOK_SECONDS = 0.1
RUN_SECONDS = 600.0
CALM_SECONDS = 90.0
"""How long the objects may take to come to rest after the last run: pods end their requests first."""
console = Console(stderr=True, highlight=False, soft_wrap=True)


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


@dataclass
class World:
    """A sandbox with a serving model for each number of replicas."""

    sandbox: Sandbox
    folder: Path
    models: dict[int, tuple[ExitStack, Model]] = field(default_factory=dict[int, tuple[ExitStack, Model]])

    def model(self, replicas: int) -> Model:
        """A serving model of so many replicas; a new one if the last case has left a mark on the one before."""
        if (kept := self.models.get(replicas)) is not None:
            if _unmarked(kept[1]):
                return kept[1]
            kept[0].close()
        stack = ExitStack()
        model = stack.enter_context(new_model(self.sandbox, Path(tempfile.mkdtemp(dir=self.folder)) / "model"))
        self.models[replicas] = stack, model
        rollout = {"stabilization_seconds": 2, "startup_seconds": 30}
        few_cases(model, replicas=replicas, rollout={"unroute_seconds": 1, "drain_seconds": 10, **rollout})
        entry = json.loads((model.folder / "models" / f"{model.name}.yaml").read_text())
        other = neighbour(model)
        (model.folder / "models" / f"{other}.yaml").write_text(json.dumps(entry | {"name": other}))
        model.commit(shards=2, ttft_ms=30)
        run = Run(model, _log("first", model.name))
        if run.wait(RUN_SECONDS) != Exit.DONE:
            raise SystemExit(f"the first release of {model.name} does not pass:\n{run.text}")
        return model

    def close(self) -> None:
        """Remove the models."""
        for stack, _ in self.models.values():
            stack.close()


def _unmarked(model: Model) -> bool:
    """Whether a model is as a passed rollout leaves it."""
    main, stable = model.deployment(), model.records.state(model.name).stable
    if main is None or stable is None or model.serving() != stable or main["spec"].get("paused"):
        return False
    image = main["spec"]["template"]["spec"]["containers"][0]["image"]
    pinned = model.records.release(model.name, stable).engine.digest
    whole = all(model.cluster.get(*key) for key in (("ConfigMap", names.state_name(model.name)),
                                                    ("PodDisruptionBudget", model.name)))  # fmt: skip
    return whole and main["spec"]["replicas"] == model.spec["replicas"] and image.endswith(pinned)


def _log(*parts: object) -> Path:
    LOGS.mkdir(parents=True, exist_ok=True)
    path = LOGS / ("-".join(map(str, parts)) + ".log")
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


def calm(model: Model, probe: Probe) -> Left:
    """What the cluster has of the model once it has come to rest, or after some time."""
    until(lambda: model.canary_gone() and model.serving() and (left := look(model, probe)).answers
          and not left.canaries and not untrue(left), CALM_SECONDS)  # fmt: skip
    return look(model, probe)


def operate(model: Model, words: Sequence[str], log: Path) -> Attempt:
    """Run a command that a remedy names, as an operator does."""
    program = {
        "llmops": [sys.executable, "-m", "llmops.cli", "--settings", str(model.settings_file)],
        "kubectl": [str(find_or_build_kubectl()), "--kubeconfig", str(model.sandbox.kubeconfig)],
    }[words[0]]
    done = subprocess.run([*program, *words[1:]], capture_output=True, text=True, check=False, timeout=RUN_SECONDS)
    log.write_text(done.stdout + done.stderr)
    return Attempt(" ".join(words), done.returncode, ending_of(log.read_text()), log.read_text())


def roll_out(run: Run, *options: str) -> Attempt:
    """Wait for the end of a rollout."""
    code = run.wait(RUN_SECONDS)
    return Attempt(" ".join(("llmops rollout", *options)), code, ending_of(run.text), run.text)


def try_case(world: World, seed: int, index: int) -> dict[str, Any]:
    """Run one case; returns its row."""
    drawn, replicas = draw(seed, index), REPLICAS[index % len(REPLICAS)]
    model = world.model(replicas)
    before, seconds = model.records.state(model.name).candidate, usual(model, drawn.stage)
    model.commit(shards=2, ttft_ms=30, seed=1000 + index)
    started = time.monotonic()
    with Probe(model) as probe:
        run = Run(model, _log(seed, index, 0), None, "--json")
        acted, changed = act(model, run, drawn, seconds, before)
        attempts = [roll_out(run)]
        left = calm(model, probe)
        for number in range(1, MOST_RERUNS + 1):
            last = attempts[-1]
            if last.code == Exit.DONE and left.answers and not untrue(left):
                break
            for place, words in enumerate(repairs(last.ending, replicas)):
                attempts.append(operate(model, words, _log(seed, index, number, "repair", place)))
            options = rerun_options(last.ending)
            attempts.append(roll_out(Run(model, _log(seed, index, number), None, "--json", *options), *options))
            left = calm(model, probe)
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


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows for people."""
    shown = Table(
        "case", "act", "moment", "verdicts", "down s", "by actor s", "names it", "faults", header_style="bold"
    )
    for row in rows:
        codes = [KILLED_TEXT if a["code"] == KILLED else Exit(a["code"]).name.lower()
                 for a in row["attempts"] if "rollout" in a["command"]]  # fmt: skip
        named = {True: "yes", False: "no", None: ""}[row["names_actor"]]
        name = row["act"] if row["changed"] else f"({row['act']}: nothing to change)"
        problems = "; ".join(row["faults"] + ([] if row["passed"] else ["stuck"]))
        down = (row["stable_down"], row["stable_down_by_actor"])
        cells = (row["case"], name, row["moment"], ", ".join(codes), *down, named, problems)
        shown.add_row(*map(str, cells))
    return shown


KILLED_TEXT = "killed"


@contextmanager
def started(folder: Path | None) -> Generator[World]:
    """A new sandbox for the storm."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary, sandbox_at(Path(temporary)) as sandbox:
        world = World(sandbox, Path(temporary))
        try:
            yield world
        finally:
            world.close()


def main() -> int:
    """Run the cases; 1 if one has a fault."""
    options = argparse.ArgumentParser(prog="bench.storm", description=__doc__)
    options.add_argument("--rollouts", type=int, default=100)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--only", help="numbers of cases, such as 3,17; the results of the others stay")
    options.add_argument("--resume", action="store_true", help="only cases that have no result yet")
    options.add_argument("--output", type=Path, default=RESULTS)
    options.add_argument("--dir", type=Path, help="where the sandbox keeps its files meanwhile")
    given = options.parse_args()
    indices = [int(number) for number in given.only.split(",")] if given.only else list(range(given.rollouts))
    keeps = (given.only or given.resume) and given.output.exists()
    rows: list[dict[str, Any]] = json.loads(given.output.read_text()) if keeps else []
    if given.resume:
        indices = [index for index in indices if (given.seed, index) not in {(r["seed"], r["case"]) for r in rows}]
    if not keeps:
        shutil.rmtree(LOGS, ignore_errors=True)
    given.output.parent.mkdir(parents=True, exist_ok=True)
    with started(given.dir) as world:
        for index in indices:
            row = try_case(world, given.seed, index)
            rows = [other for other in rows if (other["seed"], other["case"]) != (given.seed, index)] + [row]
            given.output.write_text(json.dumps(rows, indent=1) + "\n")
            console.print(f"{index} {row['act']}, {row['moment']}: {row['seconds']} s {row['faults']}", markup=False)
    chosen = [row for row in rows if row["seed"] == given.seed]
    Console(width=200).print(table(chosen))
    counts = {kind: sum(any(fault.startswith(kind) for fault in row["faults"]) for row in chosen) for kind in FAULTS}
    Console().print(", ".join(f"{kind}: {count}" for kind, count in counts.items()))
    return int(any(counts.values()))


if __name__ == "__main__":
    sys.exit(main())
