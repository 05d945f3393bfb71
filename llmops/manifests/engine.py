"""The objects that serve a release: Deployment, Service and disruption budget, on the canary's or stable's track.

Both tracks run the same pod: what was tried is what serves.
"""

from __future__ import annotations

import math
from datetime import datetime

from llmops.config import names
from llmops.config.names import Track
from llmops.config.settings import Settings
from llmops.manifests import configuration, drain, pods, weights
from llmops.manifests.companions.autoscaling import Scale
from llmops.manifests.pods import TEMPORARY_MOUNT, Manifest, mount, variable
from llmops.releases.release import Release

GPU_RESOURCE = "nvidia.com/gpu"
GPU_PRODUCT_LABEL = "nvidia.com/gpu.product"
GPU_TOLERATION = {"key": GPU_RESOURCE, "operator": "Exists", "effect": "NoSchedule"}
PORT_NAME = "http"
HOME = "/home/engine"
SHARED_MEMORY_VOLUME = "shm"

STARTUP_PERIOD = 1
"""Seconds between startup probes: Kubernetes notices a ready engine within this time."""
SHUTDOWN_MARGIN = 15
"""Seconds from an engine's last request until it has to be gone: vLLM takes 3 to 4."""
PULL_SECONDS = 1200
"""Longest time in which a node pulls an engine's image (10 GB) and mounts its volumes."""


def startup_budget_seconds(release: Release) -> int:
    """Longest time from an engine's start to its first answer: it reads the weights, and does everything else."""
    loading = release.weights.size / (release.rollout.load_mb_per_second * 1e6)
    return math.ceil(loading) + release.rollout.startup_seconds


def grace_seconds(release: Release) -> int:
    """Seconds from a pod's deletion until the kubelet kills it: new requests stop, old ones end, the engine ends."""
    return release.rollout.unroute_seconds + release.rollout.drain_seconds + SHUTDOWN_MARGIN


def progress_seconds(release: Release) -> int:
    """Seconds without progress after which Kubernetes calls a rollout stalled.

    In an in-place rollout a new pod waits for its GPU until the old pod has drained.
    """
    arrival = PULL_SECONDS + weights.arrival_seconds(release)
    return arrival + grace_seconds(release) + startup_budget_seconds(release)


def arguments(release: Release) -> list[str]:
    """The engine's whole command line, after the image's own entry point."""
    return [
        f"--model={weights.folder(release)}",
        f"--served-model-name={release.model}",
        f"--port={names.ENGINE_PORT}",
        drain.ARGUMENT,
        *configuration.arguments(release),
    ]


def objects(
    release: Release,
    settings: Settings,
    track: Track,
    replicas: Scale,
    *,
    surge: bool,
    run: str | None = None,
    expires_at: datetime | None = None,
) -> list[Manifest]:
    """All objects of a release on a track, in the order to apply them: the Deployment comes last.

    For the arguments see `deployment`.
    """
    files = [drain.config_map(settings), configuration.config_map(release, settings)]
    manifests = [*files, service(release, settings, track, run=run, expires_at=expires_at)]
    if track == "stable":
        manifests.append(disruption_budget(release, settings))
    wanted = deployment(release, settings, track, replicas, surge=surge, run=run, expires_at=expires_at)
    return [*manifests, wanted]


def deployment(
    release: Release,
    settings: Settings,
    track: Track,
    replicas: Scale,
    *,
    surge: bool,
    run: str | None = None,
    expires_at: datetime | None = None,
) -> Manifest:
    """The Deployment of a release on a track.

    Args:
        release: The release that it runs.
        settings: The installation.
        track: Stable serves users; the canary is under trial.
        replicas: Number of pods, or the autoscaler that sets it. An annotation then names the autoscaler.
        surge: Start a new pod before an old one ends, which takes the GPUs of one more pod. Otherwise end one first.
        run: Run that made the canary. Pods do not carry it, so that another run adopts the canary without a restart.
        expires_at: Time, with its zone, from which the reaper may remove the canary.
    """
    selector = names.engine_selector(release.model, track)
    metadata = _metadata(release, settings, track, run=run, expires_at=expires_at)
    if not isinstance(replicas, int):
        metadata.setdefault("annotations", {})[names.AUTOSCALER_ANNOTATION] = replicas
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            **({"replicas": replicas} if isinstance(replicas, int) else {}),
            "revisionHistoryLimit": 2,
            "progressDeadlineSeconds": progress_seconds(release),
            "selector": {"matchLabels": selector},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}
                if surge
                else {"maxSurge": 0, "maxUnavailable": 1},
            },
            "template": {
                "metadata": {
                    "labels": _labels(release, track),
                    "annotations": {
                        "prometheus.io/scrape": "true",
                        "prometheus.io/port": str(names.ENGINE_PORT),
                        "prometheus.io/path": "/metrics",
                    },
                },
                "spec": _pod(release, settings, selector),
            },
        },
    }


def service(
    release: Release,
    settings: Settings,
    track: Track,
    *,
    run: str | None = None,
    expires_at: datetime | None = None,
) -> Manifest:
    """The Service of a track: one address in the cluster for its ready pods."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(release, settings, track, run=run, expires_at=expires_at),
        "spec": {
            "type": "ClusterIP",
            "selector": names.engine_selector(release.model, track),
            "ports": [
                {
                    "name": PORT_NAME,
                    "port": names.ENGINE_PORT,
                    "targetPort": PORT_NAME,
                    "protocol": "TCP",
                    "appProtocol": "http",
                }
            ],
        },
    }


def disruption_budget(release: Release, settings: Settings) -> Manifest:
    """The disruption budget of stable: draining nodes evicts one replica at a time, and a broken one at once."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _metadata(release, settings, "stable"),
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": names.engine_selector(release.model, "stable")},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


