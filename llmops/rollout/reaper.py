"""What a run left behind that is gone is cleared away: its canary, what stable lent it, a promotion half done.

Whether a run is gone is decided by the cluster. Dagster's own database may be restored from yesterday, and the run may
be another Dagster's: a run that is at work renews its model's lease. Of a run that this Dagster knows to have ended,
nothing more is waited for than a sign of life; any other, whose lease has run out, may be about to be resumed and is
given a few minutes to take it up again. The lease is taken before anything is touched, so that nothing that lives is
ever touched.
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
from llmops.rollout.outcomes import EvaluationOutcome
from llmops.rollout.platform import Platform

GRACE = dt.timedelta(minutes=5)
"""How long after its lease has run out a run may still be resumed: Dagster looks at its runs every two minutes."""
HOLDER = "reaper"

Act = Literal["leave", "wait", "reap"]
Log = Callable[[str], None]


@dataclass(frozen=True)
class Remains:
    """What the cluster shows of a model's rollout.

    Args:
        model: Name of the model.
        holder: Who holds its lease.
        until: When that runs out, or has run out.
        handed_over: The lease is kept for the run's next stage, and nobody renews it meanwhile.
        temporary: Objects that only a trial needs, as kind and name.
        expires: When the last of them is taken for forgotten.
        lent: Replicas that stable lends.
        deployed: Release that the main Deployment is at.
        stable: Release that was promoted last.
        candidate: Release under trial, or the last that was.
        canary_percent: Share of users' requests that is led to a canary, whether there is one or not.
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
        """What is there that no model has between two rollouts, in words."""
        found = [f"{kind} {name}" for kind, name in self.temporary]
        if self.lent:
            found.append(f"{self.lent} replica of stable lent")
        if self.deployed not in (None, self.stable):
            found.append(f"Deployment at {self.deployed}, which is not stable")
        if self.canary_percent:
            found.append(f"{self.canary_percent}% of users' requests led to a canary")
        if self.holder:
            found.append(f"lease of {self.holder}")
        return tuple(found)


@dataclass(frozen=True)
class Decision:
    """What is to be done about a model, and why, in a sentence without its subject's name."""

    act: Act
    why: str


def decide(remains: Remains, now: dt.datetime, ended: bool) -> Decision:
    """Whether what a model has of a rollout is a dead run's.

    Args:
        remains: What there is.
        now: The time.
        ended: Whether the holder of the lease is known to have ended.
    """
    if not remains.unfinished:
        return Decision("leave", "nothing is left of any rollout")
    if remains.holder is None or remains.until is None:
        return Decision("reap", "no run holds the model's lease")
    live = now <= remains.until
    if live and not (ended and remains.handed_over):
        return Decision("leave", f"run {remains.holder} is at work")
    if ended:
        return Decision("reap", f"run {remains.holder} has ended")
    since = f"run {remains.holder} has not been heard of since {remains.until:%Y-%m-%d %H:%M:%S} UTC"
    if remains.expires is not None and remains.expires < now:
        return Decision("reap", f"{since}, and what it made has expired")
    if now - remains.until > GRACE:
        return Decision("reap", since)
    return Decision("wait", f"{since}; it may be resumed until {remains.until + GRACE:%H:%M:%S} UTC")


@dataclass(frozen=True)
class Reaped:
    """What was done about a model.

    Args:
        model: Name of the model.
        holder: The run that was gone; None if it is not known.
        line: What a person reads of it.
        record: Of the trial that was ended, if there was one without a verdict.
    """

    model: str
    holder: str | None
    line: str
    record: Record | None = None


def survey(cluster: Cluster, model: str | None = None) -> list[Remains]:
    """Look at what the cluster has of all models' rollouts, or of one's."""
    chosen = {names.MODEL_LABEL: model} if model else {}
    # What runs make first, then their leases: whoever made something held the lease before.
    objects = [
        each
        for kind in ("Deployment", "Service", "Job")
        for each in cluster.list(kind, labels={"app.kubernetes.io/part-of": "llmops", **chosen})
    ]
    states = cluster.list("ConfigMap", labels={names.RECORD_LABEL: "state", **chosen})
    leases = cluster.list("Lease", labels=chosen)
    found: dict[str, Remains] = {}
    for each in (*objects, *states, *leases):
        if name := _labels(each).get(names.MODEL_LABEL):
            found[name] = seen(found.get(name, Remains(name)), each, cluster.settings.lease.handover_seconds)
    return sorted(found.values(), key=lambda remains: remains.model)


def seen(remains: Remains, found: Mapping[str, Any], handover_seconds: float) -> Remains:
    """What is known of a model with one more of its objects."""
    kind, meta = found["kind"], found["metadata"]
    if kind == "Lease":
        spec = found.get("spec") or {}
        handed_over = float(spec.get("leaseDurationSeconds") or 0) >= handover_seconds
        return replace(remains, holder=spec.get("holderIdentity"), until=run_out(spec), handed_over=handed_over)
    if kind == "ConfigMap":
        state = State.read(found.get("data") or {})
        percent = state.canary_percent
        return replace(remains, stable=state.stable, candidate=state.candidate, canary_percent=percent)
    if _is_temporary(found):
        ends = [each for each in (remains.expires, _expires(meta)) if each is not None]
        what = (*remains.temporary, (kind, meta["name"]))
        return replace(remains, temporary=what, expires=max(ends, default=None))
    if kind == "Deployment":
        return replace(remains, lent=lent_by(found), deployed=release_of(found))
    return remains


