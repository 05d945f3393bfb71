"""One stage at work on one release: the model's lease, the clock, and the trial's end.

A stage ends by a verdict, an error or an interrupt. After each of them the canary's GPU is free, stable serves, and the
trial has a record, an Event and one log line that reads like a changelog.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from llmops.clients.kubernetes.lease import LeaseHeld
from llmops.config import names
from llmops.config.catalog.spec import ModelSpec
from llmops.config.steps import Step, reached
from llmops.errors import LlmopsError
from llmops.releases.records import OpenTrial, Record, Records
from llmops.releases.release import Release
from llmops.releases.stages import STAGES
from llmops.rollout.decision import Decision, End, decide, end_of
from llmops.rollout.ending import leave_event, record_of, tell_verdict
from llmops.rollout.ops.cleanup import recover, remove_canary, settle
from llmops.rollout.ops.memory import Memory
from llmops.rollout.ops.routing.traffic_split import StillNeeded
from llmops.rollout.orchestrator import Orchestrator
from llmops.rollout.platform import Platform
from llmops.rollout.shown import Shown

GONE_SECONDS = 300.0
# Stages that end with a canary up.
WITH_CANARY = ("canary", "evaluation", "traffic")
# Reasons of Events of type Normal.
WANTED = ("Passed", "RolledBack")
REQUESTED_BY_TAG = f"{names.DOMAIN}/requested-by"
INTERNAL_ERROR = "InternalError"
"""Code of a trial that a fault of llmops ended."""
CANCELLED = "the run was cancelled"
CANCELLED_BETWEEN = "the run was cancelled, or failed, before the next stage began"


class TrialEnded(Exception):
    """The trial did not pass, and is over.

    Args:
        record: Of the trial.
    """

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self.record = record

    def __str__(self) -> str:
        record = self.record
        return f"{record.verdict} at {record.stage}: {record.reason}\n{record.details}".strip()


class Refused(TrialEnded):
    """The release was rejected before: this rollout does not try it again.

    Args:
        record: Of the rejection.
    """

    def __str__(self) -> str:
        record = self.record
        return (
            f"{record.model} {record.release} ({record.image.partition('@')[0]}) was rejected on "
            f"{record.finished:%Y-%m-%d %H:%M} UTC at {record.stage}: {record.reason} Take another version with "
            "--engine-version, or try this one again with --retry. A changed pin or gate makes it a new release."
        )


class Trial:
    """A release under trial, as one stage sees it.

    Args:
        orchestrator: The orchestrator that runs the stage.
        platform: The installation.
        stage: Name of the stage.
        model: Name of the model.
        judged: Whether the stage's end is a verdict on the release.
    """

    def __init__(
        self, orchestrator: Orchestrator, platform: Platform, stage: str, model: str, *, judged: bool = True
    ) -> None:
        self.platform = platform
        self.cluster = platform.cluster
        self.records: Records = platform.records
        self.settings = platform.settings
        self.stage = stage
        self.model = model
        self.judged = judged
        self.run = orchestrator.run
        self.requested_by = orchestrator.requested_by
        self.release: Release | None = None
        self.record: Record | None = None
        """Of the trial, once it has ended."""
        self.ended = False
        self._memory: Memory | None = None
        self._started = time.monotonic()
        self._orchestrator = orchestrator
        self._lease = platform.leases.of(model, self.run)

    @property
    def spec(self) -> ModelSpec:
        """The model's entry in the catalog, as it is now."""
        return self.platform.spec(self.model)

    def log(self, message: str) -> None:
        """Write one line into the run's log."""
        self._orchestrator.log.info(message)

    def observe(self, line: str, shown: Shown) -> None:
        """Write one line into the run's log, and have the orchestrator keep it with its figures on the model's page."""
        self.log(line)
        self._orchestrator.observe(line, shown)

    def announce(self, reason: str, line: str) -> None:
        """Write one line as a Kubernetes Event on the model's state, and into the run's log."""
        log, normal = self._orchestrator.log, reason in WANTED
        (log.info if normal else log.error)(line)
        leave_event(self.platform, self.model, reason, line, "Normal" if normal else "Warning", log.warning)

    def acquire(self) -> None:
        """Take the model's lease. A dead run's lease runs out within seconds: wait for that.

        Raises:
            LeaseHeld: A live run has it.
        """
        try:
            for attempt in Retrying(
                retry=retry_if_exception_type(LeaseHeld),
                wait=wait_fixed(1),
                stop=stop_after_delay(self.settings.lease.takeover_seconds),
                reraise=True,
            ):
                with attempt:
                    if attempt.retry_state.attempt_number == 2:
                        self.log(f"another run holds the lease of {self.model}: waiting until it ends or runs out")
                        reached(Step.LEASE_AWAITED)
                    self._lease.acquire()
        except Exception:
            self.platform.leases.free(self.model)
            raise
        reached(Step.LEASE_ACQUIRED)

    def load(self, release: str) -> Release:
        """Take up the release that the previous stage handed over."""
        return self.open(self.records.release(self.model, release))

    def open(self, release: Release) -> Release:
        """Take up a release. If the stage is part of a trial, note that the trial is this run's.

        Raises:
            ClusterCannot: Nothing proves what serves, so no release may take its place.
        """
        self.release = release
        records, model = self.records, self.model
        state, opened = records.proven_state(model), None
        served = records.release(model, state.stable) if state.stable not in (None, release.id) else None
        if self.judged:
            # The trial's end needs to know what served, even if somebody deletes the model's state meanwhile.
            before, opened = records.opened(model, release.id), self._opened()
            began = (before.began if before else None) or opened.since
            opened = opened.model_copy(update={"served": state.stable or "", "began": began})
            records.open_trial(model, release.id, opened)
        state = state.model_copy(update={"candidate": release.id} if self.judged else {})
        self._memory = Memory(model, state, [release, *([served] if served else [])], opened)
        self._bring_back()
        return release

    def serves(self, *, stable: str, previous: str | None) -> None:
        """Note that a release serves from now on, in the model's state."""
        if self._memory is not None:
            state = self._memory.state.model_copy(update={"stable": stable, "previous": previous})
            self._memory = replace(self._memory, state=state)
        self.records.update_state(self.model, stable=stable, previous=previous)

    def _bring_back(self) -> None:
        """Write records again that somebody deleted since the stage took up the release."""
        if self._memory is not None and (gone := self._memory.restore(self.records)):
            self.log(f"somebody deleted records of {self.model}: llmops writes ConfigMap {', '.join(gone)} again")

    def _bring_back_or_log(self) -> None:
        """Write records again; if that fails, log it: why the trial ended is what people have to read."""
        try:
            self._bring_back()
        except LlmopsError as error:
            self.log(f"records of {self.model} that somebody deleted are not written again: {error}")

    def _opened(self) -> OpenTrial:
        now = datetime.datetime.now(datetime.UTC)
        return OpenTrial(run=self.run, requested_by=self.requested_by, stage=self.stage, since=now)

    def decide(self, end: End) -> Decision:
        """The decision that an end of this trial leads to, by the release's own rules."""
        return decide(end, self.release.rollout.on_inconclusive if self.release else "hold")

    def conclude(
        self,
        decision: Decision,
        reason: str,
        *,
        code: str = "",
        figures: dict[str, float] | None = None,
        wait: bool = True,
    ) -> Record:
        """End the trial: remove the canary, save the record, write the Event and the log line.

        Args:
            decision: The decision.
            reason: Why: a first line for the changelog; further lines (events, log tails) become the details.
            code: The reason in one CamelCase word; empty where a gate or a person decided.
            figures: What was measured.
            wait: Whether to wait until the canary's GPU is free. A cancelled run does not.

        Returns:
            The record.
        """
        assert self.release is not None
        self.end()
        # Before the record, which has the seconds of this stage too.
        self.clock()
        passed = decision.verdict == "Passed"
        if passed:
            self._bring_back()
        else:
            self._bring_back_or_log()
            self._remove_canary(wait=None)
        record = record_of(self.platform, self.release, self._opened(), decision, reason, code=code, figures=figures)
        self.record = record
        log, unsaved = self._orchestrator.log, None
        try:
            self.records.save_record(record)
        except LlmopsError as error:
            unsaved = error
            log.error(f"llmops will not remember the end of this trial, since its record is not saved: {error}")  # noqa: TRY400 - the trace says nothing more
        tell_verdict(self.platform, record, log.info if passed else log.error)
        if unsaved is not None and passed:
            raise unsaved
        if not passed and wait:
            # After a verdict the GPU is free.
            self._remove_canary(wait=GONE_SECONDS)
        return record

    def _remove_canary(self, *, wait: float | None) -> None:
        """Remove the canary. If that fails, log it: why the trial ended is what people have to read.

        The reaper, or the next rollout, removes what stays.
        """
        try:
            remove_canary(self.platform, self.model, wait=wait, log=self.log)
        except StillNeeded as error:
            self.log(f"the canary of {self.model} stays until the reaper removes it: {error}")
        except LlmopsError as error:
            self._orchestrator.log.warning(f"the canary of {self.model} is not gone yet: {error}")

    def clock(self) -> None:
        """Save how long the stage has taken. If that fails, log it: people alone read these figures."""
        if self.release is None:
            return
        try:
            self.records.save_seconds(self.model, self.release.id, self.stage, time.monotonic() - self._started)
        except LlmopsError as error:
            self.log(f"the seconds of the {self.stage} stage of {self.model} are not saved: {error}")

    def settle(self, *, wait: bool) -> None:
        """Undo a promotion that did not hold. If that fails, log it: the error that came before is the one to raise."""
        try:
            self._bring_back_or_log()
            tried = self.release.id if self.release else None
            state = recover(self.platform, self.model, self.log)
            settle(
                self.platform,
                self.model,
                state,
                tried,
                self.log,
                began=self._began,
                promoting=self.stage == "promotion",
                wait=wait,
            )
        except Exception as error:  # noqa: BLE001 - a fault of llmops must not hide the cause, nor leave the canary
            self.log(f"{self.model} could not go back to its stable release: {error}")

    @property
    def _began(self) -> datetime.datetime | None:
        """When the trial began, if the stage is part of one."""
        return self._memory.opened.began if self._memory is not None and self._memory.opened is not None else None

    def end(self) -> None:
        """Note that no stage follows: the lease is free when this one ends."""
        self.ended = True

    def leave(self) -> None:
        """Leave the trial to the run's next stage, in this process or in another; end it if there is none."""
        self.clock()
        if self.ended:
            return
        if not self.judged or self.release is None or not self._stages_left():
            self.end()
            if self.judged and self.release is not None and self.stage in WITH_CANARY:
                why = f"the run ended after {self.stage}: it was started without the later stages"
                self.conclude(self.decide("stopped"), why)
        elif self._orchestrator.shares_process:
            self.platform.leases.leave_open(self.model, partial(self.on_cancel, CANCELLED_BETWEEN))
        else:
            self.platform.leases.hand_over(self.model)

    def _stages_left(self) -> bool:
        """Whether the run has stages after this one."""
        later = STAGES[STAGES.index(self.stage) + 1 :] if self.stage in STAGES else ()
        return any(stage in self._orchestrator.stages for stage in later)

    def on_error(self, error: Exception) -> Record | None:
        """Undo what did not hold, and end the trial with the decision that the error leads to.

        Returns:
            The record; None if the stage took up no release, or its end is no verdict.
        """
        self.end()
        decision = self.decide(end_of(error))
        if isinstance(error, LlmopsError):
            reason, code = str(error), error.code
        else:
            reason, code = f"an error of llmops itself: {error!r}", INTERNAL_ERROR
        try:
            return self._undo_or_log(decision, reason, code=code, wait=True)
        except BaseException:
            with self._orchestrator.shield():
                self._undo_or_log(decision, reason, code=code, wait=False)
            raise

    def on_cancel(self, why: str = CANCELLED) -> None:
        """Undo what did not hold, and end the trial undecided. Further interrupts do not stop this half way."""
        self.end()
        with self._orchestrator.shield():
            self._undo_or_log(self.decide("interrupt"), why, wait=False)

    def on_lease_lost(self) -> None:
        """Change nothing: another run may hold the lease now, and the objects are then its own."""
        self.log(f"the lease of {self.model} is lost: the run that has it, or the reaper, clears up after this one")

    def _undo_or_log(self, decision: Decision, reason: str, *, code: str = "", wait: bool) -> Record | None:
        """Undo, see `_undo`. If that fails, log both: what ended the trial is what its caller raises."""
        failure: Exception
        try:
            return self._undo(decision, reason, code=code, wait=wait)
        except Exception as error:  # noqa: BLE001 - a fault of llmops must not hide the cause either
            failure = error
        log, release = self._orchestrator.log, self.release.id if self.release else "without a release"
        log.error(f"{self.model} {release}: the trial ended at {self.stage}: {reason.partition(chr(10))[0]}")
        log.error(f"{self.model} {release}: llmops could not clear up after that, and the reaper will: {failure!r}")
        return None

    def _undo(self, decision: Decision, reason: str, *, code: str = "", wait: bool) -> Record | None:
        """Undo what did not hold, and save the record; None if there is nothing to record."""
        if self._lease.lost():
            self.on_lease_lost()
            return None
        self.clock()
        self.settle(wait=wait)
        if self.release is None or not self.judged or self.record is not None:
            return None
        if self._lease.lost():
            self.on_lease_lost()
            return None
        return self.conclude(decision, reason, code=code, wait=wait)


