"""Re-validation on a real cluster after bit rot, edits and worse answers.

All tests are slow: each is a rollout and one or more validations.
"""

from __future__ import annotations

import datetime
import json
import time
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.definitions.schedule_definition import ScheduleExecutionData
from llmops_sandbox.standins.images import normalise

from llmops.alerts.outbox import Alert, Outbox
from llmops.cli.exits import Exit
from llmops.cli.rollouts import Revalidated, run_revalidation
from llmops.clients.kubernetes.lease import RolloutLease
from llmops.clients.kubernetes.wait import wait_for_rollout
from llmops.config import names
from llmops.definitions import defs
from llmops.defs.validation.assets import validation_key
from llmops.defs.validation.jobs import JOB
from llmops.defs.validation.schedules import revalidation_schedules
from llmops.releases.validations import CHECKS, CheckName, CheckResult, Validations
from llmops.rollout.status import model_status
from llmops.rollout.trial import REQUESTED_BY_TAG
from tests.e2e.validation.editing import autoscale, edit, scale
from tests.support.traffic import traffic
from tests.support.world import Model

WEIGHTS = "model.safetensors"


def revalidate(model: Model, *, repair: bool = False, restore: bool = False) -> Revalidated:
    return run_revalidation(model.records, model.name, repair=repair, restore=restore)


def result_of(ended: Revalidated, name: CheckName) -> CheckResult:
    assert ended.validation is not None, ended.line
    return next(check for check in ended.validation.checks if check.check == name)


def alerts(model: Model) -> list[Alert]:
    return [alert for alert in Outbox(model.cluster).alerts() if alert.model == model.name]


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


def test_a_flipped_bit_is_named_and_repaired_while_the_engine_keeps_serving(model: Model) -> None:
    assert model.rollout().code == Exit.DONE
    good = revalidate(model)
    assert good.code == Exit.DONE, good.line
    assert [result_of(good, name).value for name in ("weights", "figures", "drift")] == ["Passed"] * 3, good.line

    damaged = weights_file(model)
    right = damaged.read_bytes()
    flip_a_bit(damaged)
    key = damaged.parent.name
    with traffic(model) as users:
        failed = revalidate(model)
        assert failed.code == Exit.REJECTED, failed.line
        check = result_of(failed, "weights")
        assert [finding.subject for finding in check.findings] == [f"weights/{model.name}/{key}/{WEIGHTS}"]
        assert "altered" in check.findings[0].message
        assert f"llmops revalidate {model.name} --repair" in check.findings[0].remedy
        assert damaged.read_bytes() != right
        assert model.records.verified_weights(model.name, key) is None
        findings = [alert for alert in alerts(model) if alert.kind == "validation_finding"]
        assert [(alert.severity, alert.release) for alert in findings] == [("error", model.serving())]

        model.declare(automation={"repair": ["weights"]})
        repaired = revalidate(model)
        assert repaired.code == Exit.DONE, repaired.line
        assert result_of(repaired, "weights").repaired
        assert damaged.read_bytes() == right
        assert model.records.verified_weights(model.name, key) is not None
        after = revalidate(model)
        assert after.code == Exit.DONE
        assert result_of(after, "weights").value == "Passed"
    users.assert_whole()
    assert restarts(model) == [0]
    status = model_status(model.platform, model.name)
    assert status.validated is not None
    assert status.validated.endswith("UTC drift Passed, weights Passed, figures Passed, fidelity Passed")
    saved = Validations(model.cluster).last(model.name)
    assert saved == after.validation
    assert saved is not None
    assert saved.completed == saved.finished


