"""The next rollout goes on where SIGKILL ended the last one, at any point.

Slow: several models at once go through rollouts whose runs are killed at one point after the other. Most of the time
passes until the lease of a dead run runs out.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from llmops_sandbox.sandbox import Sandbox

from llmops.cli.exits import Exit
from llmops.config import names
from llmops.config.settings.lease import LeaseSettings
from llmops.config.steps import Step
from tests.support.dying import (
    Point,
    Run,
    Seen,
    Users,
    Write,
    every_object,
    few_cases,
    kill_workers,
    log_names,
    maps,
    workers_of,
)
from tests.support.world import LEASE, Model, new_model, put_faults

pytestmark = pytest.mark.timeout(600)

SLOW_BYTES = 1 << 20
LARGE = 256 << 20


def downloading(model: Model) -> bool:
    """Part of the largest file has arrived."""
    parts = list((model.volume / "staging" / model.name).glob("*/.cache/**/*"))
    return any(part.is_file() and part.stat().st_size > SLOW_BYTES // 4 for part in parts)


def hashing(model: Model) -> bool:
    """The checksum's worker reads the largest file. The test slows it down to meet it there."""
    walking = [pid for pid in workers_of(model) if b"\0checksum\0" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    for pid in walking:
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.005)
        os.kill(pid, signal.SIGSTOP)
    return maps(walking, "model.safetensors")


def record(key: str) -> Write:
    """The write that sets this key of the record."""
    return Write("ConfigMap", data=key)


POINTS = {
    point.name: point
    for point in (
        Point("nothing done yet", before=record("release.json")),
        Point("pins kept", step=Step.RELEASE_PINNED),
        Point("download Job created", step=Step.JOB_CREATED, about=("download",)),
        Point("downloading", world=downloading, also=kill_workers),
        Point("downloaded, not noted", before=record("weights.json")),
        Point("checksum Job created", step=Step.JOB_CREATED, about=("checksum",)),
        Point("hashing", world=hashing, also=kill_workers),
        Point("hashed, proof not kept", before=record("verified.json")),
        Point("proof kept, no canary yet", before=Write("Deployment", "{model}-canary")),
        Point("canary without a Service", before=Write("Service", "{model}-canary", "apply")),
        Point("canary applied", step=Step.CANARY_APPLIED),
        Point("canary ready", step=Step.CANARY_READY),
        Point("canary half measured", step=Step.REQUEST_DONE, about=("sums", 6)),
        Point("canary and stable measured", step=Step.REQUEST_DONE, about=("sums", 12)),
        Point("measured, verdict not kept", before=record("evaluation.json")),
        Point("passed, canary still up", before=Write("Service", "{model}-canary", "delete")),
        Point("canary half removed", before=Write("Deployment", "{model}-canary", "delete")),
        Point("canary removed", before=Write("Service", "{model}")),
        Point("Service moved, Deployment not", before=Write("Deployment", "{model}")),
        Point("Deployment moves", step=Step.MAIN_APPLIED),
        Point("stabilizing", step=Step.STABILIZING, nth=2),
        Point("held, not yet stable", before=record("stable")),
        Point("stable, no record yet", before=record("verdict.json")),
        Point("recorded, not noted", before=record("promotion.json")),
    )
}

# By model: the points at which its runs are killed, one after the other; each model has early and late ones.
CHAINS = {
    "a": ("nothing done yet", "proof kept, no canary yet", "canary half removed"),
    "b": ("pins kept", "canary without a Service", "Deployment moves"),
    "c": ("download Job created", "canary applied", "Service moved, Deployment not"),
    "d": ("downloading", "canary ready", "recorded, not noted"),
    "e": ("downloaded, not noted", "canary half measured", "stabilizing"),
    "f": ("checksum Job created", "canary and stable measured", "held, not yet stable"),
    "g": ("hashing", "measured, verdict not kept", "stable, no record yet"),
    "h": ("hashed, proof not kept", "passed, canary still up", "canary removed"),
}
# The same for a first release: nothing serves yet.
FIRST = ("Deployment moves", "stable, no record yet")
PASSED = "passed, canary still up"


@dataclass
class Chain:
    """The killed runs of a model, and its last run, which ended by itself."""

    model: Model
    release: str = ""
    before: str | None = None
    codes: list[int] = field(default_factory=list[int])
    runs: list[Run] = field(default_factory=list[Run])

    @property
    def story(self) -> str:
        return "\n".join(f"--- {run.point.name if run.point else 'lives'}\n{run.text}" for run in self.runs)


@dataclass
class Observed:
    """All chains while they go on, and the observations during them."""

    seen: Seen
    users: Users
    chains: dict[str, Future[Chain]]


