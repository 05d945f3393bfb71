"""Features of the cluster inside a pod: its account, names of Services, mounts in mounts, gRPC probes."""

from __future__ import annotations

import base64

from sandbox.tests.agent.agent_machine import Cluster, Object, condition, eventually, python, shell

HEALTH = """
import os, signal, threading
from concurrent.futures import ThreadPoolExecutor
import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
server = grpc.server(ThreadPoolExecutor(2))
servicer = health.HealthServicer()
health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
server.add_insecure_port(os.environ["BIND"] + ":9000")
status = health_pb2.HealthCheckResponse.ServingStatus
servicer.set("App", status.Value(os.environ["STATUS"]))
server.start()
server.wait_for_termination()
"""


def test_a_pod_finds_its_account_and_is_known_by_it(cluster: Cluster) -> None:
    script = """
        from kubernetes import client, config
        config.load_kube_config()
        print(client.AuthenticationV1Api().create_self_subject_review({}).status.user_info.username)
    """
    cluster.pod("p", python("c", script), restartPolicy="Never", automountServiceAccountToken=True)
    cluster.wait_phase("p", "Succeeded", 30)
    assert cluster.log("p") == f"system:serviceaccount:{cluster.namespace}:default\n"


def test_a_service_is_found_by_its_name_in_arguments_variables_and_secrets(cluster: Cluster) -> None:
    service = cluster.create("services", "db", spec={"selector": {"app": "x"}, "ports": [{"port": 5432}]})
    address = service["spec"]["clusterIP"]
    name = f"db.{cluster.namespace}.svc"
    url = base64.b64encode(f"postgresql://me:secret@{name}:5432/x".encode()).decode()
    cluster.create("secrets", "s", data={"URL": url})
    env: list[Object] = [
        {"name": "HOST", "value": name},
        {"name": "URL", "valueFrom": {"secretKeyRef": {"name": "s", "key": "URL"}}},
    ]
    cluster.pod("p", shell("c", f'echo "$HOST $URL {name}"', env=env), restartPolicy="Never")
    cluster.wait_phase("p", "Succeeded")
    assert cluster.log("p") == f"{address} postgresql://me:secret@{address}:5432/x {address}\n"


def test_a_mount_inside_a_mount_is_seen_there_and_neither_is_lost(cluster: Cluster) -> None:
    cluster.create("configmaps", "m", data={"app.yaml": "x: 1\n"})
    mounts: list[Object] = [
        {"name": "home", "mountPath": "/home/app"},
        {"name": "config", "mountPath": "/home/app/conf/app.yaml", "subPath": "app.yaml", "readOnly": True},
    ]
    volumes: list[Object] = [{"name": "home", "emptyDir": {}}, {"name": "config", "configMap": {"name": "m"}}]
    script = 'cat "$APP_HOME/conf/app.yaml"; echo y > "$APP_HOME/own"; cat "$APP_HOME/own"'
    container = shell("c", script, volumeMounts=mounts, env=[{"name": "APP_HOME", "value": "/home/app"}])
    cluster.pod("p", container, volumes=volumes, restartPolicy="Never")
    cluster.wait_phase("p", "Succeeded")
    assert cluster.log("p") == "x: 1\ny\n"


def test_a_grpc_probe_asks_for_the_services_health(cluster: Cluster) -> None:
    def server(status: str) -> Object:
        probe = {"grpc": {"port": 9000, "service": "App"}, "periodSeconds": 1, "timeoutSeconds": 5}
        env = [{"name": "BIND", "value": "0.0.0.0"}, {"name": "STATUS", "value": status}]
        return python("c", HEALTH, env=env, readinessProbe=probe)

    cluster.pod("good", server("SERVING"))
    cluster.pod("bad", server("NOT_SERVING"))
    cluster.wait_ready("good", 30)
    message = 'Readiness probe failed: service unhealthy (responded with "NOT_SERVING")'
    eventually(lambda: ("Unhealthy", message) in cluster.events("bad"), 30)
    assert condition(cluster.get("pods", "bad"), "Ready") == "False"
