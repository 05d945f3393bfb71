"""How a trial ends by the error of its stage, without an orchestrator."""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Callable, Collection
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from llmops_sandbox.cluster.controlplane import ControlPlane

from llmops.alerts.outbox import Outbox
from llmops.config import names
from llmops.config.schema import VerdictValue
from llmops.config.settings import load_settings
from llmops.errors import BadRelease, ClusterCannot, LlmopsError, MeasurementFailed
from llmops.manifests.records import pins_config_map
from llmops.manifests.volume import namespace
from llmops.releases.ledger import Cause
from llmops.releases.release import Release
from llmops.releases.stages import STAGES
from llmops.rollout.orchestrator import Orchestrator
from llmops.rollout.platform import Platform
from llmops.rollout.trial import Refused, Trial, TrialEnded, trial
from tests.api.cluster.conftest import config_map, eventually, kubectl
from tests.api.rollout.test_surroundings import release


@pytest.fixture
def platform(plane: ControlPlane, tmp_path: Path) -> Platform:
    """An installation in a namespace of the test, with one release under trial."""
    (tmp_path / "models").mkdir()
    file = tmp_path / "settings.yaml"
    settings = {"namespace": f"trial-{secrets.token_hex(3)}", "models_dir": str(tmp_path / "models")}
    file.write_text(json.dumps({"kubeconfig": str(plane.kubeconfig), **settings}))
    platform = Platform(settings_file=str(file))
    platform.cluster.apply(namespace(load_settings(file)))
    put(platform, release())
    return platform


def put(platform: Platform, candidate: Release) -> None:
    platform.records.save_release(pins_config_map(candidate))
    platform.records.update_state("tiny", candidate=candidate.id)


def orchestrator(*, stages: Collection[str] = STAGES, shares_process: bool = False) -> Orchestrator:
    return Orchestrator(
        run="run-a",
        requested_by="a test",
        log=logging.getLogger("trial"),
        stages=stages,
        shares_process=shares_process,
        observe=lambda line, shown: None,
        shield=nullcontext,
    )


def run_stage(platform: Platform, act: Callable[[Trial], None], candidate: Release | None = None) -> None:
    with trial(orchestrator(), platform, "canary", "tiny") as current:
        current.load((candidate or release()).id)
        act(current)


def raising(error: BaseException) -> Callable[[Trial], None]:
    def act(_: Trial) -> None:
        raise error

    return act


def lease(platform: Platform) -> dict[str, str]:
    lease = platform.cluster.get("Lease", names.lease_name("tiny"))
    assert lease is not None
    return lease["spec"]


CASES: tuple[tuple[BaseException, VerdictValue, Cause, str, type[BaseException]], ...] = (
    (BadRelease("it crashes.\nlast line"), "Failed", "judged", "it crashes.", TrialEnded),
    (ClusterCannot("no GPU.", remedy="Add one."), "Inconclusive", "judged", "no GPU. Remedy: Add one.", TrialEnded),
    (MeasurementFailed("no answer.", code="NoAnswer"), "Inconclusive", "judged", "no answer.", TrialEnded),
    (ZeroDivisionError("1/0"), "Inconclusive", "judged", "an error of llmops itself: ", ZeroDivisionError),
    (KeyboardInterrupt(), "Inconclusive", "cancelled", "the run was cancelled", KeyboardInterrupt),
)


@pytest.mark.parametrize(
    ("error", "verdict", "cause", "reason", "raised"), CASES, ids=[type(case[0]).__name__ for case in CASES]
)
def test_the_error_of_a_stage_decides_how_the_trial_ends(
    platform: Platform, error: BaseException, verdict: str, cause: str, reason: str, raised: type[BaseException]
) -> None:
    with pytest.raises(raised) as caught:
        run_stage(platform, raising(error))
    record = platform.records.record("tiny", release().id)
    assert record is not None
    assert (record.verdict, record.cause, record.stage) == (verdict, cause, "canary")
    assert record.reason.startswith(reason)
    fault = "InternalError" if isinstance(error, Exception) else ""
    assert record.code == (error.code if isinstance(error, LlmopsError) else fault)
    assert not lease(platform).get("holderIdentity")
    if isinstance(caught.value, TrialEnded):
        assert caught.value.record == record
        assert caught.value.__cause__ is error
        assert str(caught.value).startswith(f"{verdict} at canary: {reason}")


def deny(platform: Platform, resource: str, group: str = "") -> Callable[[], None]:
    """Admission refuses what llmops writes of this resource in the test's namespace; returns what undoes it."""
    namespace = platform.cluster.namespace
    name = f"{namespace}-{resource}"
    rule = {"apiGroups": [group], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": [resource]}
    matches = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "resourceRules": [rule],
    }
    validations = [{"expression": "false", "message": "label team is required"}]
    common = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": name}}
    policy = {**common, "kind": "ValidatingAdmissionPolicy", "spec": {
        "failurePolicy": "Fail", "matchConstraints": matches, "validations": validations}}  # fmt: skip
    binding = {**common, "kind": "ValidatingAdmissionPolicyBinding", "spec": {
        "policyName": name, "validationActions": ["Deny"]}}  # fmt: skip
    for obj in (policy, binding):
        kubectl(platform.cluster, "apply", "-f", "-", given=json.dumps(obj))
    probe = {"configmaps": config_map("probe"), "events": None}[resource]

    def refused() -> bool | None:
        try:
            if probe is None:
                platform.cluster.event(stateful(platform), "Probe", "a probe")
            else:
                platform.cluster.apply(probe, dry_run=True)
        except ClusterCannot:
            return True
        except LlmopsError:
            return True
        return None

    eventually(refused, seconds=60)

    def undo() -> None:
        kinds = "validatingadmissionpolicybinding,validatingadmissionpolicy"
        kubectl(platform.cluster, "delete", kinds, name)

    return undo


