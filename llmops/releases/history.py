"""The trials of a release in the data of its record: every ended trial stays, and the newest decision is in force.

A trial that was cancelled, died or decided nothing changes no earlier verdict.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence

from pydantic import Field

from llmops.config.schema import Strict, VerdictValue
from llmops.releases.ledger import Cause, Decided
from llmops.releases.store import Changes, Data

VERDICT_KEY = "verdict.json"
"""The record of the last trial, until another trial begins."""
REJECTION_KEY = "rejection.json"
"""Earlier versions of llmops kept here a rejection that was in force."""
ENDED_PREFIX = "ended."
KEPT_BYTES = 100_000
"""What the ended trials of a release may take: they share a ConfigMap of 1 MiB with pins and outcomes."""


class OpenTrial(Strict):
    """A trial without a verdict: the reaper of an abandoned one reports its run and stage.

    Args:
        run: Dagster run of the trial.
        requested_by: Who or what asked for it.
        stage: The last stage that started.
        since: When it started.
        served: Release that served then; "" is none, None unknown.
        began: When the trial's first stage started; None unknown.
    """

    run: str
    requested_by: str
    stage: str
    since: datetime.datetime
    served: str | None = None
    began: datetime.datetime | None = None


class Record(Strict):
    """The record of a release's trial: its verdict, the reason, the figures, and who asked for it."""

    model: str
    release: str
    verdict: VerdictValue
    reason: str = Field(description="One line.")
    details: str = Field(default="", description="Evidence: events, last log lines.")
    stage: str = Field(description="Stage that decided.")
    image: str
    commit: str
    figures: dict[str, float] = Field(default_factory=dict[str, float])
    stages: dict[str, float] = Field(default_factory=dict[str, float], description="Seconds that each stage took.")
    run: str = ""
    requested_by: str = ""
    accepted: tuple[str, ...] = Field(
        default=(), description="Ids of the preflight's findings that would have stopped the trial, and were accepted."
    )
    code: str = Field(
        default="", description="The reason in one CamelCase word; empty where a gate or a person decided."
    )
    finished: datetime.datetime
    cause: Cause = Field(
        default="judged",
        description="judged: a stage or a gate decided; cancelled, died: the run ended before a decision.",
    )

    @property
    def decided(self) -> Decided:
        """The part of the record that the ledger keeps."""
        return Decided(verdict=self.verdict, stage=self.stage, cause=self.cause)


def last_record(data: Data) -> Record | None:
    """The record of the last trial; None if none has ended, or another one has begun since."""
    return Record.model_validate_json(data[VERDICT_KEY]) if VERDICT_KEY in data else None


def ended(data: Data) -> list[Record]:
    """The records of all ended trials, newest first."""
    texts = {text for key, text in data.items() if key in (VERDICT_KEY, REJECTION_KEY) or key.startswith(ENDED_PREFIX)}
    return newest_first(Record.model_validate_json(text) for text in texts)


def newest_first(records: Iterable[Record]) -> list[Record]:
    """Sort records by the end of their trials."""
    return sorted(records, key=lambda record: record.finished, reverse=True)


def in_force(records: Sequence[Record]) -> Record | None:
    """The newest trial that passed or rejected the release; None if none did.

    Args:
        records: Trials of one release, newest first.
    """
    return next((record for record in records if record.verdict != "Inconclusive"), None)


def appending(data: Data, record: Record) -> Changes:
    """Changes to a record's data that add an ended trial.

    If all trials take more than `KEPT_BYTES`, the oldest ones go, but never the one in force.
    """
    records = newest_first([record, *ended(data)])
    force = in_force(records)
    changes: dict[str, str | None] = dict.fromkeys(
        (key for key in data if key == REJECTION_KEY or key.startswith(ENDED_PREFIX)), None
    )
    size = 0
    for kept in records:
        text = kept.model_dump_json()
        size += len(text.encode())
        if size <= KEPT_BYTES or kept in (record, force):
            changes[_key(kept)] = text
    return changes | {VERDICT_KEY: record.model_dump_json()}


def beginning(data: Data) -> Changes:
    """Changes to a record's data that begin another trial: an earlier version of llmops kept the last one only here."""
    last = last_record(data)
    return {VERDICT_KEY: None} | ({_key(last): data[VERDICT_KEY]} if last else {})


def withdrawing(record: Record, last: Record | None) -> Changes:
    """Changes to a record's data that take back an entry, because what it says did not happen.

    Args:
        record: The entry.
        last: The record of the last trial before the entry.
    """
    return {_key(record): None, VERDICT_KEY: last.model_dump_json() if last else None}


def _key(record: Record) -> str:
    finished = record.finished.astimezone(datetime.UTC)
    return f"{ENDED_PREFIX}{finished:%Y%m%dT%H%M%S.%f}Z.json"
