"""How a trial ends by the error of its stage, without an orchestrator."""

from __future__ import annotations

import datetime
import json
import logging
import secrets
import time
from collections.abc import Callable, Collection
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config
from llmops_sandbox.cluster.controlplane import ControlPlane

from llmops.alerts.outbox import Outbox
from llmops.config import names
from llmops.config.schema import VerdictValue
from llmops.config.settings import load_settings
from llmops.errors import BadRelease, ClusterCannot, LlmopsError, MeasurementFailed
from llmops.evaluation.backends.base import Target
from llmops.manifests.records import pins_config_map
from llmops.manifests.volume import claim, namespace
from llmops.releases.ledger import Cause, State
from llmops.releases.records import Record, VerifiedWeights
from llmops.releases.release import Release
from llmops.releases.stages import STAGES
from llmops.rollout.ops.cleanup import settle
from llmops.rollout.ops.measured import check_as_released
from llmops.rollout.ops.scaling import apply_stable
from llmops.rollout.orchestrator import Orchestrator
from llmops.rollout.platform import Platform
from llmops.rollout.stages import weights
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
    # The release is rendered without an entry of the catalog.
    platform.catalog = {}
    platform.cluster.apply(namespace(load_settings(file)))
    put(platform, release())
    return platform


def put(platform: Platform, candidate: Release) -> None:
    platform.records.save_release(pins_config_map(candidate))
    platform.records.update_state("tiny", candidate=candidate.id)


@pytest.fixture
def stable(platform: Platform) -> Release:
    """A release that serves, beside the one under trial."""
    served = release().model_copy(update={"weights": release().weights.model_copy(update={"commit": "1" * 40})})
    platform.records.save_release(pins_config_map(served))
    platform.records.update_state("tiny", stable=served.id)
    platform.records.save_verified_weights("tiny", served.weights.key, WEIGHTS)
    platform.records.save_record(
        Record(
            model="tiny",
            release=served.id,
            verdict="Passed",
            reason="good",
            stage="promotion",
            image="-",
            commit="-",
            finished=datetime.datetime.now(datetime.UTC),
        )
    )
    apply_stable(platform, served, surge=True)
    return served


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


def run_stage(
    platform: Platform, act: Callable[[Trial], object], candidate: Release | None = None, *, stage: str = "canary"
) -> None:
    with trial(orchestrator(), platform, stage, "tiny") as current:
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


WEIGHTS = VerifiedWeights(path="weights/tiny/k", files=1, bytes=1, verified=datetime.datetime.now(datetime.UTC))
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


def uid(platform: Platform) -> str:
    main = platform.cluster.get("Deployment", "tiny")
    assert main is not None
    return main["metadata"]["uid"]


LOST = ("state", "pins", "trial", "weights", "", "lease")
"""Kinds of record that somebody deletes; empty is all of them at once."""


@pytest.mark.parametrize("kind", LOST)
@pytest.mark.parametrize("stage", ["canary", "evaluation", "promotion"])
def test_records_that_are_deleted_while_a_trial_runs_take_nothing_from_users(
    platform: Platform, stable: Release, kind: str, stage: str
) -> None:
    """In the promotion the main Deployment has the release under trial already."""
    before = uid(platform)

    def act(current: Trial) -> None:
        if stage == "promotion":
            apply_stable(platform, release(), surge=True)
        if kind == "lease":
            platform.cluster.delete("Lease", names.lease_name("tiny"))
        else:
            labels = {names.MODEL_LABEL: "tiny"} | ({names.RECORD_LABEL: kind} if kind else {})
            for config_map in platform.cluster.list("ConfigMap", labels=labels):
                if names.RECORD_LABEL in config_map["metadata"]["labels"]:
                    platform.cluster.delete("ConfigMap", config_map["metadata"]["name"])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stage(platform, act, stage=stage)
    main, state = platform.cluster.get("Deployment", "tiny"), platform.records.state("tiny")
    assert main is not None
    assert main["metadata"]["labels"][names.RELEASE_LABEL] == stable.id
    assert uid(platform) == before
    assert (state.stable, state.candidate, state.recovered) == (stable.id, release().id, False)
    record = platform.records.record("tiny", release().id)
    assert record is not None
    assert (record.verdict, record.cause) == ("Inconclusive", "cancelled")
    assert platform.records.release("tiny", stable.id) == stable
    for pins in (stable, release()):
        assert platform.cluster.get("ConfigMap", names.pins_name("tiny", pins.id)) is not None


def test_what_is_older_than_a_first_trial_stays(platform: Platform) -> None:
    """Even if all evidence says that nothing served."""
    apply_stable(platform, release(), surge=True)
    before = uid(platform)
    since = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=5)
    settle(platform, "tiny", State(), release().id, lambda line: None, began=since, promoting=True, wait=False)
    assert uid(platform) == before
    earlier = since - datetime.timedelta(minutes=1)
    settle(platform, "tiny", State(), release().id, lambda line: None, began=earlier, promoting=True, wait=False)
    assert platform.cluster.get("Deployment", "tiny") is None


