"""The queue between a trigger and the rollouts that it requests.

Before every request, the queue decides on the model's candidate from the cluster's records. So a lost cursor or a
lost database repeats no decided trial. The cursor keeps what is pending: a rollout of the model is under way, its
window is closed, or the requested run came to no verdict.
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
from llmops.triggers.notes import Note
from llmops.triggers.windows import is_open, next_opening

ANY_GPU = "any"
PAUSES_SECONDS = (300.0, 900.0, 2700.0)
"""Pauses before the queue requests a rollout without a verdict again. After the last one it stops, with an alert."""
MOST_REQUESTED = 25
"""Most rollouts that one tick requests; the rest follow in the next ticks."""

Decide = Callable[[ModelSpec, Ledger], Candidate | None]


class Stored(Strict):
    """Content of a cursor. Some keys differ from the fields' names, as cursors of older versions have them."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)


class PendingRequest(Stored):
    """A rollout that the sensor has yet to request, or whose run goes on. Times are Unix seconds.

    Args:
        candidate: Key of the candidate; empty while none is decided.
        since: When the candidate first came up.
        asked: Requests so far.
        under_way: A run was requested, and the queue has not seen its end.
        not_before: Earliest time of the next request.
        left: The queue has given it up.
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
    """The part that every trigger's cursor has.

    Args:
        pending: Pending requests by model.
    """

    pending: Pending = Field(
        default_factory=dict[str, PendingRequest], validation_alias="asks", serialization_alias="asks"
    )


@dataclass(frozen=True)
class RolloutRequest:
    """A rollout to start now.

    Args:
        key: Names the run; differs for each tag, digest, commit and attempt.
        model: Name of the model.
        requested_by: The sensor, and why it requests the rollout.
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
        pending: Pending requests by model.
        requests: Rollouts to start now.
        notes: Why others do not start.
        settled: Models that were decided on, with a candidate or none.
    """

    pending: Pending
    requests: list[RolloutRequest] = field(default_factory=list[RolloutRequest])
    notes: list[Note] = field(default_factory=list[Note])
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
        """Request rollouts that may start now.

        The queue reads no ledgers if nothing is fresh and everything pending has to wait.

        Args:
            pending: From the last tick's cursor.
            fresh: Models with something new.
            decide: The candidate for a model, given its ledger. If it raises, the model stays pending.
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
            result.notes.append(Note("LedgersUnknown", f"the ledgers cannot be read: {error}"))
            return result
        candidates: dict[str, Candidate] = {}
        for model in due:
            try:
                if candidate := self._candidate(result, followed[model], ledgers.get(model, Ledger()), decide):
                    candidates[model] = candidate
            except LlmopsError as error:
                result.notes.append(Note.of(error, model))
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
        result.notes.append(Note("WindowClosed", f"{spec.name}: waits for its maintenance window, which {when}"))
        return False

    def _candidate(self, result: Round, spec: ModelSpec, ledger: Ledger, decide: Decide) -> Candidate | None:
        """The candidate to request now; None if there is none, or it stays pending."""
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
        """The pending request after a run without a verdict: paused, or given up."""
        failure = self.inputs.runs.failure(run_key(self.sensor, spec, candidate, request))
        if failure == "cancelled":
            # A person decided that, so no alert.
            line = (
                f"{spec.name}: the rollout to {candidate.what} was cancelled. To start it: llmops rollout {spec.name}"
            )
            result.notes.append(Note("RunCancelled", line))
            return request.model_copy(update={"under_way": False, "left": True})
        if request.asked <= len(PAUSES_SECONDS):
            # The first time that a run is killed, the cause may be its node.
            killed = request.asked == 1 and failure == "failed" and _is_undecided(ledger)
            pause = 0.0 if killed else PAUSES_SECONDS[request.asked - 1]
            how = "died" if killed else "came to no verdict"
            line = f"{spec.name}: the rollout to {candidate.what} {how}; the sensor requests it again in {pause:.0f} s"
            result.notes.append(Note("RequestedAgain", line))
            return request.model_copy(update={"under_way": False, "not_before": self.inputs.now + pause})
        line = (
            f"{spec.name}: sensor {self.sensor} requested the rollout to {candidate.what} {request.asked} times. No "
            f"run came to a verdict, so it stops. See the last run, then: llmops rollout {spec.name}"
        )
        result.notes.append(Note("GivenUp", line))
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
            # A rollout by another orchestrator holds its model's lease.
            holders = self.inputs.services.holders()
        except LlmopsError as error:
            result.notes.append(Note("HoldersUnknown", f"the leases cannot be read: {error}"))
            return
        for model, candidate in candidates.items():
            if model in holders:
                result.notes.append(Note("LeaseHeld", f"{model}: waits for the rollout by {holders[model]}"))
            elif len(result.requests) < MOST_REQUESTED:
                request = result.pending[model]
                request = request.model_copy(update={"asked": request.asked + 1, "under_way": True})
                result.pending[model] = request
                result.requests.append(rollout_request(self.sensor, specs[model], candidate, request))
            else:
                result.notes.append(Note("NextTick", f"{model}: follows in the next tick"))


def run_key(sensor: str, spec: ModelSpec, candidate: Candidate, request: PendingRequest) -> str:
    """The key of the requested run; differs for each attempt."""
    return f"{sensor} {spec.name} {candidate.key} {request.since:.0f} {request.asked}"


def rollout_request(sensor: str, spec: ModelSpec, candidate: Candidate, request: PendingRequest) -> RolloutRequest:
    """The request for the rollout to a candidate."""
    return RolloutRequest(
        key=run_key(sensor, spec, candidate, request),
        model=spec.name,
        requested_by=f"sensor {sensor}: {candidate.what}",
        image=candidate.image,
        revision=candidate.revision,
        gpu_pool=(spec.gpu.product or ANY_GPU) if spec.gpu.count else None,
    )


def _is_undecided(ledger: Ledger) -> bool:
    """Whether the last trial has no end, or ended because its run died."""
    end = ledger.decided.get(ledger.state.candidate or "")
    return end is None or end.cause == "died"