def _is_temporary(found: Mapping[str, Any]) -> bool:
    """Whether only a trial needs it, and nobody has ended it yet.

    A download or a checksum is none of these: the next run adopts it. Nor is a measurement that has come to its end,
    which goes away by itself.
    """
    if names.RUN_LABEL not in _labels(found) or "deletionTimestamp" in found["metadata"]:
        return False
    if found["kind"] != "Job":
        return True
    measures = _labels(found).get("app.kubernetes.io/component") == EVALUATION
    return measures and not (has_condition(found, "Complete") or has_condition(found, "Failed"))


def _labels(found: Mapping[str, Any]) -> dict[str, str]:
    return found["metadata"].get("labels") or {}


def _expires(meta: Mapping[str, Any]) -> dt.datetime | None:
    text = (meta.get("annotations") or {}).get(names.EXPIRES_ANNOTATION)
    return dt.datetime.fromisoformat(text) if text else None


def reap(platform: Platform, remains: Remains, why: str, log: Log, *, ended: bool) -> Reaped | None:
    """Clear away what a dead run left of a model's rollout; None if it turns out to live.

    Rollouts that follow from it are not waited for: the cluster sees to them.

    Args:
        platform: The installation.
        remains: What there is, as `survey` has found it.
        why: Why the run is taken for dead.
        log: Gets what is done.
        ended: Whether the holder of the lease is known to have ended.
    """
    model = remains.model
    try:
        with _held(platform, model, remains.holder if ended else None):
            # What was there a moment ago may have been cleared away, by another reaper or by the run itself.
            now = next(iter(survey(platform.cluster, model)), Remains(model))
            done: list[str] = []
            state = recover(platform, model, done.append)
            now = replace(now, stable=state.stable, candidate=state.candidate)
            settle(platform, model, state, state.candidate, done.append, wait=False)
            remove_canary(platform, model, log=done.append)
            for kind, name in now.temporary:
                platform.cluster.delete(kind, name)
                done.append(f"{kind} {name} removed")
            if now.lent:
                done.append(f"{now.lent} replica given back to stable")
            record = _end_trial(platform, now, why)
    except LeaseHeld as held:
        log(f"{model}: left alone, {held.message}")
        return None
    line = f"{model}: {why}; {', '.join(done) or 'its lease is free again'}"
    serving = platform.records.state(model).stable
    log(f"{line} ({serving or 'nothing'} serves)")
    if record is not None:
        tell_verdict(platform, record, log)
    elif done:
        leave_event(platform, model, "RunDied", line, "Warning")
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
    """Hold the model's lease; free it in the end."""
    lease = platform.leases.of(model, f"{HOLDER}-{secrets.token_hex(4)}", ended=ended)
    try:
        lease.acquire()
        yield
    finally:
        platform.leases.free(model)


def _end_trial(platform: Platform, remains: Remains, why: str) -> Record | None:
    """Give the trial that was left open its verdict; None if none was."""
    records, model, candidate = platform.records, remains.model, remains.candidate
    trial = records.opened(model, candidate) if candidate is not None else None
    if candidate is None or trial is None:
        return None
    release = records.release(model, candidate)
    if remains.stable != candidate:
        return end_trial(platform, release, trial, DECISIONS["died"], f"the run died: {why}")
    # Promoted, proven and watched: its run died just before it could say so.
    reason, figures = "its run died when it had been promoted", None
    if (found := records.outcome(model, candidate, "evaluation", EvaluationOutcome)) is not None:
        reason, figures = f"{found.verdict.reason}; {reason}", found.canary.figures
    return end_trial(platform, release, trial, DECISIONS["died promoted"], reason, figures=figures)


def decisions(platform: Platform, ended: Callable[[str], bool]) -> list[tuple[Remains, Decision]]:
    """What would be done about each model now.

    Args:
        platform: The installation.
        ended: Whether a run is known to have ended.
    """
    now = dt.datetime.now(dt.UTC)
    return [(each, decide(each, now, _over(each, ended))) for each in survey(platform.cluster)]


def _over(remains: Remains, ended: Callable[[str], bool]) -> bool:
    return remains.holder is not None and ended(remains.holder)


def reap_all(
    platform: Platform,
    log: Log,
    *,
    ended: Callable[[str], bool],
    enough: Callable[[], bool] = lambda: False,
) -> Iterator[Reaped]:
    """Clear away what dead runs left of all models' rollouts, one after the other.

    A model that this fails for keeps none of the others from it.

    Args:
        platform: The installation.
        log: Gets what is done, and what is waited for.
        ended: Whether a run is known to have ended.
        enough: Asked before each model: whether the rest is left to another time.

    Raises:
        LlmopsError: For some model it failed; it is tried again when this is called again.
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
            found = reap(platform, remains, decision.why, log, ended=_over(remains, ended))
        except LlmopsError as error:
            log(f"{remains.model}: what a dead run left could not be cleared away: {error}")
            failed.append(error)
            continue
        if found is not None:
            yield found
    if failed:
        raise failed[0]
