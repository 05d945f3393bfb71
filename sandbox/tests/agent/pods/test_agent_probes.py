from __future__ import annotations

import time

from sandbox.tests.agent.agent_machine import CLAIM, Cluster, Object, condition, eventually, python, shell, web

ON_CLAIM: Object = {
    "volumeMounts": [{"name": "flags", "mountPath": "/flags"}],
    "env": [{"name": "BIND", "value": "0.0.0.0"}, {"name": "FLAGS", "value": "/flags"}],
}
VOLUME: Object = {"volumes": [{"name": "flags", "persistentVolumeClaim": {"claimName": "flags"}}]}


def flag(cluster: Cluster, up: bool) -> None:
    path = cluster.machine.folder / "volumes" / f"{cluster.namespace}-flags" / "bad"
    path.touch() if up else path.unlink()


def test_readiness_follows_its_probe_both_ways_without_a_restart(cluster: Cluster) -> None:
    cluster.create("persistentvolumeclaims", "flags", spec=CLAIM)
    cluster.pod("p", web(**ON_CLAIM), **VOLUME)
    cluster.wait_ready("p")
    flag(cluster, True)
    eventually(lambda: condition(cluster.get("pods", "p"), "Ready") == "False")
    pod = cluster.get("pods", "p")
    assert condition(pod, "ContainersReady") == "False"
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
    message = "Readiness probe failed: HTTP probe failed with statuscode: 503"
    eventually(lambda: ("Unhealthy", message) in cluster.events("p"))
    flag(cluster, False)
    cluster.wait_ready("p")


def test_liveness_restarts_after_its_threshold(cluster: Cluster) -> None:
    cluster.create("persistentvolumeclaims", "flags", spec=CLAIM)
    probe = {
        "httpGet": {"path": "/health", "port": 8000},
        "periodSeconds": 1,
        "failureThreshold": 2,
        "timeoutSeconds": 9,
    }
    cluster.pod("p", web(livenessProbe=probe, **ON_CLAIM), **VOLUME)
    cluster.wait_ready("p")
    flag(cluster, True)
    status = cluster.wait_state("p", lambda c: c["restartCount"] >= 1)
    assert status["lastState"]["terminated"]["exitCode"] == 0
    assert "Container web failed liveness probe, will be restarted" in dict(cluster.events("p"))["Killing"]
    assert cluster.log("p", "previous=true").endswith("stopped\n")
    flag(cluster, False)
    cluster.wait_ready("p")


def test_startup_holds_the_other_probes_back(cluster: Cluster) -> None:
    script = "sleep 1.5; touch /d/started; sleep 100"
    never = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 9}
    startup = {
        "exec": {"command": ["cat", "/d/started"]},
        "periodSeconds": 1,
        "failureThreshold": 10,
        "timeoutSeconds": 9,
    }
    mount: Object = {"volumeMounts": [{"name": "d", "mountPath": "/d"}]}
    cluster.pod(
        "p", shell("c", script, startupProbe=startup, livenessProbe=never, **mount),
        volumes=[{"name": "d", "emptyDir": {}}],
    )  # fmt: skip
    running = cluster.wait_state("p", lambda c: "running" in c["state"])
    assert running["started"] is False
    assert running["ready"] is False
    time.sleep(0.7)
    assert cluster.state("p")["restartCount"] == 0
    status = cluster.wait_state("p", lambda c: c["restartCount"] >= 1)
    assert status["lastState"]["terminated"]["exitCode"] == 143


def test_a_container_that_never_starts_up_is_restarted(cluster: Cluster) -> None:
    probe = {"tcpSocket": {"port": 8000}, "periodSeconds": 1, "failureThreshold": 2}
    cluster.pod("p", shell("c", "sleep 100", startupProbe=probe))
    cluster.wait_state("p", lambda c: c["restartCount"] >= 1)
    messages = [message for reason, message in cluster.events("p") if reason == "Unhealthy"]
    assert messages
    assert messages[0].endswith("connect: connection refused")
    assert messages[0].startswith("Startup probe failed: dial tcp 127.")


def test_tcp_and_exec_probes_succeed(cluster: Cluster) -> None:
    script = """
        import os, socket, time
        server = socket.create_server((os.environ["IP"], 9000))
        while True: server.accept()[0].close()
    """
    env = [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
    tcp = {"tcpSocket": {"port": "main"}, "periodSeconds": 1}
    command = {"exec": {"command": ["sh", "-c", 'test -n "$IP"']}, "periodSeconds": 1}
    ports = [{"name": "main", "containerPort": 9000}]
    cluster.pod("p", python("c", script, env=env, ports=ports, startupProbe=tcp, readinessProbe=command))
    status = cluster.wait_ready("p")["status"]["containerStatuses"][0]
    assert status["started"] is True
    assert status["ready"] is True


def test_a_probe_that_takes_too_long_has_failed(cluster: Cluster) -> None:
    probe = {"exec": {"command": ["sleep", "30"]}, "periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 1}
    cluster.pod("p", shell("c", "sleep 100", livenessProbe=probe))
    cluster.wait_state("p", lambda c: c["restartCount"] >= 1)
    assert any("timed out after 1s" in message for _, message in cluster.events("p"))


def test_an_initial_delay_is_kept(cluster: Cluster) -> None:
    probe = {"exec": {"command": ["true"]}, "periodSeconds": 1, "initialDelaySeconds": 2}
    cluster.pod("p", shell("c", "sleep 100", readinessProbe=probe))
    cluster.wait_state("p", lambda c: "running" in c["state"])
    time.sleep(0.8)
    assert cluster.state("p")["ready"] is False
    cluster.wait_ready("p", 5)


def test_a_port_name_that_does_not_exist_fails_the_probe(cluster: Cluster) -> None:
    cluster.pod("p", shell("c", "sleep 100", readinessProbe={"tcpSocket": {"port": "nowhere"}, "periodSeconds": 1}))
    eventually(lambda: any("nowhere" in message for _, message in cluster.events("p")))
    assert cluster.state("p")["ready"] is False
