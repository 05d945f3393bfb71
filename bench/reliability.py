"""Breaks the installed system in the middle of each stage: `make reliability` writes docs/concepts/reliability.md.

Each fault happens during a rollout that a sensor requested, while users ask the model. The result has to be the same
each time: the new release serves with a verdict, no canary is left, and no request of users failed.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import secrets
import shutil
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from llmops_sandbox.cluster.binaries import find_or_build, find_or_build_kubectl, line_progress
from llmops_sandbox.cluster.controlplane import ControlPlane
from llmops_sandbox.installing import NAMESPACE
from llmops_sandbox.sandbox import ENGINE_PROGRAM, Sandbox, default_folder
from llmops_sandbox.seeding import ENGINE_IMAGE, ENGINE_TAG, GOOD, commit_simulated
from llmops_sandbox.ui import Ui
from rich.console import Console

from demos.auto.receiver import Receiver
from demos.auto.system import start
from llmops.clients.kubernetes.client import Cluster
from llmops.config import names
from llmops.config.settings import load_settings
from llmops.errors import LlmopsError
from llmops.evaluation.endpoint import Endpoint
from llmops.evaluation.proving import probe
from llmops.releases.records import Records
from llmops.releases.stages import STAGES

MODEL, BAD_TAG = "smollm2-135m", "v0.32.9"
PAGE, FOUND = Path("docs/concepts/reliability.md"), Path("build/reliability.json")
AWAY_SECONDS = 20.0
CONVERGE_SECONDS = 420.0
console = Console(stderr=True, highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class World:
    """The installed system on a sandbox, with its parts to break."""

    sandbox: Sandbox
    plane: ControlPlane
    cluster: Cluster
    ui: Ui
    receiver: Receiver
    repo: str

    @property
    def records(self) -> Records:
        """The records of the pipeline."""
        return Records(self.cluster)

    def new_commit(self, version: int) -> str:
        """Commit a new revision of the model, which the sensor will see."""
        return commit_simulated(self.sandbox, self.repo, quality=GOOD, version=version)

    def delete_pods(self, selector: dict[str, str], *, grace: int | None = None) -> int:
        """Delete pods of the installation; returns their number."""
        installed = self.cluster.list("Pod", labels=selector, namespace=NAMESPACE)
        kubectl = [str(find_or_build_kubectl()), "--kubeconfig", str(self.sandbox.kubeconfig)]
        for pod in installed:
            command = [*kubectl, "--namespace", NAMESPACE, "delete", "pod", pod["metadata"]["name"], "--wait=false"]
            _run([*command, *(["--grace-period=0", "--force"] if grace == 0 else [])])
        return len(installed)


@dataclass(frozen=True)
class Fault:
    """A fault of the system.

    Args:
        name: Name in the table.
        stage: The stage of the rollout to break; empty breaks before the sensor sees the new commit.
        make: Causes the fault, and ends it if nothing else would.
    """

    name: str
    stage: str
    make: Callable[[World], None]


def _away(stop: Callable[[World], None], begin: Callable[[World], None]) -> Callable[[World], None]:
    def make(world: World) -> None:
        stop(world)
        time.sleep(AWAY_SECONDS)
        begin(world)

    return make


def _run(command: Sequence[str]) -> None:
    import subprocess

    subprocess.run(command, check=True, capture_output=True, timeout=60)


def _stop_stand_in(name: str) -> Callable[[World], None]:
    return lambda world: getattr(world.sandbox, name).stop()


def _start(world: World) -> None:
    world.sandbox.up()


def _api_away(world: World) -> None:
    world.plane.apiserver.stop()
    time.sleep(AWAY_SECONDS)
    world.plane.start_apiserver()
    world.plane.wait_ready(60)


def _kill_run(world: World) -> None:
    if not world.delete_pods({"app.kubernetes.io/component": "run_worker"}, grace=0):
        raise LlmopsError("there is no run pod to kill", code="NoRunPod")


def _kill_daemon(world: World) -> None:
    world.delete_pods({"app.kubernetes.io/component": "daemon"}, grace=0)


def _lose_database(world: World) -> None:
    """Delete the content of the database's volume, as if the disk died."""
    volume = next((world.sandbox.folder / "volumes").glob(f"{NAMESPACE}-*"))
    for entry in volume.iterdir():
        shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)
    world.delete_pods({"app.kubernetes.io/component": "postgresql"}, grace=0)


