"""What serves is validated against a real cluster: rot, edits, worse answers, and what follows of each.

Slow, all of it: each test is a rollout and one or more validations.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from llmops import names
from llmops.cli.exits import Exit
from llmops.cli.rollouts import Revalidated, run_revalidation
from llmops.releases.outbox import Alert, Outbox
from llmops.releases.validations import CheckName, CheckResult, Validations
from tests.stages.traffic import traffic
from tests.stages.world import Model

pytestmark = pytest.mark.slow

WEIGHTS = "model.safetensors"


def revalidate(model: Model, *, repair: bool = False, restore: bool = False) -> Revalidated:
    return run_revalidation(model.records, model.name, repair=repair, restore=restore)


def checked(ended: Revalidated, name: CheckName) -> CheckResult:
    assert ended.validation is not None, ended.line
    return next(each for each in ended.validation.checks if each.check == name)


def alerts(model: Model) -> list[Alert]:
    return [each for each in Outbox(model.cluster).alerts() if each.model == model.name]


def weights_file(model: Model) -> Path:
    state = model.records.state(model.name)
    assert state.stable is not None
    key = model.records.release(model.name, state.stable).weights.key
    return model.volume / names.weights_path(model.name, key) / WEIGHTS


def flip_a_bit(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size - 1000)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 0x10]))


def restarts(model: Model) -> list[int]:
    pods = model.cluster.list("Pod", labels=names.engine_selector(model.name, "stable"))
    return [pod["status"]["containerStatuses"][0]["restartCount"] for pod in pods]


def test_a_flipped_bit_is_found_named_and_fetched_again_while_the_engine_goes_on(model: Model) -> None:
    assert model.rollout().code == Exit.DONE
    good = revalidate(model)
    assert good.code == Exit.DONE, good.line
    assert [checked(good, name).value for name in ("weights", "figures", "drift")] == ["Passed"] * 3, good.line

    damaged = weights_file(model)
    right = damaged.read_bytes()
    flip_a_bit(damaged)
    key = damaged.parent.name
    with traffic(model) as users:
        found = revalidate(model)
        assert found.code == Exit.REJECTED, found.line
        check = checked(found, "weights")
        assert [each.subject for each in check.findings] == [f"weights/{model.name}/{key}/{WEIGHTS}"]
        assert "altered" in check.findings[0].message
        assert f"llmops revalidate {model.name} --repair" in check.findings[0].remedy
        assert damaged.read_bytes() != right
        assert model.records.verified_weights(model.name, key) is None
        told = [each for each in alerts(model) if each.kind == "validation_finding"]
        assert [(each.severity, each.release) for each in told] == [("error", model.serving())]

        model.declare(automation={"repair": ["weights"]})
        repaired = revalidate(model)
        assert repaired.code == Exit.DONE, repaired.line
        assert "fetched again" in checked(repaired, "weights").repaired
        assert damaged.read_bytes() == right
        assert model.records.verified_weights(model.name, key) is not None
        after = revalidate(model)
        assert after.code == Exit.DONE
        assert checked(after, "weights").value == "Passed"
    users.assert_whole()
    assert restarts(model) == [0]
    kept = Validations(model.cluster).last(model.name)
    assert kept == after.validation
    assert kept is not None
    assert kept.completed == kept.finished
