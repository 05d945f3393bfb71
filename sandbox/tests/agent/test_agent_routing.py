from __future__ import annotations

import contextlib
import socket
import threading
import time
import urllib.request

from sandbox.tests.agent.agent_machine import FLAGS, MOUNT, Cluster, Object, condition, eventually, web


def service(cluster: Cluster, **spec: object) -> str:
    created = cluster.create(
        "services", "s", spec={"selector": {"app": "web"}, "ports": [{"port": 8080, "targetPort": "http"}], **spec}
    )
    return f"{created['spec']['clusterIP']}:8080"


def ask(address: str, path: str = "/") -> str:
    with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
        return answer.read().decode()


def refused(address: str) -> bool:
    host, port = address.split(":")
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
    except ConnectionError:
        return True
    return False


def test_a_service_reaches_its_ready_pods_in_turn(cluster: Cluster) -> None:
    address = service(cluster)
    for name in ("a", "b"):
        cluster.pod(name, web(**MOUNT), labels={"app": "web"}, **FLAGS)
    cluster.pod("other", web(**MOUNT), labels={"app": "other"}, **FLAGS)
    for name in ("a", "b", "other"):
        cluster.wait_ready(name)
    answers = [ask(address) for _ in range(8)]
    assert answers.count("a") == answers.count("b") == 4


def test_connections_are_refused_until_a_pod_is_ready_and_after_the_last_one_went(cluster: Cluster) -> None:
    address = service(cluster)
    assert refused(address)
    delayed = web(**MOUNT)
    delayed["readinessProbe"] = {**delayed["readinessProbe"], "initialDelaySeconds": 1}
    cluster.pod("a", delayed, labels={"app": "web"}, **FLAGS)
    cluster.wait_state("a", lambda c: "running" in c["state"])
    assert refused(address)
    cluster.wait_ready("a")
    assert ask(address) == "a"
    cluster.delete("pods", "a")
    eventually(lambda: refused(address), 1)


def test_unready_pods_are_reached_where_the_service_says_so(cluster: Cluster) -> None:
    address = service(cluster, publishNotReadyAddresses=True)
    never = {**web(**MOUNT), "readinessProbe": {"exec": {"command": ["false"]}}}
    cluster.pod("a", never, labels={"app": "web"}, **FLAGS)

    def answered() -> bool:
        with contextlib.suppress(OSError):
            return ask(address) == "a"
        return False

    eventually(answered)
    assert condition(cluster.get("pods", "a"), "Ready") == "False"


def test_a_terminating_pod_keeps_its_connections_and_gets_no_new_one(cluster: Cluster) -> None:
    address = service(cluster)
    hook: Object = {"lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}
    cluster.pod("old", web(**MOUNT, **hook), labels={"app": "web"}, terminationGracePeriodSeconds=10, **FLAGS)
    cluster.wait_ready("old")
    got: list[str] = []
    stream = threading.Thread(target=lambda: got.append(ask(address, "/slow")))
    stream.start()
    time.sleep(0.3)
    cluster.pod("new", web(**MOUNT), labels={"app": "web"}, **FLAGS)
    cluster.wait_ready("new")
    cluster.delete("pods", "old")
    eventually(lambda: "deletionTimestamp" in cluster.get("pods", "old")["metadata"])
    time.sleep(0.1)
    assert {ask(address) for _ in range(6)} == {"new"}
    stream.join(10)
    assert got == ["".join(f"{number:02d}" for number in range(20))]
    eventually(lambda: not cluster.exists("pods", "old"))


def test_a_rollout_drops_no_request(cluster: Cluster) -> None:
    address = service(cluster)
    hook: Object = {"lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}
    template: Object = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [web(**MOUNT, **hook)], "terminationGracePeriodSeconds": 5, **FLAGS},
    }
    cluster.create(
        "deployments", "web",
        spec={"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": template},
    )  # fmt: skip
    eventually(lambda: cluster.get("deployments", "web")["status"].get("availableReplicas") == 1)
    failures: list[BaseException] = []
    answers: set[str] = set()
    done = threading.Event()

    def load() -> None:
        while not done.is_set():
            try:
                answers.add(ask(address))
            except OSError as error:
                failures.append(error)
            time.sleep(0.005)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    (before,) = cluster.list("pods", "app=web")
    cluster.patch("deployments", "web", {"spec": {"template": {"metadata": {"annotations": {"v": "2"}}}}})
    eventually(lambda: not cluster.exists("pods", before["metadata"]["name"]), 20)
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(answers) == 2
