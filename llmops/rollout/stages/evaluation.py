"""Stage 5: run the suites against the canary, and let the gates decide."""

import datetime
from collections.abc import Callable

from llmops.clients.kubernetes.client import Cluster
from llmops.config import names
from llmops.config.catalog.spec import Evaluation
from llmops.costs.prices import load_prices
from llmops.costs.pricing import judges_cost, priced, profile_of, replica_price
from llmops.errors import MeasurementFailed
from llmops.evaluation.backends.base import Suites, Target
from llmops.evaluation.gates.offline import asking, compares_figures, decide
from llmops.evaluation.measurements import Measurements
from llmops.evaluation.report import markdown as report
from llmops.evaluation.report import plots
from llmops.evaluation.report.failing import failing_cases
from llmops.evaluation.suites import FidelitySuite, ProtocolSuite, load_suites, with_unnamed
from llmops.releases.release import Release
from llmops.releases.sameness import declared_changes
from llmops.rollout.ops.crashes import check_alive, restarts_of, wait_for_crash
from llmops.rollout.ops.measured import as_released
from llmops.rollout.ops.measuring import backend_of
from llmops.rollout.ops.reporting import report_link
from llmops.rollout.ops.routing.traffic_split import ready_replicas
from llmops.rollout.outcomes import CanaryOutcome, EvaluationOutcome
from llmops.rollout.shown import Done, Markdown, Value, numbers
from llmops.rollout.trial import Trial

GPU_SECONDS = "trial/gpu_seconds"
# The UI plots these figures over releases; the tables have the others.
PLOTTED = (
    "score",
    "error_rate",
    *(f"{percentile}_{latency}_ms" for latency in ("ttft", "tpot", "e2el") for percentile in ("p50", "p95")),
    "output_throughput",
    "request_throughput",
    "usd_per_million_tokens",
    "divergence",
    "gpu_seconds",
)


def run(current: Trial, canary: CanaryOutcome) -> Done[EvaluationOutcome]:
    """Measure the canary, and stable if a gate is relative. A release that does not pass ends its trial here."""
    outcome = _evaluate(current, current.load(canary.release))
    verdict = outcome.verdict
    current.log(f"{verdict.value}: {verdict.reason}")
    if verdict.value != "Passed":
        current.conclude(current.decide(verdict.value), verdict.reason, figures=outcome.canary.figures)
    # The report shows the duration of this stage.
    current.clock()
    link = report_link(current.platform, outcome.model, outcome.release, outcome)
    return Done(outcome, _shown(outcome) | link)


def _evaluate(current: Trial, release: Release) -> EvaluationOutcome:
    before = current.records.outcome(release.model, release.id, "evaluation", EvaluationOutcome)
    if before and before.verdict.value == "Passed":
        current.log(f"{release.model} {release.id} already passed its evaluation: {before.verdict.reason}")
        return before
    named = load_suites(current.settings.evals_dir, release.evaluation.suites, current.settings.catalog_allows)
    suites = with_unnamed(named, release.evaluation)
    stable_id = current.records.proven_state(release.model).stable
    against = _against(current, release, suites, stable_id)
    spec = _asking(current, release, suites, against)
    # Where the protocol alone is compared, whatever serves users today is good enough to compare with.
    judged_by = against if against and compares_figures(spec, suites) else None
    targets = [Target(release, "canary"), *([Target(judged_by, "stable")] if judged_by else [])]
    cluster, when, restarts = current.cluster, "during the evaluation", restarts_of(current.cluster, release, "canary")
    with as_released(current, *targets):
        try:
            measured, stable = _measure(current, release, suites, against, spec)
        except MeasurementFailed:
            # To a client, a crashed engine looks like an unreachable one.
            wait_for_crash(cluster, release, "canary", when, before=restarts)
            raise
        check_alive(cluster, release, "canary", when, before=restarts)
    measured = _with_gpu_seconds(cluster, release, measured)
    verdict = decide(spec, measured, stable)
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
    current: Trial, release: Release, suites: Suites, against: Release | None, spec: Evaluation
) -> tuple[Measurements, Measurements | None]:
    target = Target(release, "canary")
    # Before the long measurement, so that a missing price fails at once.
    with_cost = _with_cost(current, suites, release, against)
    backend = backend_of(current, target)
    if against is None:
        return with_cost(backend.measure(target, suites, spec), release), None
    figures = compares_figures(spec, suites)
    how = "on the same cases, in turns under load" if figures else "by its protocol alone: no gate compares figures"
    current.log(f"comparing with stable {against.id} {how}")
    measured, stable = backend.compare(target, Target(against, "stable"), suites, spec)
    return with_cost(measured, release), with_cost(stable, against) if figures else stable


def _with_gpu_seconds(cluster: Cluster, release: Release, measured: Measurements) -> Measurements:
    """Add what the verdict has cost: GPU seconds of the canary, from its creation to now."""
    canary = cluster.get("Deployment", names.engine_name(release.model, "canary"))
    if canary is None:
        return measured
    created = datetime.datetime.fromisoformat(canary["metadata"]["creationTimestamp"])
    seconds = (datetime.datetime.now(datetime.UTC) - created).total_seconds()
    spent = max(0.0, seconds) * int(canary["spec"].get("replicas", 1)) * release.gpu.count
    return measured.model_copy(update={"figures": measured.figures | {GPU_SECONDS: round(spent, 1)}})


def _against(current: Trial, release: Release, suites: Suites, stable: str | None) -> Release | None:
    """What the canary is compared with, if anything is. No entry asks for the comparison of the protocol, so a stable
    that serves nobody keeps no release from its users by it."""
    if stable is None:
        return None
    if not compares_figures(release.evaluation, suites):
        if not any(isinstance(suite, ProtocolSuite) for suite in suites):
            return None
        if not ready_replicas(current.cluster, release.model)[0]:
            current.log("stable has no ready replica: the canary's protocol is compared with nothing")
            return None
    return current.records.release(release.model, stable)


def _asking(current: Trial, release: Release, suites: Suites, against: Release | None) -> Evaluation:
    """The evaluation, with the question whether the canary is the same model as stable if its pins say so."""
    declared = declared_changes(against, release) if against else []
    if declared and any(isinstance(suite, FidelitySuite) for suite in suites):
        current.log(f"the release changes {', '.join(declared)}: fidelity is reported, and quality gates decide")
    return asking(release.evaluation, suites, same=against is not None and not declared)


def _with_cost(
    current: Trial, suites: Suites, release: Release, against: Release | None
) -> Callable[[Measurements, Release], Measurements]:
    """A function that adds the cost to a release's measurements, if a gate judges the cost."""
    if not judges_cost(release):
        return lambda measured, of: measured
    profile, prices = profile_of(suites), load_prices(current.settings.prices)
    price_by_release = {of.id: replica_price(prices, of.gpu) for of in (release, against) if of}
    return lambda measured, of: priced(measured, profile, price_by_release[of.id])


def _shown(outcome: EvaluationOutcome) -> dict[str, Value]:
    """Figures as numbers, which the UI plots over time; tables and plots of this evaluation."""
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
