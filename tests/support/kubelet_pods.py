"""Pods for a node, and 36 kinds of pods that fail on it: what a kubelet says of each, and what llmops makes of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmops_sandbox.containers.address import NODE
from llmops_sandbox.sandbox import WORKER_IMAGE

from llmops.clients.kubernetes.client import Cluster
from llmops.errors import BadRelease, ClusterCannot
from llmops.manifests.pods import container_security

Object = dict[str, Any]
SECONDS = 240
"""How long the pods may take to fail."""
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

RIGHT: dict[str, tuple[str, type, str]] = {
    "claim-absent": ("Unschedulable", ClusterCannot, 'persistentvolumeclaim "absent" not found'),
    "config-absent": ("ConfigMapMissing", ClusterCannot, 'configmap "absent" not found'),
    "deadline": ("DeadlineExceeded", ClusterCannot, "ended it at its activeDeadlineSeconds"),
    "digest-absent": ("ImageNotFound", BadRelease, "not found"),
    "disk-of-pod": ("Evicted", ClusterCannot, "Pod ephemeral local storage usage exceeds"),
    "disk-of-volume": ("Evicted", ClusterCannot, 'Usage of EmptyDir volume "v" exceeds the limit "10Mi"'),
    "exit-one": ("CrashLoop", BadRelease, "torch.OutOfMemoryError: CUDA out of memory"),
    "exit-zero": ("CrashLoop", BadRelease, "exit code 0"),
    "hook-fails": ("CrashLoop", BadRelease, "exit code 137"),
    "host-unknown": ("RegistryUnreachable", ClusterCannot, "registry.invalid.example"),
    "init-fails": ("ForeignContainerFailed", ClusterCannot, "llmops did not put init into the pod"),
    "key-absent": ("ConfigMapKeyMissing", ClusterCannot, "couldn't find key absent in ConfigMap"),
    "liveness-probe": ("LivenessProbeFailed", BadRelease, "killed by its liveness probe"),
    "many-gpus": ("Unschedulable", ClusterCannot, "Insufficient nvidia.com/gpu"),
    "memory": ("OutOfMemory", BadRelease, "more memory than its limit"),
    "memory-volume-full": ("CrashLoop", BadRelease, "No space left on device"),
    "much-cpu": ("Unschedulable", ClusterCannot, "Insufficient cpu"),
    "name-invalid": ("InvalidImageName", BadRelease, "invalid reference format"),
    "never-pulled": ("ImageNeverPulled", ClusterCannot, "pull policy of Never"),
    "other-node": ("Unschedulable", ClusterCannot, "didn't match Pod's node affinity/selector"),
    "path-absent": ("VolumeNotMounted", ClusterCannot, 'path "/no/such" does not exist'),
    "program-absent": ("ContainerCannotStart", BadRelease, "/no/such/program"),
    "program-not-executable": ("ContainerCannotStart", BadRelease, "permission denied"),
    "pull-secret-absent": ("ImageNotFound", BadRelease, "not found"),
    "readiness-probe": ("", ClusterCannot, "running, not ready yet"),
    "refused-by-node": ("NodeRefusedPod", ClusterCannot, "Node didn't have enough resource: cpu"),
    "repository-absent": ("ImageNotFound", BadRelease, "nobody/nothing"),
    "root-read-only": ("CrashLoop", BadRelease, "Read-only file system: '/x'"),
    "secret-absent": ("SecretMissing", ClusterCannot, 'secret "absent" not found'),
    "secret-volume-absent": ("SecretMissing", ClusterCannot, 'secret "absent" not found'),
    "startup-probe": ("StartupProbeFailed", BadRelease, "connect: connection refused"),
    "tag-absent": ("ImageNotFound", BadRelease, "vllm-openai:v9.99.9"),
    "user-is-root": ("ImageRunsAsRoot", BadRelease, "image will run as root"),
}  # fmt: skip
"""Code, verdict and words of the diagnosis of each kind; not of those that were never recorded."""


def reasons(pod: Object, events: list[Object]) -> set[str]:
    """Every reason that its status and its events give."""
    status = pod.get("status") or {}
    states = [
        state
        for container in (*status.get("containerStatuses", ()), *status.get("initContainerStatuses", ()))
        for part in ("state", "lastState")
        for state in (container.get(part) or {}).values()
    ]
    conditions = [condition for condition in status.get("conditions", ()) if condition.get("reason")]
    return {str(said["reason"]) for said in (status, *states, *conditions, *events) if said.get("reason")}


class Watched:
    """The failing pods, and all that was said of each while it failed.

    Args:
        cluster: Their namespace.
        failing: The pods.
    """

    def __init__(self, cluster: Cluster, failing: Sequence[Failing]) -> None:
        self._cluster, self._failing = cluster, failing
        self.said: dict[str, set[str]] = {one.name: set() for one in failing}
        self.pods: dict[str, Object] = {}
        self.events: dict[str, list[Object]] = {}

    def run(self) -> None:
        """Make the pods, and follow them until each has said what it has to, for `SECONDS` at most."""
        for failing in self._failing:
            self._cluster.create(failing.pod)
        deadline = time.monotonic() + SECONDS
        while any(one.reasons - self.said[one.name] for one in self._failing) and time.monotonic() < deadline:
            time.sleep(0.5)
            self.look()

    def look(self) -> None:
        """Take note of what is said of each pod now."""
        events = self._cluster.list("Event")
        for pod in self._cluster.list("Pod"):
            name = pod["metadata"]["name"]
            if name in self.said:
                self.pods[name] = pod
                self.events[name] = [event for event in events if event["involvedObject"].get("name") == name]
                self.said[name] |= reasons(pod, self.events[name])