def _labels(release: Release, track: Track, *, run: str | None = None) -> dict[str, str]:
    return names.labels(release.model, release.id, "engine", run=run) | {names.TRACK_LABEL: track}


def _metadata(
    release: Release,
    settings: Settings,
    track: Track,
    *,
    run: str | None = None,
    expires_at: datetime | None = None,
) -> Manifest:
    metadata: Manifest = {
        "name": names.engine_name(release.model, track),
        "namespace": settings.namespace,
        "labels": _labels(release, track, run=run),
    }
    if expires_at:
        metadata["annotations"] = {names.EXPIRES_ANNOTATION: expires_at.isoformat(timespec="seconds")}
    return metadata


def _pod(release: Release, settings: Settings, selector: dict[str, str]) -> Manifest:
    placement: Manifest = {}
    fetching = weights.init_containers(release, settings)
    if release.gpu.count:
        placement["tolerations"] = [dict(GPU_TOLERATION)]
    if release.gpu.product:
        placement["nodeSelector"] = {GPU_PRODUCT_LABEL: release.gpu.product}
    if release.resources.priority_class:
        placement["priorityClassName"] = release.resources.priority_class
    return placement | {
        # A failing node should take one replica with it. Two replicas on a node are better than a pending one.
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": selector},
            }
        ],
        "automountServiceAccountToken": False,
        # Otherwise a Service called `vllm` sets VLLM_PORT to an address, and vLLM reads it as its port.
        "enableServiceLinks": False,
        "securityContext": pods.pod_security(release.engine.user) | ({"fsGroup": pods.GROUP} if fetching else {}),
        "terminationGracePeriodSeconds": grace_seconds(release),
        **({"initContainers": fetching} if fetching else {}),
        "containers": [_container(release)],
        "volumes": [
            *weights.volumes(release, settings),
            drain.volume(),
            configuration.volume(release),
            pods.empty_volume(SHARED_MEMORY_VOLUME, memory=release.resources.shm),
            pods.empty_volume(pods.SCRATCH_VOLUME),
            pods.empty_volume(pods.TEMPORARY_VOLUME),
        ],
    }


def _container(release: Release) -> Manifest:
    health: Manifest = {"httpGet": {"path": "/health", "port": PORT_NAME}}
    return {
        "name": names.ENGINE_CONTAINER,
        "image": release.engine.reference,
        "imagePullPolicy": "IfNotPresent",
        "args": arguments(release),
        "env": _environment(release),
        "ports": [{"name": PORT_NAME, "containerPort": names.ENGINE_PORT, "protocol": "TCP"}],
        "resources": _resources(release),
        "volumeMounts": [
            *weights.mounts(release),
            drain.module_mount(),
            configuration.file_mount(release),
            mount(SHARED_MEMORY_VOLUME, "/dev/shm"),  # noqa: S108 - the mount point, not a file of ours
            mount(pods.SCRATCH_VOLUME, HOME),
            mount(pods.TEMPORARY_VOLUME, TEMPORARY_MOUNT),
        ],
        "startupProbe": health
        | {
            "periodSeconds": STARTUP_PERIOD,
            "timeoutSeconds": 5,
            "failureThreshold": math.ceil(startup_budget_seconds(release) / STARTUP_PERIOD),
        },
        "readinessProbe": health | {"periodSeconds": 2, "timeoutSeconds": 5, "failureThreshold": 3},
        # A minute: an engine under load answers late, and a restart loads the weights again.
        "livenessProbe": health | {"periodSeconds": 10, "timeoutSeconds": 10, "failureThreshold": 6},
        "lifecycle": {"preStop": drain.hook(release, PORT_NAME)},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": pods.container_security(),
    }


def _environment(release: Release) -> list[Manifest]:
    variables = [
        variable("HF_HUB_OFFLINE", "1"),
        variable("TRANSFORMERS_OFFLINE", "1"),
        variable("VLLM_NO_USAGE_STATS", "1"),
        variable("DO_NOT_TRACK", "1"),
        # Caches (vLLM's, Triton's, FlashInfer's, the hub's modules) go under HOME; PyTorch's under /tmp, by the
        # name of the user, which PyTorch cannot look up if the image has no account of this id.
        variable("HOME", HOME),
        variable("HF_HOME", f"{HOME}/.cache/huggingface"),
        variable("USER", "vllm"),
        drain.search_path(),
    ]
    if key := release.access.api_key:
        variables.append({"name": "VLLM_API_KEY", "valueFrom": {"secretKeyRef": {"name": key.name, "key": key.key}}})
    return [*variables, *(variable(name, value) for name, value in release.engine.env)]


def _resources(release: Release) -> Manifest:
    requests: Manifest = {"cpu": release.resources.cpu, "memory": release.resources.memory}
    # No CPU limit: it would throttle the engine between two tokens, and gain nothing.
    limits: Manifest = {"memory": release.resources.memory}
    if release.gpu.count:
        requests[GPU_RESOURCE] = limits[GPU_RESOURCE] = str(release.gpu.count)
    return {"requests": requests, "limits": limits}
