"""Logs of pods that really run, across a killed API server."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmops_sandbox.cluster.controlplane import ControlPlane

from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.logs import Bookmark
from llmops.clients.kubernetes.wait import wait_for_job, wait_for_rollout
from llmops.clients.kubernetes.watch import Object
from llmops.errors import BadRelease, ClusterCannot
from tests.api.cluster.conftest import api_server_away, eventually

pytestmark = pytest.mark.usefixtures("agent")

COUNT = """
import time
for number in range({count}):
    print(number)
    time.sleep({pause})
"""


def spec(program: str, restart: str = "Never") -> Object:
    container = {"name": "engine", "image": "example.com/python:1", "args": [program]}
    return {"restartPolicy": restart, "terminationGracePeriodSeconds": 1, "containers": [container]}


def start(cluster: Cluster, program: str, restart: str = "Never") -> None:
    cluster.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec(program, restart)})


def state(cluster: Cluster) -> dict[str, Any]:
    pod = cluster.get("Pod", "p") or {}
    return ((pod.get("status") or {}).get("containerStatuses") or [{"state": {}}])[0]["state"]


def job(program: str, **more: Any) -> Object:
    template = {"metadata": {"labels": {"app": "job"}}, "spec": spec(program)}
    body = {"backoffLimit": 0, "template": template, **more}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"}, "spec": body}


def test_a_followed_log_outlives_a_killed_api_server(cluster: Cluster, plane: ControlPlane) -> None:
    start(cluster, COUNT.format(count=120, pause=0.05))
    lines: list[str] = []

    def follow() -> None:
        lines.extend(cluster.follow_logs("p", container="engine", stop=lambda: False))

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    eventually(lambda: state(cluster).get("running"))
    time.sleep(1)
    with api_server_away(plane):
        time.sleep(1)
    thread.join(60)
    assert not thread.is_alive()
    assert lines == [str(number) for number in range(120)]


def test_following_a_quiet_container_stops_when_asked(cluster: Cluster) -> None:
    start(cluster, "import time; print('quiet now'); time.sleep(3600)")
    stop = threading.Event()
    lines = cluster.follow_logs("p", container="engine", stop=stop.is_set)
    assert next(lines) == "quiet now"
    threading.Timer(0.5, stop.set).start()
    assert list(lines) == []
    cluster.delete("Pod", "p")


def test_the_tail_of_the_previous_instance(cluster: Cluster) -> None:
    start(cluster, COUNT.format(count=5, pause=0) + "raise SystemExit(1)", restart="Always")
    eventually(lambda: cluster.get("Pod", "p") if state(cluster) else None)
    eventually(
        lambda: (
            True if ((cluster.get("Pod", "p") or {})["status"]["containerStatuses"][0]["restartCount"]) > 0 else None
        )
    )
    assert cluster.logs("p", tail=2, previous=True) == "3\n4\n"
    cluster.delete("Pod", "p")


def test_lines_of_a_job_come_as_they_are_written_and_to_the_last(cluster: Cluster) -> None:
    program = (
        "import os, time\n"
        "print('shard', os.environ['JOB_COMPLETION_INDEX'])\n"
        "time.sleep(1.5)\n"
        "open('/dev/termination-log', 'w').write('{}')\n"
        "print('done')\n"
    )
    cluster.create(job(program, completionMode="Indexed", completions=2, parallelism=2))
    timed: list[tuple[float, str]] = []
    outcome = wait_for_job(
        cluster, "job", timeout=60, on_line=lambda line: timed.append((time.monotonic(), line)), allow_pending_seconds=5
    )
    ended = time.monotonic()
    assert outcome.succeeded
    assert sorted(line for _, line in timed) == ["[0] done", "[0] shard 0", "[1] done", "[1] shard 1"]
    first = next(at for at, line in timed if line == "[0] shard 0")
    assert ended - first > 1
    assert outcome.seconds >= 1


def test_lines_of_a_job_that_is_over_at_once_are_not_lost(cluster: Cluster) -> None:
    cluster.create(job(COUNT.format(count=2000, pause=0)))
    lines: list[str] = []
    wait_for_job(cluster, "job", timeout=60, on_line=lines.append)
    assert lines == [str(number) for number in range(2000)]


def test_a_failed_job_comes_with_the_end_of_its_log(cluster: Cluster) -> None:
    cluster.create(job("raise ValueError('config.json is torn')"))
    outcome = wait_for_job(cluster, "job", timeout=60)
    with pytest.raises(ClusterCannot, match=r"last lines of engine:(.|\n)*ValueError: config.json is torn") as raised:
        outcome.raise_for_failure()
    assert raised.value.code == "Crashed"


def test_a_rollout_of_a_crashing_program_comes_with_the_end_of_its_log(cluster: Cluster) -> None:
    crashing = spec("import sys; sys.exit('no such flag')", "Always")
    crashing["containers"][0]["readinessProbe"] = {"tcpSocket": {"port": 9}}
    template = {"metadata": {"labels": {"app": "web"}}, "spec": crashing}
    body = {"selector": {"matchLabels": {"app": "web"}}, "template": template}
    cluster.apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": body})
    with pytest.raises(BadRelease, match=r"last lines of engine:\n  no such flag") as raised:
        wait_for_rollout(cluster, "web", timeout=60)
    assert raised.value.code == "CrashLoop"
    cluster.delete("Deployment", "web")


@given(st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=40), st.integers(-5, 5))
def test_a_reader_that_comes_back_loses_and_repeats_nothing(steps: list[tuple[int, bool]], jitter: int) -> None:
    """Lines with times that repeat or run a little back; the connection is lost after those marked."""
    at, log = 10, list[tuple[int, str]]()
    for number, (step, _) in enumerate(steps):
        at += step
        log.append((at + (jitter if number % 3 else 0), f"line {number}"))
    stamped = [f"2026-11-25T00:{time_ // 600:02}:{time_ // 10 % 60:02}.{time_ % 10} {text}" for time_, text in log]
    stamped = [line.replace(" line", "Z line") for line in stamped]
    mark, read, position = Bookmark(), list[str](), 0
    while position < len(log):
        end = next((number + 1 for number in range(position, len(log)) if steps[number][1]), len(log))
        since = mark.since()
        mark.resume()
        again = [line for line in stamped[:end] if since is None or line[:19] >= since.rstrip("Z")]
        read += [text for line in again if (text := mark.take(line)) is not None]
        position = end
    assert read == [text for _, text in log]
