"""The outbox: alerts wait in the cluster until delivery has sent them, so a lost database or a dead daemon loses none.

`Outbox.put` returns at once; `llmops.alerts.delivery` sends the alert to each target and keeps a mark for each.
Delivery writes the mark before the attempt: two deliverers never send the same alert at once, and after a deliverer
dies, another one takes over when the pause in the mark ends.

Each target gets an alert once, with one exception that no sender can rule out: if a deliverer dies after it sends an
alert and before it marks it as delivered, the next one sends it again. The id is the same (a webhook has it in a header
and in the body), so receivers can drop duplicates.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from llmops.clients.kubernetes.client import Cluster
from llmops.config import names
from llmops.config.alerting import AlertKind, AlertTarget, Severity
from llmops.config.catalog.spec import Strict
from llmops.errors import LlmopsError
from llmops.releases.store import Changes, Data, Store, config_map

_log = logging.getLogger(__name__)

LINE_LENGTH = 600
RECORD = "alert"
ALERT_KEY = "alert.json"
MARK_PREFIX = "target."
KEPT = datetime.timedelta(days=7)
"""The outbox remembers a sent alert for so long, so that the same happening raises no second one."""
KEPT_ALERTS = 1000
"""Most sent alerts that the outbox remembers."""


def alert_id(kind: AlertKind, *happening: str) -> str:
    """The id of an alert: one happening has one id, in every process and on every call.

    Args:
        kind: Kind of the alert.
        happening: Tells it from others of its kind, such as model, release and run. Never the present time.
    """
    return hashlib.sha256(json.dumps([kind, *happening]).encode()).hexdigest()[:20]


def _one_line(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    line = " ".join(value.split())
    return line if len(line) <= LINE_LENGTH else f"{line[: LINE_LENGTH - 1]}…"


class Alert(Strict):
    """One message to people."""

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{20}$")] = Field(description="From `alert_id`.")
    kind: AlertKind
    severity: Severity
    model: str = Field(default="", description="Name of the model; empty if it is about none.")
    release: str = Field(default="", description="Id of the release; empty if it is about none.")
    line: Annotated[str, BeforeValidator(_one_line)] = Field(
        min_length=1, description="What happened and why, and what to do next if anything, in one line."
    )
    serving: str | None = Field(default=None, description="Id of the stable release; None if there is none.")
    now: str = Field(default="", description="What users get now, if that is not the stable release alone.")
    run: str = Field(default="", description="Dagster run.")
    at: datetime.datetime = Field(description="When it happened, with time zone.")


class Mark(Strict):
    """The state of the delivery of an alert to one target."""

    state: Literal["trying", "delivered", "given_up"] = "trying"
    attempts: int = 1
    since: datetime.datetime = Field(description="First attempt.")
    next: datetime.datetime = Field(description="Time of the next attempt, if the one under way fails.")
    error: str = Field(default="", description="Why the last attempt failed.")


@dataclass(frozen=True)
class Waiting:
    """An alert that is not settled.

    Attributes:
        alert: The alert.
        marks: By name of the target.
    """

    alert: Alert
    marks: dict[str, Mark]


class Outbox:
    """Keeps alerts and the marks of their delivery: one ConfigMap for each alert.

    Args:
        cluster: The ConfigMaps are in its namespace.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._store = Store(cluster)

    def put(self, alert: Alert) -> bool:
        """Put an alert, unless one of this id was put before or it happened more than `KEPT` ago.

        Returns:
            Whether the alert is new.
        """
        if alert.at < datetime.datetime.now(datetime.UTC) - KEPT:
            return False
        labels = names.labels(alert.model, alert.release, "alert", run=alert.run)
        labels |= {names.RECORD_LABEL: RECORD, names.ALERT_LABEL: "pending"}
        return self._store.create(config_map(names.alert_name(alert.id), labels, {ALERT_KEY: alert.model_dump_json()}))

    def pending(self) -> list[Waiting]:
        """Alerts that are not settled, oldest first."""
        pending = self._list({names.ALERT_LABEL: "pending"})
        return sorted(pending, key=lambda waiting: (waiting.alert.at, waiting.alert.id))

    def alerts(self, *, run: str | None = None) -> list[Alert]:
        """All alerts in the outbox, newest first.

        Args:
            run: Only alerts about this Dagster run.
        """
        alerts = (remembered.alert for remembered in self._list({names.RUN_LABEL: run} if run else {}))
        return sorted(alerts, key=lambda alert: (alert.at, alert.id), reverse=True)

    def known(self, alert: str) -> bool:
        """Whether the outbox has an alert of this id."""
        return self._store.get(names.alert_name(alert)) is not None

    def claim(self, alert: Alert, target: str, decide: Callable[[Mark | None], Mark | None]) -> Mark | None:
        """Write the mark of an attempt before the attempt.

        Args:
            alert: The alert.
            target: Name of the target.
            decide: Gets the present mark and returns the new one; None if no attempt is due.

        Returns:
            The new mark; None if no attempt is due, or the alert is gone.
        """

        def claiming(data: Data) -> Changes | None:
            mark = decide(_waiting(data).marks.get(target)) if data else None
            return None if mark is None else {f"{MARK_PREFIX}{target}": mark.model_dump_json()}

        claimed = self._store.update(names.alert_name(alert.id), {}, claiming)
        return None if claimed is None else _waiting(claimed.data).marks[target]

    def mark(self, alert: Alert, target: str, mark: Mark) -> None:
        """Write the mark of an attempt that ended."""
        self.claim(alert, target, lambda _: mark)

    def delivered(self, alert: Alert, target: str) -> None:
        """Mark the alert as delivered to the target."""
        self.claim(alert, target, _delivered)

    def settle(self, alert: Alert) -> None:
        """Mark the alert as settled: no target waits for it."""
        settled = {names.ALERT_LABEL: "settled"}
        self._store.update(names.alert_name(alert.id), settled, lambda data: {} if data else None)

    def note(self, alert: Alert, reason: str, line: str) -> None:
        """Leave a warning about an alert as an Event on its object. Without it, the log alone has the warning."""
        try:
            stored = self._store.get(names.alert_name(alert.id))
            if stored is not None:
                self.cluster.event(stored.manifest, reason, line, type="Warning")
        except LlmopsError as error:
            _log.warning("No Event %s is written for alert %s: %s", reason, alert.id, error)

    def prune(self, *, limit: int = KEPT_ALERTS, kept: datetime.timedelta = KEPT) -> list[str]:
        """Forget settled alerts that are older than `kept`, and the oldest above `limit`; never a pending one.

        Returns:
            Ids of what was forgotten.
        """
        alerts = (settled.alert for settled in self._list({names.ALERT_LABEL: "settled"}))
        newest_first = sorted(alerts, key=lambda alert: alert.at, reverse=True)
        oldest_kept = datetime.datetime.now(datetime.UTC) - kept
        old = [alert.id for index, alert in enumerate(newest_first) if index >= limit or alert.at < oldest_kept]
        for alert in old:
            self._store.delete(names.alert_name(alert))
        return old

    def _list(self, labels: Mapping[str, str]) -> list[Waiting]:
        return [_waiting(stored.data) for stored in self._store.list({names.RECORD_LABEL: RECORD, **labels})]


def unsettled(waiting: Waiting, targets: Iterable[AlertTarget]) -> list[AlertTarget]:
    """Targets that want the alert, have not got it yet, and that delivery has not given up."""
    alert, marks = waiting.alert, waiting.marks
    return [
        target
        for target in targets
        if target.wants(alert.kind, alert.severity)
        and (target.name not in marks or marks[target.name].state == "trying")
    ]


def _delivered(before: Mark | None) -> Mark:
    now = datetime.datetime.now(datetime.UTC)
    mark = before or Mark(since=now, next=now)
    return mark.model_copy(update={"state": "delivered", "error": ""})


def _waiting(data: Data) -> Waiting:
    return Waiting(
        alert=Alert.model_validate_json(data[ALERT_KEY]),
        marks={
            key.removeprefix(MARK_PREFIX): Mark.model_validate_json(text)
            for key, text in data.items()
            if key.startswith(MARK_PREFIX)
        },
    )