def patched(platform: Platform, change: dict[str, object], manager: str) -> None:
    apps: Any = client.AppsV1Api(config.new_client_from_config(platform.settings.kubeconfig))
    apps.patch_namespaced_deployment("tiny", platform.settings.namespace, change, field_manager=manager)


@pytest.mark.parametrize(
    ("change", "replicas"),
    [
        ({"spec": {"replicas": 0}}, 0),
        ({"spec": {"template": {"spec": {"containers": [{"name": "engine", "image": "other:1"}]}}}}, 1),
        ({"spec": {"replicas": 3, "template": {"spec": {"containers": [{"name": "engine", "args": ["--x"]}]}}}}, 3),
    ],
    ids=["scaled", "image", "both"],
)
def test_the_undo_of_a_promotion_takes_back_what_others_changed_but_leaves_their_replicas(
    platform: Platform, stable: Release, change: dict[str, object], replicas: int
) -> None:
    def act(current: Trial) -> None:
        apply_stable(platform, release(), surge=True)
        patched(platform, change, "keel")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stage(platform, act, stage="promotion")
    main = platform.cluster.get("Deployment", "tiny")
    assert main is not None
    engine = main["spec"]["template"]["spec"]["containers"][0]
    assert main["metadata"]["labels"][names.RELEASE_LABEL] == stable.id
    assert (engine["image"], main["spec"]["replicas"]) == (stable.engine.reference, replicas)
    assert "--x" not in engine["args"]


CHANGED_STABLE: dict[str, tuple[Callable[[Platform], object], str]] = {
    "another template": (
        lambda platform: patched(
            platform,
            {"spec": {"template": {"spec": {"containers": [{"name": "engine", "image": "other:1"}]}}}},
            "kubectl-rollout",
        ),
        "spec.template.spec.containers[engine].image is",
    ),
    "scaled to 0": (lambda platform: patched(platform, {"spec": {"replicas": 0}}, "kubectl-scale"), "replicas is 0"),
    "no Deployment": (lambda platform: platform.cluster.delete("Deployment", "tiny"), "Deployment tiny is gone"),
    "no Service": (lambda platform: platform.cluster.delete("Service", "tiny"), "Service tiny is gone"),
}


@pytest.mark.parametrize("change", CHANGED_STABLE)
def test_a_stable_that_others_changed_is_no_release_that_serves_already(
    platform: Platform, stable: Release, change: str
) -> None:
    run_stage(platform, lambda current: check_as_released(current, Target(stable, "stable")))
    act, words = CHANGED_STABLE[change]
    act(platform)
    with pytest.raises(TrialEnded) as ended:
        run_stage(platform, lambda current: check_as_released(current, Target(stable, "stable")))
    record = ended.value.record
    assert (record.verdict, record.code) == ("Inconclusive", "ForeignEngine")
    assert words in record.reason
    assert "kubectl-" in record.reason or "gone" in record.reason


def test_a_claim_that_is_being_deleted_is_told_before_anything_waits_for_it(platform: Platform) -> None:
    cluster = platform.cluster
    kept = claim(platform.settings)
    cluster.apply({**kept, "metadata": {**kept["metadata"], "finalizers": ["example.com/keep"]}})
    cluster.delete("PersistentVolumeClaim", kept["metadata"]["name"])
    with pytest.raises(TrialEnded) as ended:
        run_stage(platform, lambda current: weights.run(current, release()), stage="weights")
    assert (ended.value.record.verdict, ended.value.record.code) == ("Inconclusive", "ClaimDeleted")
    cluster.patch("PersistentVolumeClaim", kept["metadata"]["name"], {"metadata": {"finalizers": None}})


def test_records_and_leases_are_kept_from_programs_that_prune(platform: Platform, stable: Release) -> None:
    run_stage(platform, lambda current: None)
    config_maps = platform.cluster.list("ConfigMap", labels={names.MODEL_LABEL: "tiny"})
    # Options of engines are no records: they belong to a release's objects.
    records = [config_map for config_map in config_maps if names.RECORD_LABEL in config_map["metadata"]["labels"]]
    kept = [obj["metadata"] for obj in (*records, *platform.cluster.list("Lease"))]
    assert len(kept) == 7, [meta["name"] for meta in kept]
    for meta in kept:
        assert meta["annotations"].items() >= names.KEPT_ANNOTATIONS.items(), meta["name"]
        assert not meta.get("ownerReferences"), meta["name"]
        assert not meta.get("finalizers"), meta["name"]
