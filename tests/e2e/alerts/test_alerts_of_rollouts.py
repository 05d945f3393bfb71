"""After a rollout on a sandbox the alert arrives, and the counters have the verdict and the GPU time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from llmops_sandbox.sandbox import Sandbox

from llmops.alerts.outbox import Outbox
from llmops.cli.exits import Exit
from llmops.config.settings import load_settings
from llmops.defs.alerts.sensors import alerts_sensor
from llmops.releases.counters import Counters
from tests.api.alerts.conftest import Receiver, add_target
from tests.support.world import Model


@pytest.fixture
def alerts_receiver(model: Model, receiver: Receiver) -> Iterator[Receiver]:
    """A receiver of all alerts about the model."""
    settings = load_settings(model.settings_file)
    kinds = ["rejected", "promoted", "rolled_back", "inconclusive", "run_failed"]
    target = add_target(model.cluster, f"t-{model.name}", receiver.url, "webhook", kinds=kinds)
    changed = settings.model_copy(update={"alerts": (target,), "dagster_url": "https://dagster.example"})
    model.settings_file.write_text(json.dumps(changed.model_dump(mode="json")))
    yield receiver
    model.cluster.delete("Secret", f"alerts-t-{model.name}")


def tick(model: Model) -> str:
    """One tick of the sensor that delivers alerts, in a real instance; returns its message."""
    with (
        dg.DagsterInstance.ephemeral() as instance,
        dg.build_sensor_context(instance=instance, resources={"platform": model.platform}) as context,
    ):
        skipped = alerts_sensor(context)
    assert isinstance(skipped, dg.SkipReason)
    return skipped.skip_message or ""


def test_a_promotion_a_rejection_and_a_rollback_are_told_of_and_counted(
    sandbox: Sandbox, model: Model, alerts_receiver: Receiver, tmp_path: Path
) -> None:
    """Slow: it starts a sandbox, rolls a model out, then a worse release, and rolls back."""
    first = model.rollout()
    assert first.code == Exit.DONE, first.line
    assert tick(model) == "1 sent"
    model.commit(quality=0.2)
    second = model.rollout()
    assert second.code == Exit.REJECTED, second.line
    model.commit(quality=0.96)
    third = model.rollout()
    assert third.code == Exit.DONE, third.line
    back = model.rollback()
    assert back.code == Exit.DONE, back.line
    assert tick(model) == "3 sent"
    assert tick(model) == "0 sent"
    content = [json.loads(request.body) for request in alerts_receiver.received]
    assert [event["type"] for event in content] == [
        "llmops.promoted",
        "llmops.rejected",
        "llmops.promoted",
        "llmops.rolled_back",
    ]
    promoted, rejected, again, rolled_back = [event["data"] for event in content]
    assert promoted["serving"] == promoted["release"]
    assert rejected["serving"] == promoted["release"], "what serves is what served before"
    assert "sums/score" in rejected["line"]
    assert rejected["run_url"] == f"https://dagster.example/runs/{rejected['run']}"
    assert rolled_back["serving"] == promoted["release"]
    assert again["release"] in rolled_back["text"]
    assert Outbox(model.cluster).alerts(run=rejected["run"])[0].id == rejected["id"]
    counted = Counters(model.cluster).all()[model.name]
    assert counted.rollouts == {"Passed": 2, "Failed": 1}
    assert counted.stages["evaluation"].count == 3
    assert counted.stages["promotion"].count == 2
    # Three canaries with a GPU each lived for some seconds.
    assert 3 <= counted.canary_gpu_seconds < 600
