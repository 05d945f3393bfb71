"""Decisions on findings without a cluster: alerts, rollback, schedules, Dagster's asset checks."""

from __future__ import annotations

import datetime
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.freshness import TimeWindowFreshnessPolicy
from hypothesis import given
from hypothesis import strategies as st

from llmops.config.catalog.load import Catalog
from llmops.config.catalog.spec import Evaluation, Gate, ModelSpec
from llmops.defs.validation.assets import results, validation_assets, validation_key
from llmops.defs.validation.jobs import JOB
from llmops.defs.validation.schedules import grouped, requests, revalidation_schedules, schedule_name
from llmops.evaluation.measurements import Measurements
from llmops.evaluation.suites import AnySuite, load_suites
from llmops.releases.ledger import Ledger, State
from llmops.releases.validations import CHECKS, CheckName, CheckResult, Finding, Validation
from llmops.rollout.revalidation.figures import judge, judged_by, result
from llmops.rollout.revalidation.validate import alert, dated, rollback_reason
from llmops.rollout.revalidation.weights import MOST_FINDINGS, findings
from tests.support.world import write_suites

NOW = datetime.datetime(2026, 11, 25, 3, tzinfo=datetime.UTC)


def spec(name: str, **automation: Any) -> ModelSpec:
    return ModelSpec.model_validate(
        {"name": name, "weights": {"repo": "a/b"}, "engine": {"version": "1.0"}, "automation": automation}
    )


def finding(subject: str, severity: Any = "error") -> Finding:
    return Finding(subject=subject, severity=severity, message=f"{subject} is wrong", remedy="mend it")


def check(name: CheckName, *subjects: str, value: Any = None, repaired: str = "") -> CheckResult:
    return CheckResult(
        check=name,
        value=value or ("Failed" if subjects else "Passed"),
        line=f"{name} line",
        findings=tuple(map(finding, subjects)),
        repaired=repaired,
    )


def validation(*checks: CheckResult, release: str = "r1", run: str = "run-1") -> Validation:
    return Validation(
        model="m", release=release, run=run, requested_by="a test", started=NOW, finished=NOW, checks=checks
    )


# Figures


def measured(right: int, *, total: int = 20, **figures: float) -> Measurements:
    scores = {f"case-{n}": float(n < right) for n in range(total)}
    return Measurements(
        suites={"sums": "a" * 64},
        figures={"sums/score": right / total, "sums/error_rate": 0.0, "all/score": right / total, **figures},
        cases={"sums": total},
        scores={"sums": scores},
    )


RELATIVE = Evaluation(suites=("sums",), gates=(Gate(metric="sums/score", max_drop=0.03),))


def test_equal_scores_pass_however_few_the_cases_and_worse_ones_do_not() -> None:
    assert judge(RELATIVE, measured(19), measured(19)).value == "Passed"
    assert "19" not in judge(RELATIVE, measured(19), measured(19)).reason
    assert judge(RELATIVE, measured(20), measured(19)).value == "Passed"
    worse = judge(RELATIVE, measured(10), measured(19))
    assert worse.value == "Failed"
    assert [(gate.metric, gate.rule) for gate in worse.gates if gate.outcome == "Failed"] == [
        ("sums/score", "max_drop")
    ]
    assert judge(RELATIVE, measured(17), measured(19)).value == "Inconclusive", "two of twenty may be an accident"


def test_a_dry_gate_makes_no_finding() -> None:
    dry = Evaluation(suites=("sums",), gates=(Gate(metric="sums/score", min=0.9, dry=True),))
    verdict = judge(dry, measured(10), None)
    assert verdict.value == "Passed"
    assert result("m", verdict, measured(10), left_out=[], changed=[]).findings == ()


def test_a_failed_gate_makes_a_finding_and_a_changed_suite_prevents_passed() -> None:
    floor = Evaluation(suites=("sums",), gates=(Gate(metric="sums/score", min=0.9), Gate(metric="sums/score", min=0.1)))
    failed = result("m", judge(floor, measured(10), None), measured(10), left_out=["load/p95_ttft_ms"], changed=[])
    assert (failed.value, [finding.subject for finding in failed.findings]) == ("Failed", ["sums/score min"])
    assert "llmops rollback m" in failed.findings[0].remedy
    assert "load/p95_ttft_ms" in failed.line
    good = judge(floor, measured(20), None)
    assert result("m", good, measured(20), left_out=[], changed=[]).value == "Passed"
    unsure = result("m", good, measured(20), left_out=[], changed=["other"])
    assert (unsure.value, unsure.findings) == ("Inconclusive", ())


