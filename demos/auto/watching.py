"""Threads that put Dagster's runs and the cluster's Events onto the timeline."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager

from llmops_sandbox.timeline import Timeline
from llmops_sandbox.ui import Run, Ui

from llmops.clients.kubernetes.client import Cluster
from llmops.errors import LlmopsError

POLL_SECONDS = 1.0


@contextmanager
def watched(timeline: Timeline, cluster: Cluster, ui: Ui) -> Generator[None]:
    """Follow Dagster's runs and llmops' Events during the context."""
    stop = threading.Event()
    threads = [
        threading.Thread(target=_follow_events, args=(timeline, cluster, stop), daemon=True),
        threading.Thread(target=_follow_runs, args=(timeline, ui, stop), daemon=True),
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(timeout=10)


def _follow_events(timeline: Timeline, cluster: Cluster, stop: threading.Event) -> None:
    shown: set[str] = set()
    while not stop.is_set():
        try:
            events = cluster.list("Event")
        except LlmopsError as error:
            timeline.add("cluster", f"Events cannot be read: {error}")
            events = []
        for event in events:
            uid = event["metadata"]["uid"]
            if uid not in shown and (event.get("source") or {}).get("component") == "llmops":
                shown.add(uid)
                timeline.add("cluster", f"Event {event['reason']}: {event['message']}", reason=event["reason"])
        stop.wait(POLL_SECONDS)


def _follow_runs(timeline: Timeline, ui: Ui, stop: threading.Event) -> None:
    shown: dict[str, Run] = {}
    while not stop.is_set():
        try:
            runs = ui.runs()
        except LlmopsError:
            # The webserver starts or restarts: the next poll shows its runs.
            runs = []
        for run in runs:
            if shown.get(run.id) != run:
                shown[run.id] = run
                requester = f", requested by {run.requested_by}" if run.requested_by else ""
                timeline.add("dagster", f"run {run.id[:8]} of {run.job} {run.status}{requester}", run=run.id)
        stop.wait(POLL_SECONDS)
