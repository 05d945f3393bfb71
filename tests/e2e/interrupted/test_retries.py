"""A retry of a rejected release keeps the rejection until a trial decides.

Slow: each test is a rollout that is cut off.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from llmops_sandbox.sandbox import ENGINE_PROGRAM, Sandbox
from llmops_sandbox.standins.images import ImageStore
from llmops_sandbox.standins.registry import RegistryServer
from llmops_sandbox.standins.standin import in_thread

from llmops.cli.exits import Exit
from llmops.config.steps import Step
from llmops.releases.ledger import ledgers, read_ledger
from llmops.releases.records import Record
from llmops.rollout.plan import make_plan
from tests.e2e.interrupted.test_cancel import until
from tests.e2e.interrupted.test_reaper import reaped
from tests.support.dying import Point, Run, few_cases, log_names
from tests.support.world import Model, new_model

pytestmark = pytest.mark.timeout(600)

BAD = "v0.40.0"


@pytest.fixture(scope="module")
def served(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    with new_model(sandbox, tmp_path_factory.mktemp("retried")) as model:
        few_cases(model)
        ended = model.rollout()
        assert ended.code == Exit.DONE, ended.line
        yield model


@pytest.fixture(scope="module")
def rejected(served: Model) -> Iterator[Record]:
    """The record of a release whose engine crashes: a retry that runs to its end is rejected again."""
    served.push(BAD, crash_on_load="no such kernel")
    ended = served.rollout()
    assert ended.code == Exit.REJECTED, ended.line
    assert ended.record is not None
    yield ended.record
    served.sandbox.images.remove(served.image, BAD)


def assert_refused(model: Model, rejected: Record) -> None:
    """The command and the plan refuse the release, and the state keeps sensors from requesting it."""
    refused = model.rollout()
    assert refused.code == Exit.REJECTED, refused.line
    assert f"was rejected on {rejected.finished:%Y-%m-%d %H:%M} UTC at {rejected.stage}" in refused.line
    assert rejected.reason in refused.line
    planned = make_plan(model.platform, model.name, engine_version=None, revision=None)
    assert rejected.reason in planned.standing
    standing = ledgers(model.cluster)[model.name]
    assert standing.decided[rejected.release].verdict == "Failed"
    assert standing.rejections(tag=BAD)
    assert model.records.rejection(model.name, rejected.release) == rejected
    assert model.canary_gone()


def assert_in_history(model: Model, rejected: Record, cause: str) -> None:
    """The history has the retry, and with the retries before it the rejection."""
    retry, *before = model.records.history(model.name)
    assert (retry.release, retry.verdict, retry.cause) == (rejected.release, "Inconclusive", cause)
    assert rejected in before


def test_a_retry_that_is_cancelled(served: Model, rejected: Record, tmp_path: Path) -> None:
    good = served.serving()
    run = Run(served, log_names(tmp_path)(), Point("canary", step=Step.CANARY_APPLIED, signal=signal.SIGINT), "--retry")
    assert run.wait() == Exit.CANCELLED, run.text
    until(served.canary_gone, 60)
    assert_in_history(served, rejected, "cancelled")
    assert_refused(served, rejected)
    assert served.serving() == good


def test_a_retry_that_is_killed(served: Model, rejected: Record, tmp_path: Path) -> None:
    good = served.serving()
    log = log_names(tmp_path)
    run = Run(served, log(), Point("canary", step=Step.CANARY_APPLIED), "--retry")
    assert run.wait() == -signal.SIGKILL, run.text
    # Before the reaper clears up.
    refused = served.rollout()
    assert refused.code == Exit.REJECTED, refused.line
    assert rejected.reason in refused.line
    cleared = reaped(served, lambda run: True)
    assert cleared.record is not None
    assert cleared.record.verdict == "Inconclusive"
    until(served.canary_gone, 60)
    assert_in_history(served, rejected, "died")
    assert_refused(served, rejected)
    assert served.serving() == good


def test_a_retry_that_the_cluster_cannot_take(served: Model, rejected: Record) -> None:
    nodes = [node["metadata"]["name"] for node in served.cluster.list("Node")]
    for name in nodes:
        served.cluster.patch("Node", name, {"spec": {"unschedulable": True}})
    try:
        ended = served.rollout(retry=True)
    finally:
        for name in nodes:
            served.cluster.patch("Node", name, {"spec": {"unschedulable": None}})
    assert ended.code == Exit.INCONCLUSIVE, ended.line
    assert_in_history(served, rejected, "judged")
    assert_refused(served, rejected)


def test_a_rejection_is_known_although_the_state_is_lost(served: Model, rejected: Record) -> None:
    name = f"{served.name}.state"
    served.cluster.delete("ConfigMap", name)
    assert_refused(served, rejected)
    state = served.cluster.get("ConfigMap", name)
    assert state is not None
    assert read_ledger(state["data"]).state.stable == served.serving()


def test_a_retry_that_passes_replaces_the_rejection(sandbox: Sandbox, tmp_path: Path) -> None:
    """The nodes cannot pull the image at first, and a first retry is cancelled."""
    with new_model(sandbox, tmp_path / "model") as model:
        few_cases(model)
        assert model.rollout().code == Exit.DONE
        with only_in_the_registry(model, tmp_path / "images.json"):
            ended = model.rollout()
        assert ended.code == Exit.REJECTED, ended.line
        assert ended.record is not None
        release = ended.record.release
        model.push(BAD)
        run = Run(
            model, log_names(tmp_path)(), Point("canary", step=Step.CANARY_APPLIED, signal=signal.SIGTERM), "--retry"
        )
        assert run.wait() == Exit.CANCELLED, run.text
        assert model.rollout().code == Exit.REJECTED
        passed = model.rollout(retry=True)
        assert passed.code == Exit.DONE, passed.line
        assert model.serving() == release
        assert model.records.rejection(model.name, release) is None
        trials = [record for record in model.records.history(model.name) if record.release == release]
        assert [trial.verdict for trial in trials] == ["Passed", "Inconclusive", "Failed"]
        assert "serves already" in model.rollout().line


@contextmanager
def only_in_the_registry(model: Model, file: Path) -> Generator[None]:
    """llmops finds the image in its registry; the nodes pull from another one, which lacks it."""
    images = ImageStore(file)
    images.add(model.image, BAD, ENGINE_PROGRAM, {"TAG": BAD})
    settings = model.settings_file.read_text()
    with in_thread(RegistryServer(images)) as registry:
        mirrors = {"registry_mirrors": {"docker.io": registry.url}}
        model.settings_file.write_text(json.dumps(json.loads(settings) | mirrors))
        try:
            yield
        finally:
            model.settings_file.write_text(settings)
