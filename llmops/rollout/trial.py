"""One stage at work on one release: the model's lease, the clock, and an end for whatever happens.

However a stage ends, by a verdict, an error or an interrupt, the trial leaves the canary's GPU free, stable serving, a
record, an Event and one log line that reads like a changelog.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Generator
from contextlib import contextmanager

import dagster as dg
from dagster._utils.interrupts import capture_interrupts
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from llmops.clients.kubernetes.lease import LeaseHeld, RolloutLease
from llmops.config import names
from llmops.config.catalog.spec import ModelSpec
from llmops.errors import BadRelease, LlmopsError, MeasurementFailed, kind_of
from llmops.releases.records import STAGES, Cause, OpenTrial, Record, Records, VerdictValue
from llmops.releases.release import Release
from llmops.rollout.ending import end_trial, leave_event, tell_verdict
from llmops.rollout.ops.cleanup import recover, remove_canary, settle
from llmops.rollout.ops.traffic_split import StillNeeded
from llmops.rollout.platform import Platform

Context = dg.AssetExecutionContext | dg.OpExecutionContext
# A lease runs out 15 s after its holder died.
LEASE_SECONDS = 25.0
GONE_SECONDS = 300.0
# Stages that end with a canary up.
WITH_CANARY = ("canary", "evaluation", "traffic")
# Reasons of Events that tell of what was asked for.
WANTED = ("Passed", "RolledBack")
REQUESTED_BY_TAG = f"{names.DOMAIN}/requested-by"


class Trial:
    """A release under trial, as one stage sees it.

    Args:
        context: Of the Dagster asset, or of the rollback's op.
        platform: The installation.
        stage: Name of the stage.
        model: Name of the model.
        judged: Whether its end is a verdict on the release.
    """

    def __init__(self, context: Context, platform: Platform, stage: str, model: str, *, judged: bool) -> None:
        self.platform = platform
        self.cluster = platform.cluster
        self.records: Records = platform.records
        self.settings = platform.settings
        self.stage = stage
        self.model = model
        self.judged = judged
        self.run: str = context.run.run_id
        self.requested_by: str = context.run.tags.get(REQUESTED_BY_TAG, "Dagster UI")
        self.release: Release | None = None
        self.ended = False
        self.concluded = False
        self._started = time.monotonic()
        self._context = context

    @property
    def spec(self) -> ModelSpec:
        """What the catalog says of the model now."""
        return self.platform.spec(self.model)

    def log(self, message: str) -> None:
        """One line in the run's log."""
        self._context.log.info(message)

    def acquire(self, lease: RolloutLease) -> None:
        """Take the model's lease; one that a dead run left runs out within seconds, and is waited for."""
        for attempt in Retrying(
            retry=retry_if_exception_type(LeaseHeld),
            wait=wait_fixed(1),
            stop=stop_after_delay(LEASE_SECONDS),
            reraise=True,
        ):
            with attempt:
                if attempt.retry_state.attempt_number == 2:
                    self.log(f"another run holds the lease of {self.model}: waiting until it ends or runs out")
                lease.acquire()

    def end(self) -> None:
        """Nothing follows: the model's lease is given up when this stage ends."""
        self.ended = True

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

    def conclude(
        self,
        verdict: VerdictValue,
        reason: str,
        *,
        figures: dict[str, float] | None = None,
        cause: Cause = "judged",
        wait: bool = True,
    ) -> Record:
        """End the trial: canary away, record kept, Event and log line written.

        Args:
            verdict: What was decided.
            reason: Why: a first line for the changelog, and what lines follow (events, log tails) as details.
            figures: What was measured.
            cause: Whether it was decided, or cancelled.
            wait: Whether a GPU that was on trial is waited for. Who cancels is not kept waiting.

        Returns:
            The record.
        """
        assert self.release is not None
        self.end()
        # The record is to say of the stage that decided, too, how long it took.
        self.clock(self._started)
        if verdict != "Passed":
            self._remove_canary(wait=None)
        record = end_trial(
            self.platform,
            self.release,
            self._opened(),
            verdict,
            reason,
            cause=cause,
            figures=figures,
        )
        self.concluded = True
        log = self._context.log
        tell_verdict(self.platform, record, log.info if verdict == "Passed" else log.error)
        if verdict != "Passed" and wait:
            # A verdict ends with the GPU free.
            self._remove_canary(wait=GONE_SECONDS)
        return record

    def _remove_canary(self, *, wait: float | None) -> None:
        """Remove the canary. One that users cannot do without stays up: the reaper removes it when stable is ready."""
        try:
            remove_canary(self.platform, self.model, wait=wait, log=self.log)
        except StillNeeded as error:
            self.log(f"the canary is left for the reaper: {error}")

    def clock(self, started: float) -> None:
        """Keep how long the stage took, since the monotonic time `started`."""
        if self.release is not None:
            self.records.save_seconds(self.model, self.release.id, self.stage, time.monotonic() - started)

    def settle(self, *, wait: bool) -> None:
        """Undo a promotion that did not hold. A failure to do so is told, and does not hide why it had to be undone."""
        try:
            tried = self.release.id if self.release else None
            state = recover(self.platform, self.model, self.log)
            settle(self.platform, self.model, state, tried, self.log, wait=wait)
        except LlmopsError as error:
            self.log(f"going back did not succeed: {error}")

    def cancel(self) -> None:
        """End the trial after its stage, as no other stage takes it up."""
        with capture_interrupts():
            self.settle(wait=False)
            why = "the run was cancelled, or failed, before the next stage began"
            self.conclude("Inconclusive", why, cause="cancelled", wait=False)

    def leave(self) -> None:
        """Leave the trial to the run's next stage, in this process or in one of its own; end it if there is none."""
        if self.ended:
            return
        if not self.judged or self.release is None or not self._stages_left():
            self.end()
            if self.judged and self.release is not None and self.stage in WITH_CANARY:
                why = f"the run went no further than {self.stage}: the stages after it were not asked for"
                self.conclude("Inconclusive", why, cause="cancelled")
        elif len(self._context.get_step_execution_context().execution_plan.step_keys_to_execute) > 1:
            self.platform.left_open(self.model, self.cancel)
        else:
            self.platform.hand_over(self.model)

    def _stages_left(self) -> bool:
        """Whether the run has stages after this one."""
        run = self._context.run
        assets = [key.to_user_string() for key in run.asset_selection or ()]
        asked = run.step_keys_to_execute or assets or STAGES
        return self.stage in STAGES and any(stage in asked for stage in STAGES[STAGES.index(self.stage) + 1 :])

    def announce(self, reason: str, line: str) -> None:
        """Write one line as a Kubernetes Event on the model's state, and into the run's log."""
        log, wanted = self._context.log, reason in WANTED
        (log.info if wanted else log.error)(line)
        leave_event(self.platform, self.model, reason, line, "Normal" if wanted else "Warning")