def test_drift_names_edits_with_their_managers_and_changes_nothing(model: Model) -> None:
    assert model.rollout().code == Exit.DONE
    other = f"{model.image}@{model.push('v0.33.0-other')}"
    edit(model, {"image": other, "env": [{"name": "EXTRA", "value": "1"}]})
    scale(model, 2)
    model.cluster.delete("PodDisruptionBudget", model.name)
    failed = revalidate(model)
    assert failed.code == Exit.REJECTED, failed.line
    check = result_of(failed, "drift")
    by_subject = {finding.subject: finding for finding in check.findings}
    field = f"Deployment {model.name} spec.template.spec.containers[engine]"
    image = by_subject.pop(f"{field}.image")
    assert (image.severity, "kubectl-edit" in image.message, other in image.message) == ("error", True, True)
    extra = by_subject.pop(f"{field}.env[EXTRA]")
    assert extra.severity == "error"
    assert "kubectl-edit (Update)" in extra.message
    replicas = by_subject.pop(f"Deployment {model.name} spec.replicas")
    assert replicas.severity == "warning"
    assert "2, wanted 1 (changed by kubectl (Update of scale)" in replicas.message
    assert by_subject.pop(f"PodDisruptionBudget {model.name}").severity == "warning"
    assert all(subject.startswith("pod ") for subject in by_subject), by_subject
    main = model.deployment()
    assert main is not None
    assert (main["spec"]["replicas"], main["spec"]["template"]["spec"]["containers"][0]["image"]) == (2, other)

    assert revalidate(model, restore=True).code == Exit.DONE
    main = model.deployment()
    assert main is not None
    assert main["spec"]["replicas"] == 1
    assert main["spec"]["template"]["spec"]["containers"][0]["image"] != other
    assert model.cluster.get("PodDisruptionBudget", model.name) is not None
    remaining = [finding.subject for finding in result_of(revalidate(model), "drift").findings]
    assert [subject for subject in remaining if not subject.startswith("pod ")] == []
    lines = [alert.line for alert in alerts(model) if "EXTRA" in alert.line]
    assert len(lines) == 1


def test_drift_ignores_autoscaled_replicas_and_a_rollout_blocks_a_validation(model: Model) -> None:
    assert model.rollout().code == Exit.DONE
    autoscale(model, 3)
    scale(model, 2, manager="kube-controller-manager")
    passed = revalidate(model)
    assert result_of(passed, "drift").value == "Passed", passed.line
    assert f"HorizontalPodAutoscaler {model.name}" in result_of(passed, "drift").line
    [request] = list(tick(model).run_requests or [])
    assert request.asset_selection == [validation_key(model.name)]
    assert request.tags[REQUESTED_BY_TAG] == "schedule revalidation_0_3_x_x_x_UTC"
    model.cluster.delete("HorizontalPodAutoscaler", model.name)

    with RolloutLease(model.cluster, model.name, "another-run"):
        blocked = revalidate(model)
    assert blocked.code == Exit.CANNOT, blocked.line
    assert blocked.validation is None
    assert "another-run" in blocked.line
    assert Validations(model.cluster).last(model.name) == passed.validation


def tick(model: Model) -> ScheduleExecutionData:
    """Evaluate the only schedule of the model's catalog, as Dagster's daemon does."""
    catalog = model.platform.catalog
    (schedule,) = revalidation_schedules(catalog, job_name=JOB)
    at = datetime.datetime(2026, 11, 25, 3, tzinfo=datetime.UTC)
    with (
        dg.instance_for_test() as instance,
        dg.build_schedule_context(
            instance=instance, scheduled_execution_time=at, resources={"platform": model.platform}
        ) as context,
    ):
        return schedule.evaluate_tick(context)


def test_a_model_without_a_stable_release_is_skipped(model: Model) -> None:
    skipped = tick(model)
    assert skipped.run_requests == []
    assert model.name in str(skipped.skip_message)
    ended = revalidate(model)
    assert (ended.code, ended.validation) == (Exit.DONE, None)


def worsen(model: Model, **behaviour: Any) -> None:
    """Restart stable's engine with other behaviour: the declared state stays the same."""
    state = model.records.state(model.name)
    assert state.stable is not None
    digest = model.records.release(model.name, state.stable).engine.digest
    store = model.sandbox.images.path
    content = json.loads(store.read_text())
    content[normalise(model.image)]["images"][digest]["env"]["SIM_FAULTS"] = json.dumps(behaviour)
    store.write_text(json.dumps(content))
    for pod in model.cluster.list("Pod", labels=names.engine_selector(model.name, "stable")):
        model.cluster.delete("Pod", pod["metadata"]["name"], wait=60)
    wait_for_rollout(model.cluster, model.name, timeout=60)


