"""Stage 6: move users to the release in steps. Gates on figures from Prometheus judge each step."""

import datetime
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress

from llmops.clients.kubernetes.wait import wait_for_rollout
from llmops.clients.prometheus import Prometheus
from llmops.config import names
from llmops.config.catalog.traffic import TrafficStep, canary_replicas
from llmops.config.steps import Step, reached
from llmops.errors import ClusterCannot, MeasurementFailed, Unavailable
from llmops.evaluation.backends.base import Target
from llmops.evaluation.gates.live.judge import (
    Course,
    Promise,
    StepSamples,
    decide,
    figures_of,
    judge,
    rejects_at_once,
)
from llmops.evaluation.gates.live.queries import Subject
from llmops.evaluation.gates.live.steps import SHOWN, Point, StepOutcome, served, step_table, thinned
from llmops.evaluation.gates.verdict import Verdict, verdict_of
from llmops.evaluation.report.plots import live_plot, markdown_image
from llmops.manifests.engine import objects, progress_seconds
from llmops.preflight.capacity import replica, slots
from llmops.preflight.growth import growth
from llmops.preflight.snapshot import take_snapshot
from llmops.releases.release import Release
from llmops.rollout.ops.cleanup import CANARY_LIFETIME
from llmops.rollout.ops.crashes import Restarts, check_alive, restarts_of
from llmops.rollout.ops.measured import as_released
from llmops.rollout.ops.routing.scrapes import Scrapes
from llmops.rollout.ops.routing.traffic_split import Way, ready_replicas, shift, way_of
from llmops.rollout.outcomes import CanaryOutcome, EvaluationOutcome, TrafficOutcome
from llmops.rollout.shown import Done, Markdown, Value, numbers
from llmops.rollout.trial import Trial

WHEN = "while it served users"
# Seconds between two checks for a crashed canary.
POLL_SECONDS = 1.0
# Seconds between two looks at the figures. A look may reject the release; it costs the verdict nothing.
LOOK_SECONDS = 5.0


def run(current: Trial, evaluation: EvaluationOutcome) -> Done[TrafficOutcome]:
    """Move users in steps. A release that does not pass a step ends its trial here."""
    release = current.load(evaluation.release)
    outcome = _move(current, release)
    verdict = outcome.verdict
    current.log(f"{verdict.value}: {verdict.reason}")
    if verdict.value != "Passed":
        figures = evaluation.canary.figures | outcome.figures
        current.conclude(current.decide(verdict.value), verdict.reason, figures=figures)
    return Done(outcome, _shown(outcome))


def _move(current: Trial, release: Release) -> TrafficOutcome:
    before = current.records.outcome(release.model, release.id, "traffic", TrafficOutcome)
    if before and before.verdict.value == "Passed":
        current.log(f"{release.model} {release.id} already passed its traffic steps: {before.verdict.reason}")
        return before
    state = current.records.proven_state(release.model)
    if not release.traffic.steps:
        return _passed(release, "the entry declares no traffic steps")
    if state.stable is None:
        return _passed(release, "there is no stable release, so there are no users to move: skipping traffic steps")
    ready, replicas = ready_replicas(current.cluster, release.model)
    if not ready:
        return _passed(release, "stable has no ready replica: skipping traffic steps")
    way = way_of(current.spec, current.settings)
    if way is None:
        raise ClusterCannot(
            f"{release.model} declares traffic.steps, but this installation cannot split its users' requests",
            code="NoTrafficSplit",
            about=release.model,
            remedy="Enable the router in the settings, or declare the model's exposure.",
        )
    # Repeat the step at which an earlier run was killed, and judge it again. Skip the steps before it.
    steps = release.traffic.steps
    reached = next((index for index, step in enumerate(steps) if step.percent >= state.canary_percent), 0)
    if steps[reached].percent == 100:
        # The last step compares with stable's figures from the step before.
        reached = max(0, reached - 1)
    remaining = steps[reached:]
    if state.canary_percent:
        current.log(f"{release.model}: continuing at {state.canary_percent}%, which an earlier run reached")
    _check_room(current, release, remaining, replicas)
    return _Steps(current, release, way, state.stable, replicas).take(remaining)


def _passed(release: Release, reason: str) -> TrafficOutcome:
    return TrafficOutcome(model=release.model, release=release.id, verdict=verdict_of((), held=reason))


