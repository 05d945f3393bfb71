"""The day: events in the world, and the reaction of llmops that each step waits for."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llmops_sandbox.cluster.binaries import find_or_build_kubectl
from llmops_sandbox.sandbox import ENGINE_PROGRAM, Sandbox
from llmops_sandbox.seeding import ENGINE_IMAGE, ENGINE_TAG, GOOD, commit_simulated
from llmops_sandbox.timeline import Timeline

from demos.auto.receiver import Receiver
from llmops.clients.kubernetes.client import Cluster
from llmops.config import names
from llmops.errors import LlmopsError
from llmops.releases.records import Record, Records
from llmops.releases.release import Release
from llmops.releases.validations import Validations

NEW_TAG, BAD_TAG = "v0.32.1", "v0.32.2"
WAIT_SECONDS = 300.0


@dataclass(frozen=True)
class Day:
    """The sandbox of the day, and what observes it."""

    sandbox: Sandbox
    cluster: Cluster
    timeline: Timeline
    receiver: Receiver
    model: str
    repo: str

    @property
    def records(self) -> Records:
        """The records of the pipeline."""
        return Records(self.cluster)

    def stable(self) -> Release | None:
        """The stable release, if its Deployment runs it and is ready."""
        stable = self.records.state(self.model).stable
        main = self.cluster.get("Deployment", self.model)
        if stable is None or main is None or main["metadata"]["labels"].get(names.RELEASE_LABEL) != stable:
            return None
        ready = (main.get("status") or {}).get("readyReplicas", 0) >= main["spec"]["replicas"]
        return self.records.release(self.model, stable) if ready else None

    def wait_for(self, what: str, there: Callable[[], str | None]) -> None:
        """Wait until `there` returns a line, and put that onto the timeline.

        Raises:
            LlmopsError: `there` returned None until the deadline.
        """
        deadline = time.monotonic() + WAIT_SECONDS
        while (line := there()) is None:
            if time.monotonic() > deadline:
                raise LlmopsError(f"{what}: not within {WAIT_SECONDS:.0f} s", code="TimedOut")
            time.sleep(0.5)
        self.timeline.add("seen", line)

    def promoted(self, wanted: Callable[[Release], bool]) -> Callable[[], str | None]:
        """A condition: a wanted release is stable, ready and Passed."""

        def look() -> str | None:
            release = self.stable()
            if release is None or not wanted(release):
                return None
            record = self.records.record(self.model, release.id)
            return f"{release.id} serves: {record.reason}" if record and record.verdict == "Passed" else None

        return look


@dataclass(frozen=True)
class Step:
    """One event of the day, and the reaction to wait for."""

    name: str
    run: Callable[[Day], None]


def first_release(day: Day) -> None:
    """A model is new in the catalog: llmops rolls it out."""
    day.sandbox.images.add(ENGINE_IMAGE, ENGINE_TAG, ENGINE_PROGRAM)
    commit_simulated(day.sandbox, day.repo, quality=GOOD)
    day.timeline.add("world", f"{day.model} is in the catalog; hub and registry have what it names")
    day.wait_for("first release", day.promoted(lambda release: release.engine.tag == ENGINE_TAG))


def new_tag(day: Day) -> None:
    """A good version of the engine appears: llmops promotes it."""
    day.sandbox.images.add(ENGINE_IMAGE, NEW_TAG, ENGINE_PROGRAM, {"BUILD": "1"})
    day.timeline.add("world", f"{ENGINE_IMAGE}:{NEW_TAG} is pushed, and is good")
    day.wait_for("the new tag", day.promoted(lambda release: release.engine.tag == NEW_TAG))


def bad_tag(day: Day) -> None:
    """A bad version of the engine appears: llmops rejects it, and stable goes on serving."""
    faults = json.dumps({"error_rate": 0.3})
    day.sandbox.images.add(ENGINE_IMAGE, BAD_TAG, ENGINE_PROGRAM, {"SIM_FAULTS": faults})
    day.timeline.add("world", f"{ENGINE_IMAGE}:{BAD_TAG} is pushed; it fails every third request")
    before = day.stable()

    def rejected() -> str | None:
        record = _last(day, lambda record: f":{BAD_TAG}@" in record.image)
        return f"{BAD_TAG} rejected: {record.reason}" if record and record.verdict == "Failed" else None

    day.wait_for("rejection of the bad tag", rejected)
    if day.stable() != before:
        raise LlmopsError(
            f"{day.model}: stable is another release after the bad tag",
            code="StableChanged",
            about=f"model {day.model}",
        )
    day.wait_for("alert of the rejection", lambda: _alert(day, "rejected", BAD_TAG))


def pushed_again(day: Day) -> None:
    """The serving tag is pushed again with other content: llmops notices, tries and promotes it."""
    digest = day.sandbox.images.add(ENGINE_IMAGE, NEW_TAG, ENGINE_PROGRAM, {"BUILD": "2"}).digest
    day.timeline.add("world", f"{ENGINE_IMAGE}:{NEW_TAG} is pushed again, as {digest[7:19]}")
    day.wait_for("the tag that was pushed again", day.promoted(lambda release: release.engine.digest == digest))


def new_revision(day: Day) -> None:
    """The model gets a new commit: llmops promotes it."""
    commit = commit_simulated(day.sandbox, day.repo, quality=GOOD, version=1)
    day.timeline.add("world", f"{day.repo} has a new commit on main: {commit[:12]}")
    day.wait_for("the new revision", day.promoted(lambda release: release.weights.commit == commit))


def bit_rot(day: Day) -> None:
    """A bit of the weights flips on the volume: llmops finds and repairs it."""
    release = day.stable()
    assert release is not None
    pin = max(release.weights.files, key=lambda file: file.size)
    path = _volume(day) / names.weights_path(day.model, release.weights.key) / pin.path
    content = path.read_bytes()
    _flip(path, len(content) // 2)
    day.timeline.add("world", f"a bit of {pin.path} flips on the volume")

    def repaired() -> str | None:
        finding = _finding(day, "weights")
        return f"{finding}; the file has its bytes again" if finding and path.read_bytes() == content else None

    day.wait_for("repair of the weights", repaired)
    day.wait_for("alert of the rotten bytes", lambda: _alert(day, "validation_finding", pin.path))


def drift(day: Day) -> None:
    """Somebody edits the Deployment: llmops reports the edit and its author, and leaves the decision to people."""
    kubectl = [str(find_or_build_kubectl()), "--kubeconfig", str(day.sandbox.kubeconfig)]
    edit = [*kubectl, "--namespace", day.cluster.namespace, "set", "env", f"deployment/{day.model}"]
    subprocess.run([*edit, "VLLM_LOGGING_LEVEL=DEBUG"], check=True, capture_output=True, timeout=60)
    day.timeline.add("world", f"somebody adds VLLM_LOGGING_LEVEL=DEBUG to Deployment {day.model}")
    day.wait_for("the drift", lambda: _finding(day, "drift", "VLLM_LOGGING_LEVEL"))
    day.wait_for("alert of the drift", lambda: _alert(day, "validation_finding", "VLLM_LOGGING_LEVEL"))


STEPS = tuple(
    Step(run.__name__.replace("_", " "), run)
    for run in (first_release, new_tag, bad_tag, pushed_again, new_revision, bit_rot, drift)
)


def _last(day: Day, wanted: Callable[[Record], bool]) -> Record | None:
    return next((record for record in day.records.history(day.model) if wanted(record)), None)


def _finding(day: Day, check: str, *words: str) -> str | None:
    """The findings of a check in the last validation, if they contain all words."""
    last = Validations(day.cluster).last(day.model)
    for result in last.checks if last else ():
        line = "; ".join((*(finding.message for finding in result.findings), result.repaired))
        if result.check == check and result.findings and all(word in line for word in words):
            return line
    return None


def _alert(day: Day, kind: str, *words: str) -> str | None:
    for alert in list(day.receiver.alerts.values()):
        if alert["kind"] == kind and all(word in alert["line"] for word in words):
            return f"alert received: {alert['line']}"
    return None


def _volume(day: Day) -> Path:
    settings = day.cluster.settings
    return day.sandbox.folder / "volumes" / f"{settings.namespace}-{settings.claim}"


def _flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))
