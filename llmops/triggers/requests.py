"""Where sensors ask for rollouts: one job, tags that say who asked and why, and no more often than makes sense.

What is wished is decided anew from the cluster's records each time before it is asked for, so that a lost cursor, or a
lost database, repeats nothing that was decided. A cursor holds what is still to be asked: because a rollout of the
model is under way, its window is closed, or the run that was asked for came to no verdict.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import dagster as dg
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.storage.tags import PARTITION_NAME_TAG, RUN_KEY_TAG

from llmops.alerts.outbox import Alert, Outbox, alert_id
from llmops.clients.kubernetes.lease import holders
from llmops.config import names
from llmops.config.catalog.spec import ModelSpec, Strict
from llmops.defs.rollout.assets import JOB
from llmops.errors import LlmopsError
from llmops.releases.ledger import Ledger, ledgers
from llmops.rollout.trial import REQUESTED_BY_TAG
from llmops.triggers.candidates import Wish
from llmops.triggers.installation import Installation
from llmops.triggers.windows import is_open, next_opening

GPU_POOL_TAG = f"{names.DOMAIN}/gpu-pool"
"""Kind of GPU that a rollout takes, so that Dagster can limit how many are under way at once for each."""
ANY_GPU = "any"

PAUSES_SECONDS = (300.0, 900.0, 2700.0)
"""Pauses before a rollout that came to no verdict is asked for again; after the last it is left, with an alert."""
MOST_ASKED = 25
"""Rollouts that one tick asks for; the rest follow with the next ones."""
NOTES_SHOWN = 20

Decide = Callable[[ModelSpec, Ledger], Wish | None]


class Ask(Strict):
    """What is still to be asked for a model, or was asked and has not ended. Times are Unix seconds.

    Args:
        wish: Key of the wish; empty while it could not be decided yet.
        since: When it was first wished.
        asked: How often it was asked for.
        under_way: It was asked for, and how that ended has not been looked at.
        not_before: It is not asked for again before.
        left: It was asked for often enough.
    """

    wish: str = ""
    since: float = 0
    asked: int = 0
    under_way: bool = False
    not_before: float = 0
    left: bool = False


Asks = dict[str, Ask]


@dataclass
class Round:
    """What came of one tick.

    Args:
        asks: What is still to be asked, by model.
        requests: Runs that are asked for now.
        notes: Lines on what is not, and why.
        settled: Models for which it was looked at where they stand.
    """

    asks: Asks
    requests: list[dg.RunRequest] = field(default_factory=list[dg.RunRequest])
    notes: list[str] = field(default_factory=list[str])
    settled: set[str] = field(default_factory=set[str])


@dataclass(frozen=True)
class Asking:
    """One sensor's way of asking.

    Args:
        sensor: Its name.
        installation: What it works on.
        instance: Dagster's runs.
        now: Unix seconds.
    """

    sensor: str
    installation: Installation
    instance: dg.DagsterInstance
    now: float

    def ask(self, asks: Mapping[str, Ask], fresh: Iterable[str], decide: Decide) -> Round:
        """Ask for what is wished, as far as it may start now.

        Nothing is asked of the cluster if there is nothing fresh, and what is outstanding has to wait anyway.

        Args:
            asks: What was still to be asked after the tick before.
            fresh: Models of which something is new.
            decide: What is wished for a model, given where it stands; it may raise, and the model is asked about again.
        """
        followed = {spec.name: spec for spec in self.installation.followed}
        asks = {model: each for model, each in asks.items() if model in followed}
        fresh = set(fresh)
        found = Round(dict.fromkeys(sorted(fresh - asks.keys()), Ask()) | asks)
        waiting = [model for model, each in found.asks.items() if model in fresh or not each.left]
        busy = self._unfinished() if waiting else set[str]()
        due = [model for model in waiting if model not in busy and self._may_look(found, followed[model], fresh)]
        if not due:
            return found
        try:
            known = ledgers(self.installation.cluster)
        except LlmopsError as error:
            found.notes.append(f"the cluster does not say where models stand: {error}")
            return found
        wishes: dict[str, Wish] = {}
        for model in due:
            try:
                if wish := self._wish(found, followed[model], known.get(model, Ledger()), decide):
                    wishes[model] = wish
            except LlmopsError as error:
                found.notes.append(f"{model}: {error}")
        if wishes:
            self._request(found, followed, wishes)
        return found

    def _unfinished(self) -> set[str]:
        """Models with a rollout that this Dagster has queued or under way."""
        runs = self.instance.get_runs(dg.RunsFilter(job_name=JOB, statuses=NOT_FINISHED_STATUSES))
        return {model for run in runs if (model := run.tags.get(PARTITION_NAME_TAG))}

    def _may_look(self, found: Round, spec: ModelSpec, fresh: set[str]) -> bool:
        ask = found.asks[spec.name]
        if spec.name in fresh or ask.under_way or not ask.wish:
            return True
        return self.now >= ask.not_before and self._is_open(found, spec)

    def _is_open(self, found: Round, spec: ModelSpec) -> bool:
        rules, now = spec.automation, datetime.datetime.fromtimestamp(self.now, datetime.UTC)
        if is_open(rules.windows, rules.timezone, now):
            return True
        opening = next_opening(rules.windows, rules.timezone, now)
        when = f"opens {opening:%a %Y-%m-%d %H:%M %Z}" if opening else "does not open within a week"
        found.notes.append(f"{spec.name}: waits for its maintenance window, which {when}")
        return False

    def _wish(self, found: Round, spec: ModelSpec, ledger: Ledger, decide: Decide) -> Wish | None:
        """What is to be asked for a model now, if anything; what is to be asked later is kept."""
        model, wish = spec.name, decide(spec, ledger)
        found.settled.add(model)
        if wish is None:
            del found.asks[model]
            return None
        ask = found.asks[model]
        if ask.wish != wish.key:
            ask = found.asks[model] = Ask(wish=wish.key, since=self.now)
        if ask.under_way:
            found.asks[model] = self._without_verdict(found, ask, wish, spec, ledger)
            return None
        if ask.left or self.now < ask.not_before or not self._is_open(found, spec):
            return None
        return wish

    def _without_verdict(self, found: Round, ask: Ask, wish: Wish, spec: ModelSpec, ledger: Ledger) -> Ask:
        """After a run that ended and decided nothing: a pause, or an end of asking."""
        status = self._status(run_key(self.sensor, spec, wish, ask))
        if status is dg.DagsterRunStatus.CANCELED:
            # Somebody's decision. They were told so when they made it.
            found.notes.append(f"{spec.name}: {wish.what} was cancelled; to ask again: llmops rollout {spec.name}")
            return ask.model_copy(update={"under_way": False, "left": True})
        if ask.asked <= len(PAUSES_SECONDS):
            # A run that was killed says nothing of what would come of it, the first time.
            killed = ask.asked == 1 and status is dg.DagsterRunStatus.FAILURE and _is_open(ledger)
            pause = 0.0 if killed else PAUSES_SECONDS[ask.asked - 1]
            how = "died" if killed else "came to no verdict"
            found.notes.append(f"{spec.name}: {wish.what} {how} and is asked for again in {pause:.0f} s")
            return ask.model_copy(update={"under_way": False, "not_before": self.now + pause})
        line = (
            f"{spec.name}: {wish.what} was asked for {ask.asked} times by sensor {self.sensor} and came to no verdict; "
            f"it is not asked for again by itself. See the last run, then: llmops rollout {spec.name}"
        )
        found.notes.append(line)
        Outbox(self.installation.cluster).put(
            Alert(
                id=alert_id("inconclusive", self.sensor, spec.name, wish.key, f"{ask.since:.0f}"),
                kind="inconclusive",
                severity="error",
                model=spec.name,
                line=line,
                serving=ledger.state.stable,
                at=datetime.datetime.fromtimestamp(self.now, datetime.UTC),
            )
        )
        return ask.model_copy(update={"under_way": False, "left": True})

    def _status(self, key: str) -> dg.DagsterRunStatus | None:
        """How the run that was asked for by a key stands; None if this Dagster does not know it."""
        runs = self.instance.get_runs(dg.RunsFilter(job_name=JOB, tags={RUN_KEY_TAG: key}), limit=1)
        return runs[0].status if runs else None

    def _request(self, found: Round, specs: Mapping[str, ModelSpec], wishes: Mapping[str, Wish]) -> None:
        try:
            # Whoever rolls a model out without this Dagster has its lease.
            held = holders(self.installation.cluster)
        except LlmopsError as error:
            found.notes.append(f"the cluster does not say which rollouts are under way: {error}")
            return
        for model, wish in wishes.items():
            if model in held:
                found.notes.append(f"{model}: waits for the rollout by {held[model]}")
            elif len(found.requests) < MOST_ASKED:
                ask = found.asks[model]
                ask = found.asks[model] = ask.model_copy(update={"asked": ask.asked + 1, "under_way": True})
                found.requests.append(run_request(self.sensor, specs[model], wish, ask))
            else:
                found.notes.append(f"{model}: follows with the next tick")


def run_key(sensor: str, spec: ModelSpec, wish: Wish, ask: Ask) -> str:
    """The key of the run that was asked for: another one for each attempt."""
    return f"{sensor} {spec.name} {wish.key} {ask.since:.0f} {ask.asked}"


def _is_open(ledger: Ledger) -> bool:
    """Whether the last trial has no end yet, or had one because its run was gone."""
    end = ledger.decided.get(ledger.state.candidate or "")
    return end is None or end.cause == "died"


def run_request(sensor: str, spec: ModelSpec, wish: Wish, ask: Ask) -> dg.RunRequest:
    """The run of the rollout job that a wish asks for.

    Dagster makes one run for each key: a tag at another digest, another commit and another attempt are other keys.
    """
    config = {key: value for key, value in (("image", wish.image), ("revision", wish.revision)) if value is not None}
    tags = {REQUESTED_BY_TAG: f"sensor {sensor}: {wish.what}"}
    if spec.gpu.count:
        tags[GPU_POOL_TAG] = spec.gpu.product or ANY_GPU
    return dg.RunRequest(
        run_key=run_key(sensor, spec, wish, ask),
        partition_key=spec.name,
        run_config={"ops": {"release": {"config": config}}},
        tags=tags,
    )


def sensor_result(
    context: dg.SensorEvaluationContext, found: Round, notes: list[str], cursor: Strict
) -> dg.SensorResult:
    """What Dagster is told of a tick."""
    for request in found.requests:
        context.log.info(f"{request.partition_key}: asked for by {request.tags[REQUESTED_BY_TAG]}")
    lines = notes + found.notes
    more = [f"and {len(lines) - NOTES_SHOWN} more"] if len(lines) > NOTES_SHOWN else []
    reason = "; ".join([*lines[:NOTES_SHOWN], *more]) or "nothing new"
    return dg.SensorResult(
        run_requests=found.requests,
        skip_reason=None if found.requests else dg.SkipReason(reason),
        cursor=cursor.model_dump_json(exclude_defaults=True),
    )