@pytest.fixture
def suites(tmp_path: Any) -> tuple[AnySuite, ...]:
    write_suites(tmp_path)
    return load_suites(tmp_path, ("sums", "load"))


def test_gates_that_cannot_judge_stable_are_left_out(suites: tuple[AnySuite, ...]) -> None:
    gates = (
        Gate(metric="sums/score", min=0.5),
        Gate(metric="sums/score", max_drop=0.03),
        Gate(metric="all/score", max_drop=0.03),
        Gate(metric="load/error_rate", max=0.01),
        Gate(metric="load/p95_ttft_ms", max_ratio=2),
        Gate(metric="load/output_throughput", max_drop=5),
    )
    evaluation = Evaluation(suites=("sums", "load"), gates=gates)
    kept, left_out = judged_by(evaluation, suites, measured(20))
    assert kept.gates == gates[:4]
    assert left_out == ["load/p95_ttft_ms", "load/output_throughput"]
    # Without the trial's scores by case, relative gates have nothing to compare with.
    thin = measured(20).model_copy(update={"scores": {}})
    assert judged_by(evaluation, suites, thin)[0].gates == (gates[0], gates[3])
    # A changed suite takes its own gates with it, and those over all suites.
    only_load, left_out = judged_by(evaluation, suites[1:], measured(20))
    assert (only_load.gates, only_load.suites) == ((gates[3],), ("load",))
    assert len(left_out) == 5


# Alerts and rollback


def test_consecutive_validations_with_the_same_finding_make_one_alert() -> None:
    first = dated(check("weights", "a"), None, "r1", "run-1")
    assert [finding.since for finding in first.findings] == ["run-1"]
    before = validation(first)
    second = dated(check("weights", "a", "b"), before, "r1", "run-2")
    assert [finding.since for finding in second.findings] == ["run-1", "run-2"]
    ids = [alert(validation(result), result, result.findings[0], "r1").id for result in (first, second)]
    assert ids[0] == ids[1]
    assert alert(validation(second), second, second.findings[1], "r1").id != ids[0]
    # The finding was gone or repaired in between, or is of another release: it is new.
    gone = validation(check("weights"))
    repaired = validation(dated(check("weights", "a", repaired="done"), None, "r1", "run-1"))
    for other, release in ((gone, "r1"), (repaired, "r1"), (before, "r2")):
        assert dated(check("weights", "a"), other, release, "run-3").findings[0].since == "run-3"


def test_an_alert_has_the_remedy_or_the_repair() -> None:
    failed = check("weights", "a")
    error = alert(validation(failed), failed, failed.findings[0], "r0")
    assert (error.kind, error.severity, error.serving) == ("validation_finding", "error", "r0")
    assert error.line == "m r1, weights: a is wrong. mend it"
    repaired = check("weights", "a", repaired="downloaded again")
    warning = alert(validation(repaired), repaired, repaired.findings[0], "r0")
    assert (warning.severity, warning.line) == ("warning", "m r1, weights: a is wrong. downloaded again")


@pytest.mark.parametrize(
    ("checks", "rolls_back"),
    [
        ((check("figures", "a"), check("drift")), True),
        ((check("figures"), check("drift")), False),
        ((check("figures", value="Inconclusive"), check("drift")), False),
        # Somebody changed the objects: the figures are not the release's.
        ((check("figures", "a"), check("drift", "image")), False),
        ((check("figures", "a"), check("drift", value="Inconclusive")), False),
        ((check("figures", "a"),), False),
        ((check("weights", "a"), check("drift")), False),
    ],
)
def test_only_a_failed_release_that_runs_as_promoted_is_rolled_back(
    checks: tuple[CheckResult, ...], rolls_back: bool
) -> None:
    assert (rollback_reason(validation(*checks)) is not None) is rolls_back


def test_a_warning_of_drift_does_not_prevent_a_rollback() -> None:
    drift = CheckResult(check="drift", value="Failed", line="", findings=(finding("replicas", "warning"),))
    assert rollback_reason(validation(check("figures", "a"), drift)) == "figures line"


def test_wrong_files_beyond_the_limit_share_one_finding() -> None:
    problems = [{"path": f"f{n}", "kind": "altered", "expected": "x", "found": "y"} for n in range(MOST_FINDINGS + 5)]
    named = findings("weights/m/k", problems, left_out=7, remedy="fetch it")
    assert len(named) == MOST_FINDINGS + 1
    assert (named[-1].subject, named[-1].message) == ("weights/m/k", "12 more files are wrong")
    extra = findings("weights/m/k", [problems[0] | {"kind": "extra"}, problems[1]], left_out=0, remedy="fetch it")
    assert [finding.severity for finding in extra] == ["warning", "error"]


