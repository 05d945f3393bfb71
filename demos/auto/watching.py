"""Threads that put onto the timeline what Dagster and the cluster say of themselves."""

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
    """Follow the runs of Dagster and the Events of llmops meanwhile."""
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
    told: set[str] = set()
    while not stop.is_set():
        try:
            found = cluster.list("Event")
        except LlmopsError as error:
            timeline.add("cluster", f"events cannot be read: {error}")
            found = []
        for event in found:
            uid = event["metadata"]["uid"]
            if uid not in told and (event.get("source") or {}).get("component") == "llmops":
                told.add(uid)
                timeline.add("cluster", f"Event {event['reason']}: {event['message']}", reason=event["reason"])
        stop.wait(POLL_SECONDS)


def _follow_runs(timeline: Timeline, ui: Ui, stop: threading.Event) -> None:
    told: dict[str, Run] = {}
    while not stop.is_set():
        try:
            found = ui.runs()
        except LlmopsError:
            # The webserver is not up yet, or is being restarted: what it knows then is told then.
            found = []
        for run in found:
            if told.get(run.id) != run:
                told[run.id] = run
                asked = f", asked for by {run.requested_by}" if run.requested_by else ""
                timeline.add("dagster", f"run {run.id[:8]} of {run.job} {run.status}{asked}", run=run.id)
        stop.wait(POLL_SECONDS)
