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
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from llmops import names
from llmops.catalog.spec import ModelSpec
from llmops.cluster.lease import RolloutLease
from llmops.errors import BadInput, BadRelease, ClusterCannot, LlmopsError, MeasurementFailed, Unavailable
from llmops.releases.records import Record, Records, VerdictValue
from llmops.releases.release import Release
from llmops.stages.cleanup import remove_canary, settle
from llmops.stages.platform import Platform

Context = dg.AssetExecutionContext | dg.OpExecutionContext
DETAILS_LENGTH = 8000
# A lease runs out 15 s after its holder died.
LEASE_SECONDS = 25.0
GONE_SECONDS = 300.0
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
    """

    def __init__(self, context: Context, platform: Platform, stage: str, model: str) -> None:
        self.platform = platform
        self.cluster = platform.cluster
        self.records: Records = platform.records
        self.settings = platform.settings
        self.stage = stage
        self.model = model
        self.run: str = context.run.run_id
        self.requested_by: str = context.run.tags.get(REQUESTED_BY_TAG, "Dagster UI")
        self.release: Release | None = None
        self.ended = False
        self.concluded = False
        self._context = context

    @property
    def spec(self) -> ModelSpec:
        """What the catalog says of the model now."""
        return self.platform.catalog[self.model]

    def log(self, message: str) -> None:
        """One line in the run's log."""
        self._context.log.info(message)

    def acquire(self, lease: RolloutLease) -> None:
        """Take the model's lease; one that a dead run left runs out within seconds, and is waited for."""
        for attempt in Retrying(
            retry=retry_if_exception_type(ClusterCannot),
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
        self.release = self.records.release(self.model, release)
        return self.release

    def conclude(
        self,
        verdict: VerdictValue,
        reason: str,
        *,
        figures: dict[str, float] | None = None,
        cancelled: bool = False,
    ) -> Record:
        """End the trial: canary away, record kept, Event and log line written.

        Args:
            verdict: What was decided.
            reason: Why: a first line for the changelog, and what lines follow (events, log tails) as details.
            figures: What was measured.
            cancelled: Somebody waits for the run to end: what needs time is left to the cluster.

        Returns:
            The record.
        """
        assert self.release is not None
        line, _, details = reason.partition("\n")
        self.end()
        if verdict != "Passed":
            remove_canary(self.platform, self.model)
        record = Record(
            model=self.model,
            release=self.release.id,
            verdict=verdict,
            reason=line,
            details=details[-DETAILS_LENGTH:],
            stage=self.stage,
            image=f"{self.release.engine.image}:{self.release.engine.tag}@{self.release.engine.digest}",
            commit=self.release.weights.commit,
            figures=figures or {},
            stages=self.records.seconds(self.model, self.release.id),
            run=self.run,
            requested_by=self.requested_by,
            finished=datetime.datetime.now(datetime.UTC),
        )
        self.records.save_record(record)
        self.concluded = True
        self.announce(verdict, changelog_line(record, self.records.state(self.model).stable))
        if verdict != "Passed" and not cancelled:
            # A verdict ends with the GPU free. Who cancels is not kept waiting for it.
            remove_canary(self.platform, self.model, wait=GONE_SECONDS)
        return record

    def clock(self, started: float) -> None:
        """Keep how long the stage took, since the monotonic time `started`."""
        if self.release is not None:
            self.records.save_seconds(self.model, self.release.id, self.stage, time.monotonic() - started)

    def settle(self, *, wait: bool) -> None:
        """Undo a promotion that did not hold. A failure to do so is told, and does not hide why it had to be undone."""
        try:
            tried = self.release.id if self.release else None
            settle(self.platform, self.model, tried, self.log, wait=wait)
        except LlmopsError as error:
            self.log(f"going back did not succeed: {error}")

    def cancel(self) -> None:
        """End the trial after its stage, as no other stage takes it up."""
        self.settle(wait=False)
        self.conclude("Inconclusive", "the run was cancelled, or failed, before the next stage began", cancelled=True)

    def announce(self, reason: str, line: str) -> None:
        """Write one line as a Kubernetes Event on the model's state, and into the run's log."""
        log, wanted = self._context.log, reason in WANTED
        (log.info if wanted else log.error)(line)
        regarding = self.cluster.get("ConfigMap", names.state_name(self.model))
        if regarding is not None:
            self.cluster.event(regarding, reason, line, type="Normal" if wanted else "Warning")


def changelog_line(record: Record, stable: str | None) -> str:
    """What a person reads of a verdict: what happened, why, and what serves now."""
    done = {"Passed": "promoted", "Failed": "rejected", "Inconclusive": "not decided"}[record.verdict]
    serving = f"{stable} serves" if stable else "nothing serves"
    return f"{record.model} {record.release} {done} at {record.stage}: {record.reason} ({serving})"


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
    """
    platform.entered(stage)
    current = Trial(context, platform, stage, model or context.partition_key)
    started = time.monotonic()
    lease = platform.lease(current.model, current.run)
    try:
        current.acquire(lease)
        platform.taken_up(current.model)
        yield current
        current.clock(started)
        if current.release is not None and judged and not current.ended:
            platform.left_open(current.model, current.cancel)
    except dg.Failure:
        current.end()
        raise
    except LlmopsError as error:
        current.end()
        # Whoever has the lease now has the objects, too: nothing of theirs may be changed.
        if not lease.lost():
            current.clock(started)
            current.settle(wait=True)
        if current.release is None or not judged or current.concluded or lease.lost():
            raise dg.Failure(
                f"{current.model}: {error}", metadata={"error": kind_of(error)}, allow_retries=False
            ) from error
        verdict: VerdictValue = "Failed" if isinstance(error, BadRelease) else "Inconclusive"
        if isinstance(error, MeasurementFailed) and current.release.rollout.on_inconclusive == "reject":
            verdict = "Failed"
        raise failure(current.conclude(verdict, str(error))) from error
    except BaseException as error:
        current.end()
        if not lease.lost():
            cancelled = not isinstance(error, Exception)
            current.clock(started)
            current.settle(wait=not cancelled)
            if current.release is not None and judged and not current.concluded:
                what = "the run was cancelled" if cancelled else f"an error of llmops itself: {error!r}"
                current.conclude("Inconclusive", what, cancelled=cancelled)
        raise
    finally:
        # Between two stages the lease stays with the run: nobody may put another release under trial meanwhile.
        if current.ended:
            platform.free_lease(current.model)


def kind_of(error: LlmopsError) -> str:
    """The class of an error, out of the few that say what has to happen next."""
    kinds = (BadInput, BadRelease, ClusterCannot, MeasurementFailed, Unavailable)
    return next((kind.__name__ for kind in kinds if isinstance(error, kind)), type(error).__name__)


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
        description=f"{record.model} {record.release} was rejected on {record.finished:%Y-%m-%d %H:%M} UTC at "
        f"{record.stage}: {record.reason} It is tried again when a pin or a gate changes, or with --retry.",
        metadata={"release": record.release, "verdict": record.verdict, "reason": record.reason},
        allow_retries=False,
    )
