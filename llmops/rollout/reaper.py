"""The reaper clears up after dead runs: it removes the canary, gives stable its lent replica back, undoes a promotion.

The cluster decides whether a run is dead, since Dagster's database may be yesterday's, and the run another Dagster's. A
live run renews its model's lease. If this Dagster knows that a run has ended, the reaper only watches for a renewal.
Any other run whose lease has run out may resume: it has a few minutes for that. The reaper takes the lease before it
touches anything, so it never touches what belongs to a live run.
"""

from __future__ import annotations

import datetime as dt
import secrets
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

from llmops.alerts.outbox import Alert, alert_id
from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.lease import LeaseHeld, run_out
from llmops.clients.kubernetes.progress import has_condition
from llmops.config import names
from llmops.errors import LlmopsError
from llmops.manifests.evaluation import COMPONENT as EVALUATION
from llmops.releases.records import Record, State
from llmops.rollout.decision import DECISIONS
from llmops.rollout.ending import end_trial, leave_event, put_alert, tell_verdict
from llmops.rollout.ops.cleanup import lent_by, recover, release_of, remove_canary, settle
from llmops.rollout.ops.serving import what_serves
from llmops.rollout.outcomes import EvaluationOutcome
from llmops.rollout.platform import Platform

GRACE = dt.timedelta(minutes=5)
"""How long after its lease has run out a run may still resume: Dagster looks at its runs every two minutes."""
HOLDER = "reaper"

Act = Literal["leave", "wait", "reap"]
Log = Callable[[str], None]


@dataclass(frozen=True)
class Remains:
    """What the cluster has of a model's rollout.

    Args:
        model: Name of the model.
        holder: Holder of its lease.
        until: When the lease runs out, or has run out.
        handed_over: The lease waits for the run's next stage; nobody renews it meanwhile.
        temporary: Objects that only a trial needs, as kind and name.
        expires: When the last of them expires.
        lent: Replicas that stable lends.
        deployed: Release of the main Deployment.
        stable: Release that was promoted last.
        candidate: Release of the current trial, or of the last one.
        canary_percent: Share of users' requests that goes to the canary, by the model's state.
    """

    model: str
    holder: str | None = None
    until: dt.datetime | None = None
    handed_over: bool = False
    temporary: tuple[tuple[str, str], ...] = ()
    expires: dt.datetime | None = None
    lent: int = 0
    deployed: str | None = None
    stable: str | None = None
    candidate: str | None = None
    canary_percent: int = 0

    @property
    def unfinished(self) -> tuple[str, ...]:
        """What a model between two rollouts does not have, in words."""
        leftovers = [f"{kind} {name}" for kind, name in self.temporary]
        if self.lent:
            leftovers.append(f"{self.lent} replica of stable lent")
        if self.deployed not in (None, self.stable):
            leftovers.append(f"Deployment at {self.deployed}, which is not stable")
        if self.canary_percent:
            leftovers.append(f"{self.canary_percent}% of users' requests go to a canary")
        if self.holder:
            leftovers.append(f"lease of {self.holder}")
        return tuple(leftovers)


@dataclass(frozen=True)
class Decision:
    """What the reaper does about a model, and why: in one CamelCase word, and for people."""

    act: Act
    code: str
    why: str


def decide(remains: Remains, now: dt.datetime, ended: bool) -> Decision:
    """Whether a model has remains of a dead run.

    Args:
        remains: What the cluster has.
        now: The time.
        ended: Whether the holder of the lease has ended for certain.
    """
    if not remains.unfinished:
        return Decision("leave", "NothingLeft", "nothing is left of any rollout")
    if remains.holder is None or remains.until is None:
        return Decision("reap", "NoHolder", "no run holds the model's lease")
    live = now <= remains.until
    if live and not (ended and remains.handed_over):
        return Decision("leave", "RunAtWork", f"run {remains.holder} is at work")
    if ended:
        return Decision("reap", "RunEnded", f"run {remains.holder} has ended")
    since = f"the lease of run {remains.holder} ran out at {remains.until:%Y-%m-%d %H:%M:%S} UTC"
    if remains.expires is not None and remains.expires < now:
        return Decision("reap", "ObjectsExpired", f"{since}, and its objects have expired")
    if now - remains.until > GRACE:
        return Decision("reap", "LeaseRanOut", since)
    return Decision("wait", "MayResume", f"{since}; it may resume until {remains.until + GRACE:%H:%M:%S} UTC")