def _check_room(current: Trial, release: Release, steps: Sequence[TrafficStep], replicas: int) -> None:
    """Check before the first step that the canary can get the replicas of its largest share.

    Raises:
        ClusterCannot: The cluster lacks room for them (code NoRoomForCanary).
    """
    name = names.engine_name(release.model, "canary")
    canary = current.cluster.get("Deployment", name)
    existing = int(canary["spec"].get("replicas", 1)) if canary is not None else 0
    percent = steps[-1].percent
    needed = canary_replicas(percent, replicas)
    snapshot = take_snapshot(current.cluster, current.spec, current.settings)
    free = slots(replica(current.spec), snapshot.nodes, snapshot.pods)
    if needed - existing > free and not growth(replica(current.spec), snapshot).may:
        raise ClusterCannot(
            f"Deployment {name} needs {needed} replicas for {percent}% of the users, beside the {replicas} of stable. "
            f"It has {existing}, and the cluster has room for {free} more.",
            code="NoRoomForCanary",
            about=f"Deployment {name}",
            remedy="Free or add such nodes, or end traffic.steps at a smaller percentage: the promotion moves the "
            "other users.",
        )


class _Steps:
    """Takes the traffic steps of one release."""

    def __init__(self, current: Trial, release: Release, way: Way, stable: str, replicas: int) -> None:
        self._current = current
        self._release = release
        self._way: Way = way
        self._stable = stable
        self._replicas = replicas
        self._started = time.monotonic()
        self._measured: list[StepSamples] = []

    def take(self, steps: Sequence[TrafficStep]) -> TrafficOutcome:
        """Take steps until one does not pass."""
        taken: list[StepOutcome] = []
        rules = self._release.traffic
        most = canary_replicas(steps[-1].percent, self._replicas)
        promise = Promise.of(rules, self._release.evaluation.confidence, len(steps), most)
        with ExitStack() as stack:
            prometheus = None
            if rules.gates:
                prometheus = stack.enter_context(Prometheus.of(self._current.settings.monitoring))
            for step in steps:
                outcome = self._step(step, prometheus, promise, last=step is steps[-1])
                taken.append(outcome)
                self._report(outcome)
                if outcome.verdict.value != "Passed":
                    return self._outcome(taken, outcome.verdict)
        percents = ", ".join(f"{step.percent}%" for step in taken)
        last = taken[-1].verdict
        reason = f"users moved in steps of {percents}; {last.reason}"
        return self._outcome(taken, last.because(reason))

    def _outcome(self, taken: list[StepOutcome], verdict: Verdict) -> TrafficOutcome:
        if verdict.value != "Passed":
            verdict = verdict.because(f"at {taken[-1].percent}% of users' requests: {verdict.reason}")
        if (requests := served(taken)) is not None:
            verdict = verdict.because(f"{verdict.reason}; it served {requests} users' requests")
        release = self._release
        return TrafficOutcome(
            model=release.model, release=release.id, verdict=verdict, way=self._way, steps=tuple(taken)
        )

    def _step(self, step: TrafficStep, prometheus: Prometheus | None, promise: Promise, *, last: bool) -> StepOutcome:
        current, release, rules = self._current, self._release, self._release.traffic
        replicas = self._scale(step)
        restarts = restarts_of(current.cluster, release, "canary")
        compares = self._compares()
        shift(current.platform, release.model, step.percent, current.log)
        line = f"{release.model}: {step.percent}% of users' requests to {release.id}, {replicas} replicas"
        current.observe(line, {"percent": step.percent, "replicas": replicas})
        reached(Step.USERS_SHIFTED, step.percent)
        began = time.monotonic()
        scrapes = self._scrapes(prometheus, step)
        verdicts: list[Verdict] = []
        points: list[Point] = []
        due = 0.0
        with as_released(current, *self._targets(compares=compares)) as check:
            self._begin(scrapes)
            while (decided := decide(rules, step, verdicts, time.monotonic() - began)) is None:
                self._bake(step, began, restarts)
                check()
                seconds = time.monotonic() - began
                compares = compares or self._compares()
                verdict, point = self._measure(scrapes, step, promise, replicas, compares=compares, last=last)
                passes = seconds >= step.bake_seconds and verdict.value == "Passed"
                if seconds < due and not passes and not rejects_at_once(rules, verdict):
                    continue
                due = seconds + rules.interval_seconds
                if seconds < step.bake_seconds:
                    due = min(due, step.bake_seconds)
                verdicts.append(verdict)
                points += [point] if point is not None else []
                current.log(f"{step.percent}%: {verdict.value}: {verdict.reason}")
        if scrapes is not None:
            self._measured.append(scrapes.samples)
        return StepOutcome(
            percent=step.percent,
            replicas=replicas,
            seconds=round(time.monotonic() - began, 2),
            verdict=decided,
            points=thinned(points),
            requests=None if scrapes is None else round(scrapes.samples.canary.together.requests),
        )

    def _compares(self) -> bool:
        """Whether there is a stable to compare with: it serves, or it served users in an earlier step."""
        served = any(step.stable is not None and step.stable.together.requests for step in self._measured)
        return served or ready_replicas(self._current.cluster, self._release.model)[0] > 0

    def _targets(self, *, compares: bool) -> Iterator[Target]:
        """The engines whose figures the gates judge."""
        yield Target(self._release, "canary")
        if compares and any(gate.relative for gate in self._release.traffic.gates):
            yield Target(self._current.records.release(self._release.model, self._stable), "stable")

    def _scale(self, step: TrafficStep) -> int:
        """Scale the canary for its next share of users, and wait until it is ready."""
        current, release = self._current, self._release
        outcome = current.records.outcome(release.model, release.id, "canary", CanaryOutcome)
        replicas = canary_replicas(step.percent, self._replicas)
        step_time = datetime.timedelta(seconds=step.bake_seconds + release.traffic.wait_seconds)
        for wanted in objects(
            release,
            current.settings,
            "canary",
            replicas,
            run=current.run,
            expires_at=datetime.datetime.now(datetime.UTC) + CANARY_LIFETIME + step_time,
            surge=outcome is None or outcome.surge,
        ):
            current.cluster.apply(wanted)
        name = names.engine_name(release.model, "canary")
        wait_for_rollout(current.cluster, name, timeout=progress_seconds(release), on_progress=current.log)
        return replicas

    def _scrapes(self, prometheus: Prometheus | None, step: TrafficStep) -> Scrapes | None:
        if prometheus is None:
            return None
        namespace, model = self._current.settings.namespace, self._release.model
        canary = Subject(namespace, model, self._release.id, "canary")
        # At 100% stable has no users.
        stable = Subject(namespace, model, self._stable, "stable") if step.percent < 100 else None
        own = {gate.metric: gate.query for gate in self._release.traffic.gates if gate.query is not None}
        return Scrapes(prometheus, canary, stable, own)

    def _bake(self, step: TrafficStep, began: float, restarts: Restarts) -> None:
        """Wait until the next look is due. A crash of the canary ends the wait at once."""
        until_judged = began + step.bake_seconds - time.monotonic()
        pause = min(self._release.traffic.interval_seconds, LOOK_SECONDS)
        if 0 < until_judged < pause:
            pause = until_judged
        due = time.monotonic() + pause
        while True:
            check_alive(self._current.cluster, self._release, "canary", WHEN, before=restarts)
            if (left := due - time.monotonic()) <= 0:
                return
            time.sleep(min(left, POLL_SECONDS))

    @staticmethod
    def _begin(scrapes: Scrapes | None) -> None:
        # Without an answer, the step's requests count from the first look that has one.
        if scrapes is not None:
            with suppress(MeasurementFailed, Unavailable):
                scrapes.look()

    def _measure(
        self,
        scrapes: Scrapes | None,
        step: TrafficStep,
        promise: Promise,
        replicas: int,
        *,
        compares: bool,
        last: bool,
    ) -> tuple[Verdict, Point | None]:
        """Judge the rollout so far. A failed measurement is Inconclusive."""
        if scrapes is None:
            return verdict_of((), held="the entry declares no gates, and no engine crashed"), None
        try:
            scrapes.look()
            course = Course((*self._measured, scrapes.samples), replicas, compares=compares, last=last)
            verdict = judge(self._release.traffic, course, promise)
        except (MeasurementFailed, Unavailable) as error:
            return verdict_of((), held="", unknown=str(error)), None
        point = Point(
            at=round(time.monotonic() - self._started, 1),
            percent=step.percent,
            canary=figures_of(course.now.together),
            stable=figures_of(course.stable_now.together),
        )
        return verdict, point

    def _report(self, step: StepOutcome) -> None:
        line = f"{self._release.model}: {step.percent}% {step.verdict.value} after {step.seconds:.0f} s: "
        figures = {f"canary_{name}": value for name, value in (step.last.canary if step.last else {}).items()}
        figures |= {f"stable_{name}": value for name, value in (step.last.stable if step.last else {}).items()}
        shown = {"percent": step.percent, "verdict": step.verdict.value, **figures}
        self._current.observe(line + step.verdict.reason, shown)


def _shown(outcome: TrafficOutcome) -> dict[str, Value]:
    shown: dict[str, Value] = {"verdict": outcome.verdict.value, "reason": outcome.verdict.reason}
    if outcome.steps:
        shown |= {"by": outcome.way or "", "steps": Markdown(step_table(outcome.steps))}
    if points := [point for step in outcome.steps for point in step.points]:
        shown |= {name: Markdown(markdown_image(live_plot(points, name))) for name in SHOWN}
    return shown | numbers(outcome.figures)