def test_worse_answers_roll_the_model_back_if_the_entry_allows_it(model: Model) -> None:
    first = model.rollout()
    assert first.code == Exit.DONE, first.line
    good = model.serving()
    model.push("v0.33.0")
    assert model.rollout().code == Exit.DONE
    bad = model.serving()
    assert bad != good
    worsen(model, quality=0.7)

    failed = revalidate(model)
    assert failed.code == Exit.REJECTED, failed.line
    check = result_of(failed, "figures")
    assert [finding.subject for finding in check.findings] == ["sums/score max_drop"], failed.line
    assert "load/p95_ttft_ms" in check.line, "the line does not name the gate that cannot judge"
    assert f"llmops rollback {model.name}" in check.findings[0].remedy
    assert model.serving() == bad

    model.declare(automation={"repair": ["rollback"]})
    with traffic(model) as users:
        assert revalidate(model).code == Exit.REJECTED
    users.assert_whole()
    assert model.serving() == good
    assert model.records.state(model.name).previous is None
    assert bad is not None
    record = model.records.record(model.name, bad)
    assert record is not None
    assert record.verdict == "Failed"
    assert f"rolled back to {good} by" in record.reason
    assert "sums/score" in record.reason
    assert [alert.serving for alert in alerts(model) if alert.kind == "rolled_back"] == [good]
    assert model.rollout().code == Exit.REJECTED

    worsen(model, quality=0.7)
    again = revalidate(model)
    assert again.code == Exit.REJECTED
    assert model.serving() == good, "there is no earlier release to roll back to"
    assert [alert.serving for alert in alerts(model) if alert.kind == "rolled_back"] == [good]


def test_findings_stay_with_their_model_and_a_failed_measurement_is_no_finding(model: Model) -> None:
    other = Model(model.sandbox, model.folder, f"{model.name}-b", model.evals)
    other.declare()
    other.commit()
    other.push("v0.32.0")
    for one in (model, other):
        assert one.rollout().code == Exit.DONE
    flip_a_bit(weights_file(model))
    scale(other, 0)
    while other.cluster.list("Pod", labels=names.engine_selector(other.name, "stable")):
        time.sleep(0.2)
    keys = {name: validation_key(name) for name in (model.name, other.name)}
    with dg.instance_for_test() as instance:
        job = defs().resolve_job_def(JOB)
        run = job.execute_in_process(asset_selection=list(keys.values()), instance=instance, raise_on_error=False)
        assert run.success
        outcomes = {
            (name, check): evaluation(instance, dg.AssetCheckKey(key, check))
            for name, key in keys.items()
            for check in CHECKS
        }
        materialized = {name: instance.get_latest_materialization_event(key) is not None for name, key in keys.items()}
    error, warn = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN
    assert outcomes[model.name, "weights"] == (False, error, "Failed")
    assert outcomes[model.name, "figures"][0]
    assert outcomes[model.name, "drift"][0]
    assert outcomes[other.name, "weights"][0]
    assert outcomes[other.name, "figures"] == (False, warn, "Inconclusive")
    assert outcomes[other.name, "drift"] == (False, error, "Failed")
    # An inconclusive validation is no materialization: it does not count for the freshness policy.
    assert materialized == {model.name: True, other.name: False}
    last = Validations(other.cluster).last(other.name)
    assert last is not None
    assert last.completed is None
    figures = next(check for check in last.checks if check.check == "figures")
    assert figures.findings == ()
    assert not [alert for alert in alerts(other) if "figures" in alert.line]
    other.remove()


def evaluation(instance: dg.DagsterInstance, key: dg.AssetCheckKey) -> tuple[bool, dg.AssetCheckSeverity, str]:
    (execution,) = instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
    event = execution.event
    assert event is not None
    assert event.dagster_event is not None
    data = event.dagster_event.asset_check_evaluation_data
    return data.passed, data.severity, str(data.metadata["outcome"].value)
