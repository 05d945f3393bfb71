"""Stage 5: the suites are run against the canary, and the gates decide."""

from collections.abc import Callable

from llmops.costs.prices import load_prices
from llmops.costs.pricing import judges_cost, priced, profile_of, replica_price
from llmops.errors import MeasurementFailed
from llmops.evaluation.backends.base import Suites, Target
from llmops.evaluation.gates.offline import decide
from llmops.evaluation.measurements import Measurements
from llmops.evaluation.report import markdown as report
from llmops.evaluation.report import plots
from llmops.evaluation.report.failing import failing_cases
from llmops.evaluation.suites import load_suites
from llmops.releases.release import Release
from llmops.rollout.ops.crashes import check_alive, restarts_of, wait_for_crash
from llmops.rollout.ops.measured import as_released
from llmops.rollout.ops.measuring import backend_of
from llmops.rollout.ops.reporting import report_link
from llmops.rollout.outcomes import CanaryOutcome, EvaluationOutcome
from llmops.rollout.shown import Done, Markdown, Value, numbers
from llmops.rollout.trial import Trial

# Figures that the UI plots over releases; the others are in the tables.
PLOTTED = (
    "score",
    "error_rate",
    *(f"{percentile}_{latency}_ms" for latency in ("ttft", "tpot", "e2el") for percentile in ("p50", "p95")),
    "output_throughput",
    "request_throughput",
    "usd_per_million_tokens",
)


def run(current: Trial, canary: CanaryOutcome) -> Done[EvaluationOutcome]:
    """Measure the canary, and stable where a gate compares; a release that does not pass ends its trial here."""
    outcome = _evaluate(current, current.load(canary.release))
    verdict = outcome.verdict
    current.log(f"{verdict.value}: {verdict.reason}")
    if verdict.value != "Passed":
        current.conclude(current.decide(verdict.value), verdict.reason, figures=outcome.canary.figures)
    # The report tells it.
    current.clock()
    link = report_link(current.platform, outcome.model, outcome.release, outcome)
    return Done(outcome, _shown(outcome) | link)


def _evaluate(current: Trial, release: Release) -> EvaluationOutcome:
    before = current.records.outcome(release.model, release.id, "evaluation", EvaluationOutcome)
    if before and before.verdict.value == "Passed":
        current.log(f"{release.model} {release.id} has passed already: {before.verdict.reason}")
        return before
    suites = load_suites(current.settings.evals_dir, release.evaluation.suites)
    stable_id = current.records.proven_state(release.model).stable
    against = current.records.release(release.model, stable_id) if stable_id and _compares(release) else None
    targets = [Target(release, "canary"), *([Target(against, "stable")] if against else [])]
    cluster, when, restarts = current.cluster, "during the evaluation", restarts_of(current.cluster, release, "canary")
    with as_released(current, *targets):
        try:
            measured, stable = _measure(current, release, suites, against)
        except MeasurementFailed:
            # An engine that died looks to its clients like one that cannot be reached.
            wait_for_crash(cluster, release, "canary", when, before=restarts)
            raise
        check_alive(cluster, release, "canary", when, before=restarts)
    verdict = decide(release.evaluation, measured, stable)
    outcome = EvaluationOutcome(
        model=release.model,
        release=release.id,
        verdict=verdict,
        canary=measured,
        stable=stable,
        against=stable_id,
        failing=tuple(failing_cases(suites, measured, stable)),
    )
    return outcome.fitted()


def _measure(
    current: Trial, release: Release, suites: Suites, against: Release | None
) -> tuple[Measurements, Measurements | None]:
    spec, target = release.evaluation, Target(release, "canary")
    # Before the measurement, which takes long: a price that is missing is told of now.
    with_cost = _with_cost(current, suites, release, against)
    backend = backend_of(current, target)
    if against is None:
        return with_cost(backend.measure(target, suites, spec), release), None
    current.log(f"compared with stable {against.id} on the same cases, and in turns under load")
    measured, stable = backend.compare(target, Target(against, "stable"), suites, spec)
    return with_cost(measured, release), with_cost(stable, against)


def _compares(release: Release) -> bool:
    return any(gate.relative for gate in release.evaluation.gates)


def _with_cost(
    current: Trial, suites: Suites, release: Release, against: Release | None
) -> Callable[[Measurements, Release], Measurements]:
    """What adds its cost to what was measured of a release, where a gate is on it."""
    if not judges_cost(release):
        return lambda measured, of: measured
    profile, prices = profile_of(suites), load_prices(current.settings.prices)
    each = {of.id: replica_price(prices, of.gpu) for of in (release, against) if of}
    return lambda measured, of: priced(measured, profile, each[of.id])


def _shown(outcome: EvaluationOutcome) -> dict[str, Value]:
    """Figures as numbers, to be plotted over time; tables and plots for this one."""
    images = {"scores": plots.score_plot(outcome.canary, outcome.stable)}
    images |= {
        f"ttft_{suite.replace('-', '_')}": plots.latency_plot(outcome.canary, outcome.stable, suite)
        for suite, samples in outcome.canary.samples.items()
        if "ttft" in samples
    }
    plotted = {
        name: value for name, value in sorted(outcome.canary.figures.items()) if name.rpartition("/")[2] in PLOTTED
    }
    return {
        "verdict": outcome.verdict.value,
        "reason": outcome.verdict.reason,
        "gates": Markdown(report.gate_table(outcome.verdict)),
        "report": Markdown(report.report(outcome.verdict, outcome.canary, outcome.stable)),
        **{name: Markdown(plots.markdown_image(png)) for name, png in images.items()},
        **numbers(plotted),
    }
