"""Alerts that are to be sent, kept in the cluster until they are: a lost database or a dead daemon loses none.

Whoever has something to tell puts an alert here and goes on; delivery (`llmops.alerts`) sends it to each
target and leaves a mark for each. The mark of an attempt is written before the attempt is made: two deliverers never
send the same alert at the same time, and one that died in the middle is succeeded after a pause.

An alert is sent once to each target, with one exception that no sender can rule out: whoever dies between sending an
alert and marking it as delivered makes it be sent again. Receivers get the alert's id each time (in a header and in
the body of a webhook), so that they can drop what they have had already.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from llmops.clients.kubernetes.client import Cluster
from llmops.config import names
from llmops.config.alerting import AlertKind, AlertTarget, Severity
from llmops.config.catalog.spec import Strict
from llmops.releases.store import Changes, Data, Store, config_map

LINE_LENGTH = 600
RECORD = "alert"
ALERT_KEY = "alert.json"
MARK_PREFIX = "target."
KEPT = datetime.timedelta(days=7)
"""How long an alert is remembered after it was sent, so that the same happening is not told again."""
KEPT_ALERTS = 1000
"""How many of those are remembered at most."""


def alert_id(kind: AlertKind, *happening: str) -> str:
    """The id of an alert: the same happening has the same id, whoever tells of it and how often.

    Args:
        kind: Kind of the alert.
        happening: What tells it from others of its kind, such as model, release and run. Not the time of telling.
    """
    return hashlib.sha256(json.dumps([kind, *happening]).encode()).hexdigest()[:20]


def _one_line(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    line = " ".join(value.split())
    return line if len(line) <= LINE_LENGTH else f"{line[: LINE_LENGTH - 1]}…"


class Alert(Strict):
    """One thing that people are told."""

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{20}$")] = Field(description="From `alert_id`.")
    kind: AlertKind
    severity: Severity
    model: str = Field(default="", description="Name of the model; empty where it is about none.")
    release: str = Field(default="", description="Id of the release; empty where it is about none.")
    line: Annotated[str, BeforeValidator(_one_line)] = Field(
        min_length=1, description="What happened and why, and what to do next if anything. Made one line."
    )
    serving: str | None = Field(default=None, description="Id of the release that serves users now; None is: none.")
    run: str = Field(default="", description="Dagster run.")
    at: datetime.datetime = Field(description="When it happened, with time zone.")


class Mark(Strict):
    """How far the delivery of an alert to one target is."""

    state: Literal["trying", "delivered", "given_up"] = "trying"
    attempts: int = 1
    since: datetime.datetime = Field(description="First attempt.")
    next: datetime.datetime = Field(description="When to try again, if the attempt under way does not succeed.")
    error: str = Field(default="", description="How the last attempt failed.")


@dataclass(frozen=True)
class Waiting:
    """An alert that is not yet settled, with the marks of its targets by their names.

    Attributes:
        alert: The alert.
        marks: How far its delivery is.
    """

    alert: Alert
    marks: dict[str, Mark]


class Outbox:
    """Puts alerts, and keeps how far their delivery is: one ConfigMap for each alert.

    Args:
        cluster: Where they are kept; the ConfigMaps stand in its namespace.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._store = Store(cluster)

    def put(self, alert: Alert) -> bool:
        """Have an alert sent. One that was put before stays as it was; one too old to be remembered is left out.

        Returns:
            Whether it is new.
        """
        if alert.at < datetime.datetime.now(datetime.UTC) - KEPT:
            return False
        labels = names.labels(alert.model, alert.release, "alert", run=alert.run)
        labels |= {names.RECORD_LABEL: RECORD, names.ALERT_LABEL: "pending"}
        return self._store.create(config_map(names.alert_name(alert.id), labels, {ALERT_KEY: alert.model_dump_json()}))

    def pending(self) -> list[Waiting]:
        """Alerts that some target may still have to get, oldest first."""
        pending = self._list({names.ALERT_LABEL: "pending"})
        return sorted(pending, key=lambda waiting: (waiting.alert.at, waiting.alert.id))

    def alerts(self, *, run: str | None = None) -> list[Alert]:
        """All alerts that are remembered, newest first.

        Args:
            run: Only those about this Dagster run.
        """
        alerts = (remembered.alert for remembered in self._list({names.RUN_LABEL: run} if run else {}))
        return sorted(alerts, key=lambda alert: (alert.at, alert.id), reverse=True)

    def known(self, alert: str) -> bool:
        """Whether an alert of this id was put, and is remembered."""
        return self._store.get(names.alert_name(alert)) is not None

    def claim(self, alert: Alert, target: str, decide: Callable[[Mark | None], Mark | None]) -> Mark | None:
        """Write down that delivery to a target is tried now, before it is.

        Args:
            alert: The alert.
            target: Name of the target.
            decide: Gets the target's mark as it is now, and says what it is to be; None leaves it, as the attempt is
                not this caller's to make.

        Returns:
            The new mark; None if nothing was to be done, or the alert is gone.
        """

        def claiming(data: Data) -> Changes | None:
            mark = decide(_waiting(data).marks.get(target)) if data else None
            return None if mark is None else {f"{MARK_PREFIX}{target}": mark.model_dump_json()}

        claimed = self._store.update(names.alert_name(alert.id), {}, claiming)
        return None if claimed is None else _waiting(claimed.data).marks[target]

    def mark(self, alert: Alert, target: str, mark: Mark) -> None:
        """Keep how an attempt ended."""
        self.claim(alert, target, lambda _: mark)

    def delivered(self, alert: Alert, target: str) -> None:
        """Keep that the target has the alert."""
        self.claim(alert, target, _delivered)

    def settle(self, alert: Alert) -> None:
        """Keep that there is nobody left to send the alert to."""
        settled = {names.ALERT_LABEL: "settled"}
        self._store.update(names.alert_name(alert.id), settled, lambda data: {} if data else None)

    def note(self, alert: Alert, reason: str, line: str) -> None:
        """Leave a warning about an alert as an Event on its object."""
        stored = self._store.get(names.alert_name(alert.id))
        if stored is not None:
            self.cluster.event(stored.manifest, reason, line, type="Warning")

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
    """Those of the targets that want the alert, and neither have it nor were given up."""
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