FAULTS: tuple[Fault, ...] = (
    Fault("registry away for 20 s", "", _away(_stop_stand_in("registry"), _start)),
    Fault("hub away for 20 s", "weights", _away(_stop_stand_in("hub"), _start)),
    *(Fault("API server away for 20 s", stage, _api_away) for stage in STAGES),
    *(Fault("run pod killed", stage, _kill_run) for stage in ("weights", "canary", "evaluation", "promotion")),
    Fault("Dagster's daemon killed", "evaluation", _kill_daemon),
    Fault("Dagster's database lost", "evaluation", _lose_database),
)


@dataclass
class Users:
    """Counts of users' requests."""

    asked: int = 0
    failed: int = 0


@contextmanager
def users(world: World) -> Generator[Users]:
    """Ask the model's Service for one completion after the other, in a thread."""
    counted, stop = Users(), threading.Event()
    endpoint = Endpoint(base_url=world.cluster.endpoint(MODEL, names.ENGINE_PORT), model=MODEL, api_key=None)

    def ask() -> None:
        while not stop.is_set():
            counted.asked += 1
            try:
                probe(endpoint, timeout=30)
            except LlmopsError:
                counted.failed += 1
            stop.wait(0.1)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield counted
    finally:
        stop.set()
        thread.join()


def reached(world: World, commit: str, stage: str) -> bool:
    """Whether the rollout of this commit is in the middle of a stage, by the results of the stages before it."""
    candidate = world.records.state(MODEL).candidate
    if candidate is None:
        return False
    release = world.records.release(MODEL, candidate)
    if release.weights.commit != commit:
        return False
    config_map = world.cluster.get("ConfigMap", names.record_name(MODEL, candidate)) or {}
    data = config_map.get("data") or {}
    before = STAGES[: STAGES.index(stage)]
    return all(f"{done}.json" in data for done in before if done != "release") and f"{stage}.json" not in data


def wait(what: str, there: Callable[[], bool], seconds: float) -> float:
    """Wait until `there` is true; returns the seconds.

    Raises:
        LlmopsError: It was not true in time.
    """
    started = time.monotonic()
    while True:
        with contextlib.suppress(LlmopsError):
            if there():
                return time.monotonic() - started
        if time.monotonic() - started > seconds:
            raise LlmopsError(f"{what}: not within {seconds:.0f} s", code="TimedOut")
        time.sleep(0.05)


def serves(world: World, commit: str) -> bool:
    """Whether the commit's release is stable with a verdict and ready, and its canary is gone."""
    state = world.records.state(MODEL)
    if state.stable is None or world.records.release(MODEL, state.stable).weights.commit != commit:
        return False
    record = world.records.record(MODEL, state.stable)
    main = world.cluster.get("Deployment", MODEL)
    ready = main is not None and (main.get("status") or {}).get("readyReplicas", 0) >= main["spec"]["replicas"]
    canary = world.cluster.get("Deployment", names.engine_name(MODEL, "canary"))
    return record is not None and record.verdict == "Passed" and ready and canary is None


def try_fault(world: World, fault: Fault, version: int) -> dict[str, Any]:
    """Cause one fault; returns its row of the table."""
    row: dict[str, Any] = {"fault": fault.name, "stage": fault.stage or "before the rollout"}
    console.print(f"[bold]{fault.name}[/], {row['stage']}")
    with users(world) as counted:
        commit = world.new_commit(version) if fault.stage else ""
        if fault.stage:
            wait(f"stage {fault.stage}", lambda: reached(world, commit, fault.stage), CONVERGE_SECONDS)
        else:
            commit = world.new_commit(version)
        fault.make(world)
        try:
            row["seconds"] = round(wait("convergence", lambda: serves(world, commit), CONVERGE_SECONDS), 1)
        except LlmopsError as error:
            row["problem"] = str(error)
    row |= {"asked": counted.asked, "failed": counted.failed}
    console.print(f"  {row}")
    return row


def new_rejection(world: World, before: set[str]) -> bool:
    """Whether the receiver has a new alert of a rejection."""
    return any(alert["kind"] == "rejected" for key, alert in world.receiver.alerts.items() if key not in before)


def try_webhook(world: World) -> dict[str, Any]:
    """Reject a release while the receiver of alerts is away: the alert has to arrive when it is back."""
    row: dict[str, Any] = {"fault": "alerts' webhook away", "stage": "a rejection"}
    console.print(f"[bold]{row['fault']}[/], {row['stage']}")
    with users(world) as counted:
        world.receiver.away = True
        before = set(world.receiver.alerts)
        faults = json.dumps({"error_rate": 0.3})
        world.sandbox.images.add(ENGINE_IMAGE, BAD_TAG, ENGINE_PROGRAM, {"SIM_FAULTS": faults})

        def rejected() -> bool:
            history = world.records.history(MODEL)
            return any(f":{BAD_TAG}@" in record.image and record.verdict == "Failed" for record in history)

        try:
            wait("the rejection", rejected, CONVERGE_SECONDS)
            time.sleep(AWAY_SECONDS)
            world.receiver.away = False
            row["seconds"] = round(wait("the alert", lambda: new_rejection(world, before), CONVERGE_SECONDS), 1)
        except LlmopsError as error:
            row["problem"] = str(error)
        finally:
            world.receiver.away = False
    console.print(f"  {row}")
    return row | {"asked": counted.asked, "failed": counted.failed}