# Dagster


def test_only_a_conclusive_validation_of_every_check_is_a_materialization() -> None:
    def kept(*checks: CheckResult) -> tuple[dict[str, tuple[bool, str]], bool]:
        yielded = list(results(validation(*checks), materialized=True))
        evaluations = [event for event in yielded if isinstance(event, dg.AssetCheckResult)]
        assert all(event.asset_key == validation_key("m") for event in yielded)
        by_name = {str(event.check_name): (event.passed, event.severity.value) for event in evaluations}
        return by_name, len(yielded) > len(evaluations)

    good = [check(name) for name in CHECKS]
    assert kept(*good) == (dict.fromkeys(CHECKS, (True, "WARN")), True)
    assert kept(check("weights", "a"), *good[1:])[1]
    assert kept(check("weights", "a"), *good[1:])[0]["weights"] == (False, "ERROR")
    assert kept(check("weights", "a", repaired="done"), *good[1:])[0]["weights"] == (False, "WARN")
    assert kept(check("weights", value="Inconclusive"), *good[1:]) == (
        dict.fromkeys(CHECKS, (True, "WARN")) | {"weights": (False, "WARN")},
        False,
    )
    assert not kept(good[0])[1], "one check alone is no validation"


def catalog(*specs: ModelSpec) -> Catalog:
    return {model.name: model for model in specs}


def test_each_model_has_an_asset_with_checks_and_a_freshness_policy() -> None:
    assets = validation_assets(catalog(spec("a"), spec("b", validation_max_age_hours=3)))
    assert {key.to_user_string() for key in assets.keys} == {"validation/a", "validation/b"}
    assert {(key.asset_key.path[-1], key.name) for key in assets.check_keys} == {
        (model, name) for model in "ab" for name in CHECKS
    }
    hours: dict[str, float] = {}
    for asset in assets.specs:
        policy = asset.freshness_policy
        assert isinstance(policy, TimeWindowFreshnessPolicy)
        hours[asset.key.path[-1]] = policy.fail_window.to_timedelta() / datetime.timedelta(hours=1)
    assert hours == {"a": 50, "b": 3}


def test_models_with_the_same_time_and_zone_share_a_schedule() -> None:
    models = catalog(
        spec("a"),
        spec("b", timezone="Europe/Berlin"),
        spec("c"),
        spec("d", revalidate=None),
        spec("e", revalidate="*/5 1-2 * * *"),
    )
    assert grouped(models) == {
        ("0 3 * * *", "UTC"): ["a", "c"],
        ("0 3 * * *", "Europe/Berlin"): ["b"],
        ("*/5 1-2 * * *", "UTC"): ["e"],
    }
    schedules = revalidation_schedules(models, job_name=JOB)
    assert [(schedule.name, schedule.execution_timezone, schedule.default_status) for schedule in schedules] == [
        ("revalidation_0_3_x_x_x_UTC", "UTC", dg.DefaultScheduleStatus.RUNNING),
        ("revalidation_0_3_x_x_x_Europe_Berlin", "Europe/Berlin", dg.DefaultScheduleStatus.RUNNING),
        ("revalidation_x_per_5_1_to_2_x_x_x_UTC", "UTC", dg.DefaultScheduleStatus.RUNNING),
    ]


@given(st.lists(st.sampled_from(["0", "5", "*", "*/5", "1-2", "1,2", "2-3/4"]), min_size=5, max_size=5).map(" ".join))
def test_two_times_never_share_a_name(cron: str) -> None:
    name = schedule_name(cron, "UTC")
    assert name.replace("_", "").isalnum()
    others = ["0 3 * * *", "*/5 * * * *", "1-2 * * * *", "1,2 * * * *"]
    same_name = [other for other in others if schedule_name(other, "UTC") == name]
    assert same_name == [other for other in others if other == cron]


def test_a_schedule_skips_models_without_a_stable_release_unless_states_are_unknown() -> None:
    known = {"a": Ledger(state=State(stable="r1")), "b": Ledger()}
    asked = list(requests(["a", "b", "c"], known, "nightly", "2026-11-25T03:00:00"))
    assert [request.asset_selection for request in asked] == [[validation_key("a")]]
    assert asked[0].run_key == "nightly:a:2026-11-25T03:00:00"
    assert asked[0].tags["llmops.dev/requested-by"] == "schedule nightly"
    assert len(list(requests(["a", "b", "c"], None, "nightly", "t"))) == 3