@contextmanager
def trial(
    context: Context, platform: Platform, stage: str, *, model: str | None = None, judged: bool = True
) -> Generator[Trial]:
    """Run a stage under the model's lease, and end its trial by what it raises.

    A bad release is rejected and that is remembered. Where the cluster can't, an outside service is away or a
    measurement failed, the release stays untried: Inconclusive. An interrupt or a fault of ours ends it so, too.

    Args:
        context: Of the Dagster asset, or of the rollback's op.
        platform: The installation.
        stage: Name of the stage.
        model: Name of the model; None takes the asset's partition.
        judged: Whether the end is a verdict on the release. A rollback that fails says nothing against its target.

    Raises:
        dagster.Failure: The trial ended here; the description says why.
        LeaseHeld: Another run is at the model, and this one has not begun yet: only from the first stage.
    """
    current = Trial(context, platform, stage, model or context.partition_key, judged=judged)
    started = time.monotonic()
    lease = platform.lease(current.model, current.run)
    try:
        current.acquire(lease)
        platform.taken_up(current.model)
        recover(platform, current.model, current.log)
        yield current
        current.clock(started)
        current.leave()
    except dg.Failure:
        current.end()
        raise
    except LlmopsError as error:
        current.end()
        if isinstance(error, LeaseHeld) and stage == STAGES[0]:
            raise
        verdict = _verdict(current, error)
        try:
            record = _undo(current, lease, started, verdict, str(error), wait=True)
        except Exception:
            raise
        except BaseException:
            with capture_interrupts():
                _undo(current, lease, started, verdict, str(error), wait=False)
            raise
        if record is not None:
            raise failure(record) from error
        raise dg.Failure(
            f"{current.model}: {error}", metadata={"error": kind_of(error)}, allow_retries=False
        ) from error
    except Exception as error:
        current.end()
        _undo(current, lease, started, "Inconclusive", f"an error of llmops itself: {error!r}", wait=True)
        raise
    except BaseException:
        current.end()
        # Whoever is impatient and interrupts once more would leave half of it undone.
        with capture_interrupts():
            _undo(current, lease, started, "Inconclusive", "the run was cancelled", cause="cancelled", wait=False)
        raise
    finally:
        # Between two stages the lease stays with the run: nobody may put another release under trial meanwhile.
        if current.ended:
            platform.free_lease(current.model)


def _verdict(current: Trial, error: LlmopsError) -> VerdictValue:
    """What an error of a stage says of the release."""
    if isinstance(error, MeasurementFailed) and current.release and current.release.rollout.on_inconclusive == "reject":
        return "Failed"
    return "Failed" if isinstance(error, BadRelease) else "Inconclusive"


def _undo(
    current: Trial,
    lease: RolloutLease,
    started: float,
    verdict: VerdictValue,
    reason: str,
    *,
    cause: Cause = "judged",
    wait: bool,
) -> Record | None:
    """Undo what did not hold, and keep the verdict; None if there is none to keep.

    Whoever has the lease by now has the objects, too: nothing of theirs may be changed.
    """
    if lease.lost():
        return None
    current.clock(started)
    current.settle(wait=wait)
    if current.release is None or not current.judged or current.concluded or lease.lost():
        return None
    return current.conclude(verdict, reason, cause=cause, wait=wait)


def failure(record: Record) -> dg.Failure:
    """What the Dagster UI shows of a trial that did not pass."""
    return dg.Failure(
        description=f"{record.verdict} at {record.stage}: {record.reason}\n{record.details}".strip(),
        metadata={"release": record.release, "verdict": record.verdict, "reason": record.reason},
        allow_retries=False,
    )


def refusal(record: Record) -> dg.Failure:
    """What is said of a release that was rejected before and is asked for again."""
    return dg.Failure(
        description=f"{record.model} {record.release} ({record.image.partition('@')[0]}) was rejected on "
        f"{record.finished:%Y-%m-%d %H:%M} UTC at {record.stage}: {record.reason} --engine-version takes another "
        "version; this one is tried again when a pin or a gate changes, or with --retry.",
        metadata={"release": record.release, "verdict": record.verdict, "reason": record.reason},
        allow_retries=False,
    )