def stateful(platform: Platform) -> dict[str, Any]:
    state = platform.cluster.get("ConfigMap", names.state_name("tiny"))
    assert state is not None
    return state


def alerts(platform: Platform) -> list[str]:
    return [alert.kind for alert in Outbox(platform.cluster).alerts()]


def test_a_cluster_that_takes_no_events_still_sends_the_alert_of_a_rejection(
    platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    undo = deny(platform, "events")
    try:
        with caplog.at_level(logging.INFO), pytest.raises(TrialEnded) as ended:
            run_stage(platform, raising(BadRelease("it crashes.", code="Crashed")))
    finally:
        undo()
    assert ended.value.record.code == "Crashed"
    assert alerts(platform) == ["rejected"]
    assert "no Event Failed is written for tiny" in caplog.text


def test_people_read_the_first_cause_where_nothing_can_be_written(
    platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    undos: list[Callable[[], None]] = []

    def act(_: Trial) -> None:
        undos.append(deny(platform, "configmaps"))
        raise BadRelease("it crashes.", code="Crashed")

    try:
        with caplog.at_level(logging.INFO), pytest.raises(TrialEnded) as ended:
            run_stage(platform, act)
    finally:
        for undo in undos:
            undo()
    assert (ended.value.record.verdict, ended.value.record.reason) == ("Failed", "it crashes.")
    assert "its record is not saved" in caplog.text
    assert "rejected at canary: it crashes." in caplog.text
    assert not lease(platform).get("holderIdentity")


class _Broken(Trial):
    def settle(self, *, wait: bool) -> None:
        raise ZeroDivisionError("a fault of the undo")


@pytest.mark.parametrize("error", [BadRelease("it crashes."), KeyboardInterrupt()])
def test_an_error_of_the_undo_does_not_hide_the_cause(
    platform: Platform, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    current = _Broken(orchestrator(), platform, "canary", "tiny")
    current.acquire()
    current.load(release().id)
    with caplog.at_level(logging.INFO):
        if isinstance(error, Exception):
            assert current.on_error(error) is None
        else:
            current.on_cancel()
    platform.leases.free("tiny")
    assert ("it crashes." if isinstance(error, Exception) else "the run was cancelled") in caplog.text
    assert "a fault of the undo" in caplog.text


def test_the_record_keeps_what_was_accepted_of_the_preflight(platform: Platform) -> None:
    platform.records.save_accepted("tiny", release().id, ["memory.context", "memory.fit"])
    with pytest.raises(TrialEnded):
        run_stage(platform, raising(BadRelease("it crashes.")))
    record = platform.records.record("tiny", release().id)
    assert record is not None
    assert record.accepted == ("memory.context", "memory.fit")


def test_on_inconclusive_reject_fails_a_release_without_a_measurement(platform: Platform) -> None:
    rules = release().rollout.model_copy(update={"on_inconclusive": "reject"})
    strict = release().model_copy(update={"rollout": rules})
    put(platform, strict)
    with pytest.raises(TrialEnded):
        run_stage(platform, raising(MeasurementFailed("no answer.")), strict)
    record = platform.records.record("tiny", strict.id)
    assert record is not None
    assert record.verdict == "Failed"


def test_a_refused_release_keeps_its_record(platform: Platform) -> None:
    with pytest.raises(TrialEnded) as rejected:
        run_stage(platform, raising(BadRelease("it crashes.")))
    with pytest.raises(Refused), trial(orchestrator(), platform, "release", "tiny"):
        raise Refused(rejected.value.record)
    assert platform.records.record("tiny", release().id) == rejected.value.record
    assert not lease(platform).get("holderIdentity")


def test_a_run_without_the_lease_writes_nothing(platform: Platform) -> None:
    def lose(current: Trial) -> None:
        other = {"holderIdentity": "run-b", "renewTime": "2100-01-01T00:00:00.000000Z"}
        platform.cluster.patch("Lease", names.lease_name("tiny"), {"spec": other})
        deadline = time.monotonic() + 20
        while not platform.leases.of("tiny", "run-a").lost():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        raise BadRelease("it crashes.")

    with pytest.raises(BadRelease):
        run_stage(platform, lose)
    assert platform.records.record("tiny", release().id) is None
    assert platform.records.opened("tiny", release().id) is not None
    assert lease(platform)["holderIdentity"] == "run-b"


def test_the_end_of_the_process_ends_a_trial_between_two_of_its_stages(platform: Platform) -> None:
    with trial(orchestrator(shares_process=True), platform, "canary", "tiny") as current:
        current.load(release().id)
    assert lease(platform)["holderIdentity"] == "run-a"
    assert platform.records.record("tiny", release().id) is None
    platform.leases.close()
    record = platform.records.record("tiny", release().id)
    assert record is not None
    assert (record.verdict, record.cause) == ("Inconclusive", "cancelled")
    assert not lease(platform).get("holderIdentity")


def test_a_trial_between_two_processes_keeps_its_lease(platform: Platform) -> None:
    with trial(orchestrator(), platform, "canary", "tiny") as current:
        current.load(release().id)
    platform.leases.close()
    assert platform.records.record("tiny", release().id) is None
    assert (lease(platform)["holderIdentity"], lease(platform)["leaseDurationSeconds"]) == ("run-a", 300)


def test_a_run_without_further_stages_ends_its_trial(platform: Platform) -> None:
    with trial(orchestrator(stages=("weights", "canary")), platform, "canary", "tiny") as current:
        current.load(release().id)
    record = platform.records.record("tiny", release().id)
    assert record is not None
    assert (record.verdict, record.cause) == ("Inconclusive", "cancelled")
    assert not lease(platform).get("holderIdentity")