@contextmanager
def trial(
    orchestrator: Orchestrator, platform: Platform, stage: str, model: str, *, judged: bool = True
) -> Generator[Trial]:
    """Run a stage under the model's lease; if it raises, end the trial accordingly.

    A bad release is rejected, and the rejection is recorded. The trial is Inconclusive if the cluster cannot take the
    release, an outside service is away, a measurement failed, the run was interrupted, or llmops has a fault; see the
    table in `decision`.

    Args:
        orchestrator: The orchestrator that runs the stage.
        platform: The installation.
        stage: Name of the stage.
        model: Name of the model.
        judged: Whether the end is a verdict on the release. A rollback that fails says nothing about its target.

    Raises:
        TrialEnded: The trial ended here, and has a record; the message says why.
        LeaseHeld: Another run has the model's lease.
        LlmopsError: The stage failed outside of a trial.
    """
    current = Trial(orchestrator, platform, stage, model, judged=judged)
    current.acquire()
    try:
        platform.leases.take_up(model)
        recover(platform, model, current.log)
        yield current
        current.leave()
    except TrialEnded:
        current.end()
        raise
    except Exception as error:
        record = current.on_error(error)
        if record is not None and isinstance(error, LlmopsError):
            raise TrialEnded(record) from error
        raise
    except BaseException:
        current.on_cancel()
        raise
    finally:
        # Between two stages the run keeps the lease: no other run may start a trial of the model meanwhile.
        if current.ended:
            platform.leases.free(model)
