"""One stage at work on one release: the model's lease, the clock, and an end for whatever happens.

However a stage ends, by a verdict, an error or an interrupt, the trial leaves the canary's GPU free, stable serving, a
record, an Event and one log line that reads like a changelog.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Generator
from contextlib import contextmanager
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
from llmops.rollout.ending import end_trial, leave_event, tell_verdict
from llmops.rollout.ops.cleanup import recover, remove_canary, settle
from llmops.rollout.ops.routing.traffic_split import StillNeeded
from llmops.rollout.orchestrator import Orchestrator
from llmops.rollout.platform import Platform
from llmops.rollout.shown import Shown

GONE_SECONDS = 300.0
# Stages that end with a canary up.
WITH_CANARY = ("canary", "evaluation", "traffic")
# Reasons of Events that tell of what was asked for.
WANTED = ("Passed", "RolledBack")
REQUESTED_BY_TAG = f"{names.DOMAIN}/requested-by"
CANCELLED = "the run was cancelled"
CANCELLED_BETWEEN = "the run was cancelled, or failed, before the next stage began"


class TrialEnded(Exception):
    """The trial did not pass, and nothing of it is left to do.

    Args:
        record: What is kept of it.
    """

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self.record = record

    def __str__(self) -> str:
        record = self.record
        return f"{record.verdict} at {record.stage}: {record.reason}\n{record.details}".strip()


class Refused(TrialEnded):
    """A release that was rejected before is asked for again, and not tried.

    Args:
        record: Of the rejection.
    """

    def __str__(self) -> str:
        record = self.record
        return (
            f"{record.model} {record.release} ({record.image.partition('@')[0]}) was rejected on "
            f"{record.finished:%Y-%m-%d %H:%M} UTC at {record.stage}: {record.reason} --engine-version takes another "
            "version; this one is tried again when a pin or a gate changes, or with --retry."
        )


class Trial:
    """A release under trial, as one stage sees it.

    Args:
        orchestrator: Who runs the stage.
        platform: The installation.
        stage: Name of the stage.
        model: Name of the model.
        judged: Whether its end is a verdict on the release.
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
        """What is kept of the trial, once it has ended."""
        self.ended = False
        self._started = time.monotonic()
        self._orchestrator = orchestrator
        self._lease = platform.leases.of(model, self.run)

    @property
    def spec(self) -> ModelSpec:
        """What the catalog says of the model now."""
        return self.platform.spec(self.model)

    def log(self, message: str) -> None:
        """One line in the run's log."""
        self._orchestrator.log.info(message)

    def observe(self, line: str, shown: Shown) -> None:
        """One line in the run's log, kept with figures for who looks at the model."""
        self.log(line)
        self._orchestrator.observe(line, shown)

    def announce(self, reason: str, line: str) -> None:
        """Write one line as a Kubernetes Event on the model's state, and into the run's log."""
        log, wanted = self._orchestrator.log, reason in WANTED
        (log.info if wanted else log.error)(line)
        leave_event(self.platform, self.model, reason, line, "Normal" if wanted else "Warning")

    def acquire(self) -> None:
        """Take the model's lease; one that a dead run left runs out within seconds, and is waited for.

        Raises:
            LeaseHeld: Another run has it, and lives.
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
        """Take up the release that the stage before handed over."""
        return self.open(self.records.release(self.model, release))

    def open(self, release: Release) -> Release:
        """Go on with this release: its trial, if it is one, is this run's, whatever becomes of it.

        Raises:
            ClusterCannot: It is not known what serves, so nothing may take its place.
        """
        self.release = release
        served = self.records.proven_state(self.model).stable
        if self.judged:
            # Kept beside the trial: what it has to leave serving is known even if the state is lost meanwhile.
            opened = self._opened().model_copy(update={"served": served or ""})
            self.records.open_trial(self.model, release.id, opened)
        return release

    def _opened(self) -> OpenTrial:
        now = datetime.datetime.now(datetime.UTC)
        return OpenTrial(run=self.run, requested_by=self.requested_by, stage=self.stage, since=now)

    def decide(self, end: End) -> Decision:
        """What an end of this trial says of its release, by the release's own rules."""
        return decide(end, self.release.rollout.on_inconclusive if self.release else "hold")

    def conclude(
        self, decision: Decision, reason: str, *, figures: dict[str, float] | None = None, wait: bool = True
    ) -> Record:
        """End the trial: canary away, record kept, Event and log line written.

        Args:
            decision: What was decided.
            reason: Why: a first line for the changelog, and what lines follow (events, log tails) as details.
            figures: What was measured.
            wait: Whether a GPU that was on trial is waited for. Who cancels is not kept waiting.

        Returns:
            The record.
        """
        assert self.release is not None
        self.end()
        # The record is to say of the stage that decided, too, how long it took.
        self.clock()
        passed = decision.verdict == "Passed"
        if not passed:
            self._remove_canary(wait=None)
        record = end_trial(self.platform, self.release, self._opened(), decision, reason, figures=figures)
        self.record = record
        log = self._orchestrator.log
        tell_verdict(self.platform, record, log.info if passed else log.error)
        if not passed and wait:
            # A verdict ends with the GPU free.
            self._remove_canary(wait=GONE_SECONDS)
        return record

    def _remove_canary(self, *, wait: float | None) -> None:
        """Remove the canary. One that users cannot do without stays up: the reaper removes it when stable is ready."""
        try:
            remove_canary(self.platform, self.model, wait=wait, log=self.log)
        except StillNeeded as error:
            self.log(f"the canary is left for the reaper: {error}")

    def clock(self) -> None:
        """Keep how long the stage has taken."""
        if self.release is not None:
            self.records.save_seconds(self.model, self.release.id, self.stage, time.monotonic() - self._started)

    def settle(self, *, wait: bool) -> None:
        """Undo a promotion that did not hold. A failure to do so is told, and does not hide why it had to be undone."""
        try:
            tried = self.release.id if self.release else None
            state = recover(self.platform, self.model, self.log)
            settle(self.platform, self.model, state, tried, self.log, wait=wait)
        except LlmopsError as error:
            self.log(f"going back did not succeed: {error}")

    def end(self) -> None:
        """Nothing follows: the model's lease is given up when this stage ends."""
        self.ended = True

    def leave(self) -> None:
        """Leave the trial to the run's next stage, in this process or in one of its own; end it if there is none."""
        self.clock()
        if self.ended:
            return
        if not self.judged or self.release is None or not self._stages_left():
            self.end()
            if self.judged and self.release is not None and self.stage in WITH_CANARY:
                why = f"the run went no further than {self.stage}: the stages after it were not asked for"
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
        """Undo what did not hold, and end the trial by what its error says of the release.

        Returns:
            The record; None where there is none to keep: no release was taken up, or its end is no verdict.
        """
        self.end()
        decision = self.decide(end_of(error))
        reason = str(error) if isinstance(error, LlmopsError) else f"an error of llmops itself: {error!r}"
        try:
            return self._undo(decision, reason, wait=True)
        except Exception:
            raise
        except BaseException:
            with self._orchestrator.shield():
                self._undo(decision, reason, wait=False)
            raise

    def on_cancel(self, why: str = CANCELLED) -> None:
        """Undo what did not hold, and end the trial undecided. Interrupts that follow leave nothing half done."""
        self.end()
        with self._orchestrator.shield():
            self._undo(self.decide("interrupt"), why, wait=False)

    def on_lease_lost(self) -> None:
        """Change nothing: who has the lease by now has the objects, too."""
        self.log(f"the lease of {self.model} is lost: the run that has it, or the reaper, sees to what this one leaves")

    def _undo(self, decision: Decision, reason: str, *, wait: bool) -> Record | None:
        """Undo what did not hold, and keep the verdict; None if there is none to keep."""
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
        return self.conclude(decision, reason, wait=wait)


@contextmanager
def trial(
    orchestrator: Orchestrator, platform: Platform, stage: str, model: str, *, judged: bool = True
) -> Generator[Trial]:
    """Run a stage under the model's lease, and end its trial by what it raises.

    A bad release is rejected and that is remembered. Where the cluster can't, an outside service is away or a
    measurement failed, the release stays untried: Inconclusive. An interrupt or a fault of ours ends it so, too. See
    `decision` for all of it.

    Args:
        orchestrator: Who runs the stage.
        platform: The installation.
        stage: Name of the stage.
        model: Name of the model.
        judged: Whether the end is a verdict on the release. A rollback that fails says nothing against its target.

    Raises:
        TrialEnded: The trial ended here, and has a record; the message says why.
        LeaseHeld: Another run is at the model.
        LlmopsError: The stage failed, and there was no trial to end.
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
        # Between two stages the lease stays with the run: nobody may put another release under trial meanwhile.
        if current.ended:
            platform.leases.free(model)