@pytest.fixture(scope="module")
def observed(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    with ExitStack() as stack:
        models: dict[str, Model] = {}
        for name in (*CHAINS, "first"):
            model = stack.enter_context(new_model(sandbox, tmp_path_factory.mktemp(f"chain-{name}")))
            few_cases(model)
            models[name] = model
        slow = {"path": f"*{models['d'].repo}/*model.safetensors*", "method": "GET", "bytes_per_second": SLOW_BYTES / 2}
        put_faults(sandbox, [slow])
        stack.callback(put_faults, sandbox, [])
        seen = stack.enter_context(every_object(models["a"]))
        users = stack.enter_context(Users())
        pool = stack.enter_context(ThreadPoolExecutor(len(models)))
        # Two cores cannot run all at once: the start of engines and workers takes CPU.
        starts = threading.Semaphore(4)
        chains = {
            name: pool.submit(kill_all_along, models[name], CHAINS.get(name, FIRST), users, starts) for name in models
        }
        yield Observed(seen, users, chains)


def kill_all_along(model: Model, points: tuple[str, ...], users: Users, starts: threading.Semaphore) -> Chain:
    """Roll a release out: kill a run at each of these points, then let a last run end."""
    log = log_names(model.folder)
    chain = Chain(model)
    if points is not FIRST:
        with starts:
            base = Run(model, log())
            assert base.wait() == Exit.DONE, base.text
        chain.before = model.serving()
        users.ask(model)
        model.push("v0.33.0")
        model.commit(seed=7, size=LARGE if "hashing" in points else SLOW_BYTES)
    for name in (*points, None):
        run = Run(model, log(), POINTS[name] if name else None)
        chain.runs.append(run)
        chain.codes.append(run.wait())
        if len(chain.runs) > 1:
            # Only the second run has to wait until the dead run's lease runs out.
            model.cluster.delete("Lease", names.lease_name(model.name))
    chain.release = model.serving() or ""
    return chain


@pytest.fixture(params=[*CHAINS, "first"])
def chain(observed: Observed, request: pytest.FixtureRequest) -> Chain:
    return observed.chains[request.param].result(timeout=400)


def test_the_run_after_the_killed_ones_promotes(observed: Observed, chain: Chain) -> None:
    model, seen = chain.model, observed.seen
    assert chain.codes == [-signal.SIGKILL] * (len(chain.codes) - 1) + [Exit.DONE], chain.story
    state = model.records.state(model.name)
    assert chain.release
    assert chain.release not in (None, chain.before)
    assert (state.stable, state.previous, state.candidate) == (chain.release, chain.before, chain.release)
    record = model.records.record(model.name, chain.release)
    assert record is not None
    assert record.verdict == "Passed"
    assert model.canary_gone()
    # One object of each kind ever: each run adopts it, and none makes it again.
    key = model.records.release(model.name, chain.release).weights.key
    for stage in ("download", "checksum"):
        assert len(seen.of("Job", names.job_name(model.name, stage, key))) == 1, chain.story
    for track in ("stable", "canary"):
        wanted = 2 if track == "canary" and chain.before else 1
        assert len(seen.of("Deployment", names.engine_name(model.name, track))) == wanted, chain.story
        assert len(seen.of("Pod", f"{model.name}/{track}/{chain.release}")) == 1, chain.story
    assert seen.names("Deployment", model.name) == {model.name, f"{model.name}-canary"}
    # A dead run holds up the next one only until its lease runs out.
    assert chain.runs[1].waited_for_lease() < LeaseSettings.model_validate(LEASE).takeover_seconds, chain.story


def test_a_promotion_left_half_way_is_undone_when_another_release_is_asked_for(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    with new_model(sandbox, tmp_path) as model, Users() as users:
        few_cases(model)
        log = log_names(tmp_path)
        assert Run(model, log()).wait() == Exit.DONE
        good = model.serving()
        users.ask(model)
        model.push("v0.33.0")
        killed = Run(model, log(), POINTS["Deployment moves"])
        assert killed.wait() == -signal.SIGKILL, killed.text
        model.cluster.delete("Lease", names.lease_name(model.name))
        model.push("v0.34.0", crash_on_load="no such kernel")
        rejected = Run(model, log())
        assert rejected.wait() == Exit.REJECTED, rejected.text
        assert model.serving() == good
        assert model.records.state(model.name).stable == good
        assert model.canary_gone()
        assert not users.failed[model.name]


def test_what_passed_is_not_measured_again(observed: Observed) -> None:
    for name in ("h", "a", "b"):
        chain = observed.chains[name].result(timeout=400)
        last = chain.runs[-1]
        assert not last.reached(Step.REQUEST_DONE), chain.story


def test_users_are_served_throughout(observed: Observed) -> None:
    chains = [observed.chains[name].result(timeout=400) for name in CHAINS]
    failed = {chain.model.name: failures for chain in chains if (failures := observed.users.failed[chain.model.name])}
    assert not failed, json.dumps(failed, indent=1)
    assert all(observed.users.answered[chain.model.name] > 50 for chain in chains)
