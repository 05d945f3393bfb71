"""One stage at work on one release: the model's lease, the clock, and an end for whatever happens.

However a stage ends, by a verdict, an error or an interrupt, the trial leaves the canary's GPU free, stable serving, a
record, an Event and one log line that reads like a changelog.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

import dagster as dg

from llmops import names
from llmops.catalog.spec import ModelSpec
from llmops.cluster.lease import RolloutLease
from llmops.errors import BadInput, BadRelease, LlmopsError
from llmops.releases.records import Record, Records, VerdictValue
from llmops.releases.release import Release
from llmops.stages.cleanup import remove_canary
from llmops.stages.platform import Platform

REQUESTED_BY_TAG = f"{names.DOMAIN}/requested-by"


class Trial:
    """A release under trial, as one stage sees it.

    Args:
        context: Of the Dagster asset.
        platform: The installation.
        stage: Name of the stage.
    """

    def __init__(self, context: dg.AssetExecutionContext, platform: Platform, stage: str) -> None:
        self.platform = platform
        self.cluster = platform.cluster
        self.records: Records = platform.records
        self.settings = platform.settings
        self.stage = stage
        self.model: str = context.partition_key
        self.run: str = context.run_id
        self.requested_by: str = context.run_tags.get(REQUESTED_BY_TAG, "Dagster UI")
        self.release: Release | None = None
        self.on_abort: Callable[[], None] | None = None
        self._context = context

    @property
    def spec(self) -> ModelSpec:
        """What the catalog says of the model now."""
        return self.platform.catalog[self.model]

    def log(self, message: str) -> None:
        """One line in the run's log."""
        self._context.log.info(message)

    def load(self, release: str) -> Release:
        """Take up the release that the stage before handed over."""
        self.release = self.records.release(self.model, release)
        return self.release

    def conclude(
        self, verdict: VerdictValue, reason: str, *, figures: dict[str, float] | None = None
    ) -> Record:
        """End the trial: canary away, record kept, Event and log line written.

        Args:
            verdict: What was decided.
            reason: Why, as the rest of a changelog line.
            figures: What was measured.

        Returns:
            The record.
        """
        assert self.release is not None
        if verdict != "Passed":
            self.remove_canary()
        record = Record(
            model=self.model,
            release=self.release.id,
            verdict=verdict,
            reason=reason,
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
        line = changelog_line(record, self.records.state(self.model).stable)
        self.announce(verdict, line)
        return record

    def announce(self, reason: str, line: str) -> None:
        """Write one line as a Kubernetes Event on the model's state, and into the run's log."""
        log = self._context.log
        (log.info if reason == "Passed" else log.error)(line)
        regarding = self.cluster.get("ConfigMap", names.state_name(self.model))
        if regarding is not None:
            self.cluster.event(regarding, reason, line, type="Normal" if reason == "Passed" else "Warning")

    def remove_canary(self) -> None:
        """Take the canary away, and give stable back what it lent."""
        remove_canary(self.cluster, self.model)
        self.platform.trial_closed(self.model)


def changelog_line(record: Record, stable: str | None) -> str:
    """What a person reads of a verdict: what happened, why, and what serves now."""
    done = {"Passed": "promoted", "Failed": "rejected", "Inconclusive": "not decided"}[record.verdict]
    serving = f"{stable} serves" if stable else "nothing serves"
    return f"{record.model} {record.release} {done} at {record.stage}: {record.reason} ({serving})"


@contextmanager
def trial(context: dg.AssetExecutionContext, platform: Platform, stage: str) -> Generator[Trial]:
    """Run a stage under the model's lease, and end its trial by what it raises.

    A bad release is rejected and that is remembered. Where the cluster can't, an outside service is away or a
    measurement failed, the release stays untried: Inconclusive. An interrupt or a fault of ours ends it so, too.

    Raises:
        dagster.Failure: The trial ended here; the description says why.
    """
    platform.entered(stage)
    current = Trial(context, platform, stage)
    started = time.monotonic()

    def clock() -> None:
        if current.release is not None:
            platform.records.save_seconds(current.model, current.release.id, stage, time.monotonic() - started)

    with RolloutLease(platform.cluster, current.model, current.run):
        try:
            yield current
            clock()
        except dg.Failure:
            raise
        except LlmopsError as error:
            clock()
            _abort(current)
            if current.release is None:
                raise dg.Failure(f"{current.model}: {error}", allow_retries=False) from error
            verdict: VerdictValue = "Failed" if isinstance(error, BadRelease) else "Inconclusive"
            if verdict == "Inconclusive" and not isinstance(error, BadInput) and _rejects_inconclusive(current):
                verdict = "Failed"
            record = current.conclude(verdict, str(error))
            raise failure(record) from error
        except BaseException as error:
            clock()
            _abort(current)
            if current.release is not None:
                cancelled = not isinstance(error, Exception)
                what = "the run was cancelled" if cancelled else f"an error of llmops itself: {error!r}"
                current.conclude("Inconclusive", what)
            raise


def failure(record: Record) -> dg.Failure:
    """What the Dagster UI shows of a trial that did not pass."""
    return dg.Failure(
        description=f"{record.verdict} at {record.stage}: {record.reason}",
        metadata={"release": record.release, "verdict": record.verdict, "reason": record.reason},
        allow_retries=False,
    )


def _abort(current: Trial) -> None:
    if current.on_abort is not None:
        current.on_abort()


def _rejects_inconclusive(current: Trial) -> bool:
    assert current.release is not None
    return current.stage == "evaluation" and current.release.rollout.on_inconclusive == "reject"