def page(rows: Sequence[dict[str, Any]]) -> str:
    """The table as Markdown."""
    lines = [
        "# What breaks, and how llmops recovers",
        "",
        "`make reliability` writes this page. Read it to see whether llmops recovers from a failure that you expect",
        "in your cluster. The command installs llmops on the sandbox: Dagster's daemon, webserver, code location",
        "and runs are pods, beside PostgreSQL. For each row a new commit of the model appears, and a sensor asks",
        "for the rollout. Then something breaks in the middle of a stage, while users ask the model. Each time the",
        "new release has to serve in the end, with a verdict and without a canary, and nobody touches anything.",
        "",
        "| what breaks | in the middle of | seconds until the release serves | users' requests | failed | load |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        end = row.get("problem") or row["seconds"]
        lines.append(f"| {row['fault']} | {row['stage']} | {end} | {row['asked']} | {row['failed']} | {row['load']} |")
    lines += [
        "",
        "The seconds count from the end of the fault, on 2 cores at the load average in the last column. In the row",
        "of the webhook the release is a bad one, and its seconds count until the alert arrives.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Cause every fault, and write the page; exits 0 if all converged and no request of users failed."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument(
        "--only", type=int, nargs="*", help="numbers of the faults, from 0; the others keep their rows"
    )
    arguments.add_argument(
        "--dir", type=Path, default=default_folder("reliability"), help="folder of the sandbox, which is created anew"
    )
    options = arguments.parse_args()
    chosen = [fault for index, fault in enumerate(FAULTS) if options.only is None or index in options.only]
    rows: list[dict[str, Any]] = json.loads(FOUND.read_text()) if options.only is not None and FOUND.exists() else []
    with installed(options.dir) as world:
        trials = [partial(try_fault, world, fault, version) for version, fault in enumerate(chosen, start=2)]
        if options.only is None or len(FAULTS) in options.only:
            trials.append(partial(try_webhook, world))
        for trial in trials:
            row = trial() | {"load": round(os.getloadavg()[0], 1)}
            others = [other for other in rows if (other["fault"], other["stage"]) != (row["fault"], row["stage"])]
            rows = [*others, row]
            FOUND.parent.mkdir(exist_ok=True)
            FOUND.write_text(json.dumps(rows, indent=2) + "\n")
    text = page(rows)
    PAGE.write_text(text)
    sys.stdout.write(text)
    sys.exit(0 if all("problem" not in row and not row["failed"] for row in rows) else 1)


@contextmanager
def installed(folder: Path) -> Generator[World]:
    """Install llmops on a new sandbox, with a serving model."""
    project = folder / "project"
    Sandbox(folder, project=project).down(erase=True)
    shutil.copytree("evals", project / "evals")
    (project / "models").mkdir()
    repo = _declare(project / "models")
    sandbox = Sandbox(folder, project=project)
    secret = f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"
    with Receiver(secret, lambda alert: console.print(f"  alert: {alert.get('line')}", markup=False)) as receiver:
        try:
            ui = start(sandbox, line_progress(console.print), receiver.url, secret)
            sandbox.images.add(ENGINE_IMAGE, ENGINE_TAG, ENGINE_PROGRAM)
            commit = commit_simulated(sandbox, repo, quality=GOOD, version=1)
            cluster = Cluster.connect(load_settings(sandbox.settings_file))
            plane = ControlPlane(sandbox.folder, find_or_build())
            world = World(sandbox, plane, cluster, ui, receiver, repo)
            wait("first release", lambda: serves(world, commit), CONVERGE_SECONDS)
            yield world
        finally:
            sandbox.down()


def _declare(models: Path) -> str:
    from ruamel.yaml import YAML

    yaml = YAML()
    spec: dict[str, Any] = yaml.load(Path("models") / f"{MODEL}.yaml")
    spec["automation"] = {"revalidate": None}
    (models / f"{MODEL}.yaml").write_text(json.dumps(spec))
    return str(spec["weights"]["repo"])


if __name__ == "__main__":
    main()
