"""The queue between a trigger and the rollouts it requests: one job, reasons for people, and no more than makes sense.

The candidate of each model is decided anew from the cluster's records before every request, so that a lost cursor, or a
lost database, repeats nothing that was decided. A cursor keeps what is still pending: a rollout of the model is under
way, its window is closed, or the run that was requested came to no verdict.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from pydantic import ConfigDict, Field

from llmops.alerts.outbox import Alert, alert_id
from llmops.config.catalog.spec import ModelSpec, Strict
from llmops.errors import LlmopsError
from llmops.releases.ledger import Ledger
from llmops.triggers.candidates import Candidate
from llmops.triggers.inputs import Inputs
from llmops.triggers.windows import is_open, next_opening

ANY_GPU = "any"
PAUSES_SECONDS = (300.0, 900.0, 2700.0)
"""Pauses before a rollout without a verdict is requested again; after the last the queue gives it up, with an alert."""
MOST_REQUESTED = 25
"""Rollouts that one tick requests; the rest follow with the next ticks."""

Decide = Callable[[ModelSpec, Ledger], Candidate | None]


class Stored(Strict):
    """What a cursor keeps. Some keys differ from the fields' names: cursors of older versions have them, too."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)


class PendingRequest(Stored):
    """What is still to be requested for a model, or was requested and has not ended. Times are Unix seconds.

    Args:
        candidate: Key of the candidate; empty while none could be decided.
        since: When the candidate first came up.
        asked: Requests so far.
        under_way: A run was requested, and how it ended has not been looked at.
        not_before: Earliest time of the next request.
        left: The queue gave it up.
    """

    candidate: str = Field(default="", validation_alias="wish", serialization_alias="wish")
    since: float = 0
    asked: int = 0
    under_way: bool = False
    not_before: float = 0
    left: bool = False


Pending = dict[str, PendingRequest]
"""By model."""


class Cursor(Stored):
    """What every trigger's cursor keeps.

    Args:
        pending: What is still to be requested, by model.
    """

    pending: Pending = Field(
        default_factory=dict[str, PendingRequest], validation_alias="asks", serialization_alias="asks"
    )


@dataclass(frozen=True)
class RolloutRequest:
    """A rollout to start now.

    Args:
        key: Names the run; another tag, digest, commit or attempt has another key.
        model: Name of the model.
        requested_by: Which sensor requests it, and why.
        image: Exact image, TAG@DIGEST; None leaves it to the model's policy.
        revision: Commit of the weights; None leaves it to the spec.
        gpu_pool: Kind of GPU that the rollout takes; None if it takes none.
    """

    key: str
    model: str
    requested_by: str
    image: str | None
    revision: str | None
    gpu_pool: str | None


@dataclass
class Round:
    """The outcome of one pass over the queue.

    Args:
        pending: What is still to be requested, by model.
        requests: Rollouts to start now.
        notes: Lines on what does not start, and why.
        settled: Models that a candidate, or none, was decided for.
    """

    pending: Pending
    requests: list[RolloutRequest] = field(default_factory=list[RolloutRequest])
    notes: list[str] = field(default_factory=list[str])
    settled: set[str] = field(default_factory=set[str])