@dataclass(frozen=True)
class Reaped:
    """What the reaper did about a model.

    Args:
        model: Name of the model.
        holder: The dead run; None if the lease had no holder.
        line: For people.
        record: Of the trial that the reaper ended, if one was open.
    """

    model: str
    holder: str | None
    line: str
    record: Record | None = None


def survey(cluster: Cluster, model: str | None = None) -> list[Remains]:
    """What the cluster has of all models' rollouts, or of one model's."""
    chosen = {names.MODEL_LABEL: model} if model else {}
    # Objects first, then leases: a run takes the lease before it makes an object.
    objects = [
        obj
        for kind in ("Deployment", "Service", "Job")
        for obj in cluster.list(kind, labels={"app.kubernetes.io/part-of": "llmops", **chosen})
    ]
    states = cluster.list("ConfigMap", labels={names.RECORD_LABEL: "state", **chosen})
    leases = cluster.list("Lease", labels=chosen)
    handover_seconds = cluster.settings.lease.handover_seconds
    by_model: dict[str, Remains] = {}
    for obj in (*objects, *states, *leases):
        if name := _labels(obj).get(names.MODEL_LABEL):
            by_model[name] = seen(by_model.get(name, Remains(name)), obj, handover_seconds)
    return sorted(by_model.values(), key=lambda remains: remains.model)


def seen(remains: Remains, obj: Mapping[str, Any], handover_seconds: float) -> Remains:
    """The remains, with one more object of the model."""
    kind, meta = obj["kind"], obj["metadata"]
    if kind == "Lease":
        spec = obj.get("spec") or {}
        handed_over = float(spec.get("leaseDurationSeconds") or 0) >= handover_seconds
        return replace(remains, holder=spec.get("holderIdentity"), until=run_out(obj), handed_over=handed_over)
    if kind == "ConfigMap":
        state = State.read(obj.get("data") or {})
        percent = state.canary_percent
        return replace(remains, stable=state.stable, candidate=state.candidate, canary_percent=percent)
    if _is_temporary(obj):
        ends = [end for end in (remains.expires, _expires(meta)) if end is not None]
        temporary = (*remains.temporary, (kind, meta["name"]))
        return replace(remains, temporary=temporary, expires=max(ends, default=None))
    if kind == "Deployment":
        return replace(remains, lent=lent_by(obj), deployed=release_of(obj))
    return remains


def _is_temporary(obj: Mapping[str, Any]) -> bool:
    """Whether only a trial needs the object, and nobody has ended it yet.

    Downloads and checksums stay: the next run adopts them. A finished measurement goes away by itself.
    """
    if names.RUN_LABEL not in _labels(obj) or "deletionTimestamp" in obj["metadata"]:
        return False
    if obj["kind"] != "Job":
        return True
    measures = _labels(obj).get(names.COMPONENT_LABEL) == EVALUATION
    return measures and not (has_condition(obj, "Complete") or has_condition(obj, "Failed"))


def _labels(obj: Mapping[str, Any]) -> dict[str, str]:
    return obj["metadata"].get("labels") or {}


def _expires(meta: Mapping[str, Any]) -> dt.datetime | None:
    text = (meta.get("annotations") or {}).get(names.EXPIRES_ANNOTATION)
    return dt.datetime.fromisoformat(text) if text else None


