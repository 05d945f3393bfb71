"""Pods for a node with containers, and 36 kinds of pods that fail on it; as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmops_sandbox.containers.address import NODE
from llmops_sandbox.sandbox import WORKER_IMAGE

from llmops.manifests.pods import container_security

Object = dict[str, Any]
POD_SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": 2000,
    "runAsGroup": 2000,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def python(code: str) -> list[str]:
    return ["python", "-c", code]


def pod(
    name: str,
    container: Mapping[str, Any] | None = None,
    spec: Mapping[str, Any] | None = None,
    volumes: Sequence[Mapping[str, Any]] = (),
) -> Object:
    """A pod as llmops makes them, changed by what a test is about."""
    engine = {
        "name": "engine",
        "image": WORKER_IMAGE,
        "command": ["sleep", "infinity"],
        "securityContext": container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "resources": {"requests": {"cpu": "1m"}},
        **(container or {}),
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "securityContext": POD_SECURITY,
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
            "containers": [engine],
            "volumes": list(volumes),
            **(spec or {}),
        },
    }


@dataclass(frozen=True)
class Failing:
    """A pod that fails.

    Args:
        pod: The pod.
        reasons: What its status and events have to say in the end: reasons of the pod, of the state and last state of
            its containers, and of its events.
    """

    pod: Object
    reasons: frozenset[str]

    @property
    def name(self) -> str:
        return self.pod["metadata"]["name"]


def failing(name: str, reasons: str, *args: Any, **container: Any) -> Failing:
    return Failing(pod(name, container, *args), frozenset(reasons.split()))


def failing_mount(name: str, reasons: str, source: Mapping[str, Any], /, **container: Any) -> Failing:
    mount = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    return Failing(pod(name, {**mount, **container}, None, [{"name": "v", **source}]), frozenset(reasons.split()))


def value_from(source: str, name: str) -> Object:
    return {"name": "K", "valueFrom": {source: {"name": name, "key": "absent"}}}


def probe_of(**changes: Any) -> Object:
    return {"httpGet": {"path": "/health", "port": 8000}, "periodSeconds": 1, "failureThreshold": 2, **changes}


INIT = pod("x", {"name": "init", "command": ["false"]})["spec"]["containers"][0]
ABSENT = "docker.io/vllm/vllm-openai@sha256:" + "0" * 64
CRASH = "raise SystemExit('torch.OutOfMemoryError: CUDA out of memory')"
EAT = "x = bytearray(10**9)\nfor i in range(0, 10**9, 4096): x[i] = 1"
FILL = (
    "import time\nwith open('{}', 'wb') as f:\n for _ in range({}): f.write(b'1' * 10**6)\n f.flush()\n time.sleep(300)"
)

FAILING = (
    # Images
    failing("digest-absent", "ErrImagePull ImagePullBackOff Failed", image=ABSENT),
    failing("tag-absent", "ImagePullBackOff Failed", image="docker.io/vllm/vllm-openai:v9.99.9"),
    failing("repository-absent", "ImagePullBackOff Failed", image="docker.io/nobody/nothing:1"),
    failing("host-unknown", "ImagePullBackOff Failed", image="registry.invalid.example/x:1"),
    failing("name-invalid", "InvalidImageName InspectFailed", image="Docker.io/UPPER:1"),
    failing("never-pulled", "ErrImageNeverPull", image="docker.io/vllm/vllm-openai:v9", imagePullPolicy="Never"),
    failing(
        "pull-secret-absent",
        "FailedToRetrieveImagePullSecret ImagePullBackOff",
        {"imagePullSecrets": [{"name": "absent"}]},
        image=ABSENT,
    ),
    # Programs
    failing("program-absent", "StartError CrashLoopBackOff", command=["/no/such/program"]),
    failing("program-not-executable", "StartError CrashLoopBackOff", command=["/etc/passwd"]),
    failing("folder-is-a-file", "StartError CrashLoopBackOff", workingDir="/etc/passwd"),
    failing("exit-one", "Error CrashLoopBackOff BackOff", command=python(CRASH)),
    failing("exit-zero", "Completed CrashLoopBackOff BackOff", command=python("print(1)")),
    failing("segfault", "Error CrashLoopBackOff", command=python("import ctypes; ctypes.string_at(0)")),
    failing("root-read-only", "Error CrashLoopBackOff", command=python("open('/x', 'w')")),
    failing(
        "hook-fails",
        "PostStartHookError FailedPostStartHook",
        lifecycle={"postStart": {"exec": {"command": ["false"]}}},
    ),
    failing("init-fails", "Error CrashLoopBackOff", {"initContainers": [INIT]}),
    # Memory and disk
    failing(
        "memory", "OOMKilled", command=python(EAT), resources={"limits": {"memory": "100Mi"}, "requests": {"cpu": "1m"}}
    ),
    failing_mount(
        "disk-of-volume", "Evicted", {"emptyDir": {"sizeLimit": "10Mi"}}, command=python(FILL.format("/v/x", 80))
    ),
    failing_mount(
        "disk-of-pod",
        "Evicted",
        {"emptyDir": {}},
        command=python(FILL.format("/v/x", 80)),
        resources={"limits": {"ephemeral-storage": "20Mi"}, "requests": {"cpu": "1m"}},
    ),
    failing_mount(
        "memory-volume-full",
        "Error CrashLoopBackOff",
        {"emptyDir": {"medium": "Memory", "sizeLimit": "20Mi"}},
        command=python(FILL.format("/v/x", 80)),
        resources={"limits": {"memory": "500Mi"}, "requests": {"cpu": "1m"}},
    ),
    # Configuration
    failing(
        "user-is-root",
        "CreateContainerConfigError Failed",
        {"securityContext": {"runAsNonRoot": True}},
        image="ghcr.io/llmops-dev/pause:1",
    ),
    failing("secret-absent", "CreateContainerConfigError Failed", env=[value_from("secretKeyRef", "absent")]),
    failing("key-absent", "CreateContainerConfigError Failed", env=[value_from("configMapKeyRef", "kube-root-ca.crt")]),
    failing_mount("config-absent", "FailedMount ContainerCreating", {"configMap": {"name": "absent"}}),
    failing_mount("secret-volume-absent", "FailedMount ContainerCreating", {"secret": {"secretName": "absent"}}),
    failing_mount(
        "path-absent", "FailedMount ContainerCreating", {"hostPath": {"path": "/no/such", "type": "Directory"}}
    ),
    failing_mount(
        "sub-path-below-a-file",
        "CreateContainerConfigError Failed",
        {"hostPath": {"path": "/etc"}},
        volumeMounts=[{"name": "v", "mountPath": "/v", "subPath": "hostname/x", "readOnly": True}],
    ),
    failing_mount("claim-absent", "FailedScheduling", {"persistentVolumeClaim": {"claimName": "absent"}}),
    # Places
    failing("much-cpu", "FailedScheduling", resources={"requests": {"cpu": "1000"}}),
    failing("many-gpus", "FailedScheduling", resources={"limits": {"nvidia.com/gpu": "9"}, "requests": {"cpu": "1m"}}),
    failing("other-node", "FailedScheduling", {"nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-H200"}}),
    failing("refused-by-node", "OutOfcpu", {"nodeName": NODE}, resources={"requests": {"cpu": "1000"}}),
    # Probes and deadlines
    failing("startup-probe", "Unhealthy Killing", startupProbe=probe_of()),
    failing("liveness-probe", "Unhealthy Killing", livenessProbe=probe_of(exec={"command": ["false"]}, httpGet=None)),
    failing("readiness-probe", "Unhealthy", readinessProbe=probe_of()),
    failing("deadline", "DeadlineExceeded", {"activeDeadlineSeconds": 15}),
)