@dataclass(frozen=True)
class RequestQueue:
    """The requests of one sensor.

    Args:
        sensor: Name of the sensor.
        inputs: Entries, services, runs and time of this tick.
    """

    sensor: str
    inputs: Inputs

    def advance(self, pending: Mapping[str, PendingRequest], fresh: Iterable[str], decide: Decide) -> Round:
        """Request what may start now.

        The cluster is left alone if nothing is fresh, and everything pending has to wait anyway.

        Args:
            pending: What the tick before left.
            fresh: Models of which something is new.
            decide: The candidate for a model, given its ledger; it may raise, and the model's turn comes again.
        """
        followed = {spec.name: spec for spec in self.inputs.declarations.followed}
        pending = {model: request for model, request in pending.items() if model in followed}
        fresh = set(fresh)
        result = Round(dict.fromkeys(sorted(fresh - pending.keys()), PendingRequest()) | pending)
        waiting = [model for model, request in result.pending.items() if model in fresh or not request.left]
        busy = self.inputs.runs.unfinished() if waiting else set[str]()
        due = [model for model in waiting if model not in busy and self._may_look(result, followed[model], fresh)]
        if not due:
            return result
        try:
            ledgers = self.inputs.services.ledgers()
        except LlmopsError as error:
            result.notes.append(f"the cluster does not say where models stand: {error}")
            return result
        candidates: dict[str, Candidate] = {}
        for model in due:
            try:
                if candidate := self._candidate(result, followed[model], ledgers.get(model, Ledger()), decide):
                    candidates[model] = candidate
            except LlmopsError as error:
                result.notes.append(f"{model}: {error}")
        if candidates:
            self._request(result, followed, candidates)
        return result

    def _may_look(self, result: Round, spec: ModelSpec, fresh: set[str]) -> bool:
        request = result.pending[spec.name]
        if spec.name in fresh or request.under_way or not request.candidate:
            return True
        return self.inputs.now >= request.not_before and self._is_open(result, spec)

    def _is_open(self, result: Round, spec: ModelSpec) -> bool:
        rules, now = spec.automation, datetime.datetime.fromtimestamp(self.inputs.now, datetime.UTC)
        if is_open(rules.windows, rules.timezone, now):
            return True
        opening = next_opening(rules.windows, rules.timezone, now)
        when = f"opens {opening:%a %Y-%m-%d %H:%M %Z}" if opening else "does not open within a week"
        result.notes.append(f"{spec.name}: waits for its maintenance window, which {when}")
        return False

    def _candidate(self, result: Round, spec: ModelSpec, ledger: Ledger, decide: Decide) -> Candidate | None:
        """The candidate to request now, if any; one for later stays pending."""
        model, candidate = spec.name, decide(spec, ledger)
        result.settled.add(model)
        if candidate is None:
            del result.pending[model]
            return None
        request = result.pending[model]
        if request.candidate != candidate.key:
            request = result.pending[model] = PendingRequest(candidate=candidate.key, since=self.inputs.now)
        if request.under_way:
            result.pending[model] = self._without_verdict(result, request, candidate, spec, ledger)
            return None
        if request.left or self.inputs.now < request.not_before or not self._is_open(result, spec):
            return None
        return candidate

    def _without_verdict(
        self, result: Round, request: PendingRequest, candidate: Candidate, spec: ModelSpec, ledger: Ledger
    ) -> PendingRequest:
        """After a run that ended and decided nothing: a pause, or the end of requests."""
        failure = self.inputs.runs.failure(run_key(self.sensor, spec, candidate, request))
        if failure == "cancelled":
            # Somebody's decision. They were told so when they made it.
            line = f"{spec.name}: {candidate.what} was cancelled; to ask again: llmops rollout {spec.name}"
            result.notes.append(line)
            return request.model_copy(update={"under_way": False, "left": True})
        if request.asked <= len(PAUSES_SECONDS):
            # A run that was killed says nothing of what would come of it, the first time.
            killed = request.asked == 1 and failure == "failed" and _is_undecided(ledger)
            pause = 0.0 if killed else PAUSES_SECONDS[request.asked - 1]
            how = "died" if killed else "came to no verdict"
            result.notes.append(f"{spec.name}: {candidate.what} {how} and is asked for again in {pause:.0f} s")
            return request.model_copy(update={"under_way": False, "not_before": self.inputs.now + pause})
        line = (
            f"{spec.name}: {candidate.what} was asked for {request.asked} times by sensor {self.sensor} and came to no "
            f"verdict; it is not asked for again by itself. See the last run, then: llmops rollout {spec.name}"
        )
        result.notes.append(line)
        self.inputs.services.put(
            Alert(
                id=alert_id("inconclusive", self.sensor, spec.name, candidate.key, f"{request.since:.0f}"),
                kind="inconclusive",
                severity="error",
                model=spec.name,
                line=line,
                serving=ledger.state.stable,
                at=datetime.datetime.fromtimestamp(self.inputs.now, datetime.UTC),
            )
        )
        return request.model_copy(update={"under_way": False, "left": True})

    def _request(self, result: Round, specs: Mapping[str, ModelSpec], candidates: Mapping[str, Candidate]) -> None:
        try:
            # Rollouts that this orchestrator does not know hold their model's lease.
            holders = self.inputs.services.holders()
        except LlmopsError as error:
            result.notes.append(f"the cluster does not say which rollouts are under way: {error}")
            return
        for model, candidate in candidates.items():
            if model in holders:
                result.notes.append(f"{model}: waits for the rollout by {holders[model]}")
            elif len(result.requests) < MOST_REQUESTED:
                request = result.pending[model]
                request = request.model_copy(update={"asked": request.asked + 1, "under_way": True})
                result.pending[model] = request
                result.requests.append(rollout_request(self.sensor, specs[model], candidate, request))
            else:
                result.notes.append(f"{model}: follows with the next tick")


def run_key(sensor: str, spec: ModelSpec, candidate: Candidate, request: PendingRequest) -> str:
    """The key of the run that is requested: another one for each attempt."""
    return f"{sensor} {spec.name} {candidate.key} {request.since:.0f} {request.asked}"


def rollout_request(sensor: str, spec: ModelSpec, candidate: Candidate, request: PendingRequest) -> RolloutRequest:
    """The rollout that brings a candidate."""
    return RolloutRequest(
        key=run_key(sensor, spec, candidate, request),
        model=spec.name,
        requested_by=f"sensor {sensor}: {candidate.what}",
        image=candidate.image,
        revision=candidate.revision,
        gpu_pool=(spec.gpu.product or ANY_GPU) if spec.gpu.count else None,
    )


def _is_undecided(ledger: Ledger) -> bool:
    """Whether the last trial has no end yet, or had one because its run was gone."""
    end = ledger.decided.get(ledger.state.candidate or "")
    return end is None or end.cause == "died"