def reap(platform: Platform, remains: Remains, why: str, log: Log, *, ended: bool) -> Reaped | None:
    """Clear up after a dead run of a model; None if the run turns out to live.

    The cluster then rolls the Deployment back; this does not wait for it.

    Args:
        platform: The installation.
        remains: As `survey` gives them.
        why: Why the run is dead.
        log: Gets a line about what the reaper does.
        ended: Whether the holder of the lease has ended for certain.
    """
    model = remains.model
    try:
        with _held(platform, model, remains.holder if ended else None):
            # Another reaper, or the run itself, may have cleared up since the survey.
            now = next(iter(survey(platform.cluster, model)), Remains(model))
            done: list[str] = []
            state = recover(platform, model, done.append)
            now = replace(now, stable=state.stable, candidate=state.candidate)
            trial = platform.records.opened(model, state.candidate) if state.candidate is not None else None
            settle(
                platform,
                model,
                state,
                state.candidate,
                done.append,
                began=trial.began if trial is not None else None,
                promoting=trial is not None and trial.stage == "promotion",
                wait=False,
            )
            remove_canary(platform, model, log=done.append)
            for kind, name in now.temporary:
                platform.cluster.delete(kind, name)
                done.append(f"{kind} {name} removed")
            if now.lent:
                done.append(f"{now.lent} replica given back to stable")
            record = _end_trial(platform, now, why)
    except LeaseHeld as held:
        log(f"{model}: the reaper changes nothing: {held.message}")
        return None
    line = f"{model}: {why}; {', '.join(done) or 'its lease is free again'}"
    serving = platform.records.state(model).stable
    log(f"{line} ({what_serves(platform.records, model)})")
    if record is not None:
        tell_verdict(platform, record, log)
    elif done:
        leave_event(platform, model, "RunDied", line, "Warning", log)
        alert = Alert(
            id=alert_id("run_failed", model, remains.holder or line),
            kind="run_failed",
            severity="error",
            model=model,
            line=line,
            serving=serving,
            run=remains.holder or "",
            at=dt.datetime.now(dt.UTC),
        )
        put_alert(platform, alert, log)
    return Reaped(model, remains.holder, line, record)


@contextmanager
def _held(platform: Platform, model: str, ended: str | None) -> Generator[None]:
    """Hold the model's lease during the block."""
    lease = platform.leases.of(model, f"{HOLDER}-{secrets.token_hex(4)}", ended=ended)
    try:
        lease.acquire()
        yield
    finally:
        platform.leases.free(model)


def _end_trial(platform: Platform, remains: Remains, why: str) -> Record | None:
    """Record the end of the dead run's trial; None if no trial is open."""
    records, model, candidate = platform.records, remains.model, remains.candidate
    trial = records.opened(model, candidate) if candidate is not None else None
    if candidate is None or trial is None:
        return None
    release = records.release(model, candidate)
    if remains.stable != candidate:
        return end_trial(platform, release, trial, DECISIONS["died"], f"the run died: {why}")
    # Promoted, proven and watched: the run died just before it recorded that.
    reason, figures = "its run died after the promotion", None
    if (evaluated := records.outcome(model, candidate, "evaluation", EvaluationOutcome)) is not None:
        reason, figures = f"{evaluated.verdict.reason}; {reason}", evaluated.canary.figures
    return end_trial(platform, release, trial, DECISIONS["died promoted"], reason, figures=figures)


def decisions(platform: Platform, ended: Callable[[str], bool]) -> list[tuple[Remains, Decision]]:
    """What the reaper would do about each model now.

    Args:
        platform: The installation.
        ended: Whether a run has ended for certain.
    """
    now = dt.datetime.now(dt.UTC)
    return [(remains, decide(remains, now, _over(remains, ended))) for remains in survey(platform.cluster)]


def _over(remains: Remains, ended: Callable[[str], bool]) -> bool:
    return remains.holder is not None and ended(remains.holder)


def reap_all(
    platform: Platform,
    log: Log,
    *,
    ended: Callable[[str], bool],
    enough: Callable[[], bool] = lambda: False,
) -> Iterator[Reaped]:
    """Clear up after the dead runs of all models, one after the other. A failure for one model does not stop the rest.

    Args:
        platform: The installation.
        log: Gets a line about each model that the reaper changes or waits for.
        ended: Whether a run has ended for certain.
        enough: Called before each model: whether to leave the rest to the next call.

    Raises:
        LlmopsError: It failed for a model; the next call tries again.
    """
    failed: list[LlmopsError] = []
    for remains, decision in decisions(platform, ended):
        if decision.act == "wait":
            log(f"{remains.model}: {decision.why} ({', '.join(remains.unfinished)})")
        if decision.act != "reap":
            continue
        if enough():
            break
        try:
            reaped = reap(platform, remains, decision.why, log, ended=_over(remains, ended))
        except LlmopsError as error:
            log(f"{remains.model}: the reaper could not clear up after a dead run: {error}")
            failed.append(error)
            continue
        if reaped is not None:
            yield reaped
    if failed:
        raise failed[0]
