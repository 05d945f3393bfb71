from __future__ import annotations

import json
import ssl
import threading
import time
import urllib.error
import urllib.request

import pytest

from sandbox.tests.agent.agent_machine import Cluster, Refused, eventually, shell


def test_tail_limit_times_and_since(cluster: Cluster) -> None:
    cluster.pod("p", shell("c", "for n in 1 2 3 4 5; do echo line $n; done; printf end"), restartPolicy="Never")
    cluster.wait_phase("p", "Succeeded")
    assert cluster.log("p") == "line 1\nline 2\nline 3\nline 4\nline 5\nend"
    assert cluster.log("p", "tailLines=2") == "line 5\nend"
    assert cluster.log("p", "limitBytes=10") == "line 1\nlin"
    assert cluster.log("p", "sinceSeconds=3600").startswith("line 1")
    stamped = cluster.log("p", "timestamps=true&tailLines=1")
    assert stamped.endswith("Z end")
    time.sleep(1.2)
    assert cluster.log("p", "sinceSeconds=1") == ""


def test_following_ends_with_the_container(cluster: Cluster) -> None:
    cluster.pod("p", shell("c", "echo one; sleep 1; echo two >&2; sleep 0.3"), restartPolicy="Never")
    cluster.wait_state("p", lambda c: "running" in c["state"])
    lines: list[str] = []
    thread = threading.Thread(target=lambda: lines.append(cluster.log("p", "follow=true")))
    thread.start()
    thread.join(10)
    assert lines == ["one\ntwo\n"]


def test_a_container_that_waits_has_no_log_yet(cluster: Cluster) -> None:
    cluster.pod("p", {"name": "c", "image": "unknown/image:v1"})
    eventually(lambda: cluster.state("p").get("state", {}).get("waiting", {}).get("reason") == "ErrImagePull")
    with pytest.raises(Refused, match="waiting to start: ErrImagePull") as refused:
        cluster.log("p")
    assert refused.value.code == 400


def test_strangers_are_not_answered(cluster: Cluster) -> None:
    port = json.loads((cluster.machine.folder / "agent.json").read_text())["port"]
    context = ssl.create_default_context(cafile=str(cluster.machine.folder / "pki" / "ca.crt"))
    with pytest.raises((urllib.error.URLError, ssl.SSLError, ConnectionError)):
        urllib.request.urlopen(f"https://127.0.0.1:{port}/healthz", context=context, timeout=5)
    trusting = cluster.machine.context()
    with urllib.request.urlopen(f"https://127.0.0.1:{port}/healthz", context=trusting, timeout=5) as answer:
        assert answer.read() == b"ok"
