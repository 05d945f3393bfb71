"""`python -m bench.storm --rollouts N --seed S`: N rollouts, each with an act of somebody else at a random moment.

Each case draws its act and moment from the seed and its number alone: `--seed S --only K` repeats case K. The bench
fails if stable does not answer for another reason than the act itself, if a canary stays, if a record says what is not
so, if a run ends with a stack trace, or if no rerun ends well. Results go to build/storm.json, the logs of all runs to
build/storm/.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmops_sandbox.sandbox import Sandbox
from rich.console import Console
from rich.table import Table

from bench.storm.acts import ACTS, draw, neighbour
from bench.storm.case import RUN_SECONDS, log_of, try_case
from bench.storm.judge import FAULTS, KILLED
from llmops.cli.exits import Exit
from llmops.config import names
from tests.support.dying import Run, few_cases
from tests.support.planes import sandbox_at
from tests.support.world import Model, new_model

RESULTS = Path("build/storm.json")
"""The logs go to the folder of this name without its suffix."""
REPLICAS = (1, 2)
"""Of the models, which take turns."""
console = Console(stderr=True, highlight=False, soft_wrap=True)


@dataclass
class World:
    """A sandbox with a serving model for each number of replicas.

    Args:
        sandbox: The sandbox.
        folder: Where the models keep their files.
        logs: Where runs write their logs.
        models: The models by number of replicas, each with what removes it.
    """

    sandbox: Sandbox
    folder: Path
    logs: Path
    models: dict[int, tuple[ExitStack, Model]] = field(default_factory=dict[int, tuple[ExitStack, Model]])

    def drop(self, replicas: int) -> None:
        """Remove a model: the next case gets a new one."""
        if (kept := self.models.pop(replicas, None)) is not None:
            kept[0].close()

    def model(self, replicas: int) -> Model:
        """A serving model of so many replicas; a new one if the last case has left a mark on the one before."""
        if (kept := self.models.get(replicas)) is not None and _unmarked(kept[1]):
            return kept[1]
        self.drop(replicas)
        stack = ExitStack()
        model = stack.enter_context(new_model(self.sandbox, Path(tempfile.mkdtemp(dir=self.folder)) / "model"))
        self.models[replicas] = stack, model
        rollout = {"stabilization_seconds": 2, "startup_seconds": 30}
        few_cases(model, replicas=replicas, rollout={"unroute_seconds": 1, "drain_seconds": 10, **rollout})
        entry = json.loads((model.folder / "models" / f"{model.name}.yaml").read_text())
        other = neighbour(model)
        (model.folder / "models" / f"{other}.yaml").write_text(json.dumps(entry | {"name": other}))
        # Two releases, so that there is one to go back to.
        for seed in (1, 2):
            model.commit(shards=2, ttft_ms=30, seed=seed)
            run = Run(model, log_of(self.logs, "first", model.name, seed))
            if run.wait(RUN_SECONDS) != Exit.DONE:
                raise SystemExit(f"release {seed} of {model.name} does not pass:\n{run.text}")
        return model

    def close(self) -> None:
        """Remove the models."""
        for replicas in list(self.models):
            self.drop(replicas)


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


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows for people."""
    shown = Table(
        "case", "act", "moment", "verdicts", "down s", "by actor s", "names it", "faults", header_style="bold"
    )
    for row in rows:
        codes = ["killed" if a["code"] == KILLED else Exit(a["code"]).name.lower()
                 for a in row["attempts"] if "rollout" in a["command"]]  # fmt: skip
        named = {True: "yes", False: "no", None: ""}[row["names_actor"]]
        name = row["act"] if row["changed"] else f"({row['act']}: nothing to change)"
        problems = "; ".join(row["faults"] + ([] if row["passed"] else ["stuck"]))
        down = (row["stable_down"], row["stable_down_by_actor"])
        cells = (row["case"], name, row["moment"], ", ".join(codes), *down, named, problems)
        shown.add_row(*map(str, cells))
    return shown


@contextmanager
def started(folder: Path | None, logs: Path) -> Generator[World]:
    """A new sandbox for the storm."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary, sandbox_at(Path(temporary)) as sandbox:
        world = World(sandbox, Path(temporary), logs)
        try:
            yield world
        finally:
            world.close()


def main() -> int:
    """Run the cases; 1 if one has a fault."""
    options = argparse.ArgumentParser(prog="bench.storm", description=__doc__)
    options.add_argument("--rollouts", type=int, default=100)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--act", choices=[act.name for act in ACTS], metavar="ACT", help="the only act of all cases")
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
    acts = [act for act in ACTS if given.act in (None, act.name)]
    logs = given.output.with_suffix("")
    if not keeps:
        shutil.rmtree(logs, ignore_errors=True)
    given.output.parent.mkdir(parents=True, exist_ok=True)
    # A background job of a shell ignores SIGINT, and SIGTERM would leave the sandbox behind.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with started(given.dir, logs) as world:
        for index in indices:
            replicas = REPLICAS[index % len(REPLICAS)]
            row = try_case(world.model(replicas), given.seed, index, draw(given.seed, index, acts), logs)
            if row["faults"] or not row["passed"]:
                world.drop(replicas)
            rows = [other for other in rows if (other["seed"], other["case"]) != (given.seed, index)] + [row]
            given.output.write_text(json.dumps(rows, indent=1) + "\n")
            console.print(f"{index} {row['act']}, {row['moment']}: {row['seconds']} s {row['faults']}", markup=False)
    chosen = [row for row in rows if row["seed"] == given.seed]
    Console(width=200).print(table(chosen))
    counts = {kind: sum(any(fault.startswith(kind) for fault in row["faults"]) for row in chosen) for kind in FAULTS}
    counts["stuck"] = sum(not row["passed"] for row in chosen)
    Console().print(", ".join(f"{kind}: {count}" for kind, count in counts.items()))
    return int(any(counts.values()))


if __name__ == "__main__":
    sys.exit(main())
