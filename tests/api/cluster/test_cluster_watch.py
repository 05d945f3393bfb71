"""Watches against a real API server, which is killed and started again under them."""

from __future__ import annotations

import threading
import time

from llmops_sandbox.cluster.controlplane import ControlPlane

from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.wait import wait_until
from llmops.clients.kubernetes.watch import Event, Watch
from tests.api.cluster.conftest import api_server_away, config_map, eventually


class Listener:
    """Collects a watch's events in a thread, with the time at which they came."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.seen: list[tuple[str, str, str | None]] = []
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        for event in self.watch:
            self.seen.append(summary(event))

    def has(self, *expected: tuple[str, str, str | None]) -> None:
        eventually(lambda: True if self.seen[-len(expected) :] == list(expected) else None)


def summary(event: Event) -> tuple[str, str, str | None]:
    if event.type == "SYNCED":
        return ("SYNCED", "", None)
    return (event.type, event.object["metadata"]["name"], (event.object.get("data") or {}).get("a"))


def test_changes_come_as_they_happen(cluster: Cluster) -> None:
    cluster.create(config_map("one", a="1"))
    listener = Listener(cluster.open_watch("ConfigMap", name="one", timeout=3600))
    listener.has(("ADDED", "one", "1"), ("SYNCED", "", None))
    cluster.create(config_map("other"))
    cluster.patch("ConfigMap", "one", {"data": {"a": "2"}})
    listener.has(("MODIFIED", "one", "2"))
    cluster.delete("ConfigMap", "one")
    listener.has(("DELETED", "one", "2"))
    listener.watch.close()
    listener.thread.join(60)
    assert not listener.thread.is_alive()


def test_a_watch_ends_in_time(cluster: Cluster) -> None:
    started = time.monotonic()
    assert list(cluster.watch("ConfigMap", name="none", timeout=1)) == []
    assert time.monotonic() - started > 0.9


def test_a_watch_and_a_call_outlive_a_killed_api_server(cluster: Cluster, plane: ControlPlane) -> None:
    cluster.create(config_map("one", a="1"))
    listener = Listener(cluster.open_watch("ConfigMap", name="one", timeout=60))
    listener.has(("ADDED", "one", "1"), ("SYNCED", "", None))
    answers: list[object] = []
    with api_server_away(plane):
        call = threading.Thread(target=lambda: answers.append(cluster.get("ConfigMap", "one")), daemon=True)
        call.start()
        time.sleep(2)
        assert not answers
    call.join(20)
    assert answers
    assert answers != [None]
    cluster.patch("ConfigMap", "one", {"data": {"a": "2"}})
    listener.has(("MODIFIED", "one", "2"))
    # The watch delivered no change twice.
    assert [change[0] for change in listener.seen] == ["ADDED", "SYNCED", "MODIFIED"]
    listener.watch.close()


def test_a_watch_that_lost_its_server_can_be_closed(cluster: Cluster, plane: ControlPlane) -> None:
    listener = Listener(cluster.open_watch("ConfigMap", name="one", timeout=60))
    listener.has(("SYNCED", "", None))
    with api_server_away(plane):
        time.sleep(0.5)
        listener.watch.close()
        listener.thread.join(8)
        assert not listener.thread.is_alive()


def test_a_wait_sees_absence_presence_and_deletion(cluster: Cluster) -> None:
    seen: list[str | None] = []

    def check(current: dict[str, object] | None) -> str | None:
        seen.append(None if current is None else "there")
        if current is None and len(seen) == 1:
            cluster.create(config_map("one"))
        if current is not None:
            cluster.delete("ConfigMap", "one")
        return "gone again" if current is None and "there" in seen else None

    assert wait_until(cluster, "ConfigMap", "one", check, timeout=20, describe="it comes and goes") == "gone again"
    assert seen == [None, "there", None]
