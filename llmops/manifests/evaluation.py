"""The Job that measures engines from inside the cluster, and the ConfigMaps with its order.

It needs no rights: it mounts its order, has the engines' API keys in its environment, and writes its answer to its log.
"""

from __future__ import annotations

import base64
import datetime
from collections.abc import Mapping, Sequence

from llmops.config import names
from llmops.config.catalog.spec import SecretKey
from llmops.config.settings import Settings
from llmops.manifests import pods
from llmops.manifests.pods import TEMPORARY_MOUNT, Manifest, mount, variable

COMPONENT = "evaluation"
ORDER_VOLUME = "order"
ORDER_MOUNT = "/etc/llmops-order"
RETRIES = 2
LIFETIME = datetime.timedelta(hours=6)
FINISHED_SECONDS = 3600
"""How long a finished Job stays: a run that was interrupted meanwhile still finds its answer."""
REQUESTS = {"cpu": "500m", "memory": "512Mi"}
MEMORY_LIMIT = "2Gi"
# Exit codes that a retry does not change, see `llmops.evaluation.remote.ending`. A measurement that failed was tried
# again within its own bounds.
FINAL_EXIT_CODES = [1, 2, 3, 5, 6]


def order_names(job: str, parts: int) -> list[str]:
    """Names of the ConfigMaps with a Job's order."""
    return [f"{job}-{index}" for index in range(parts)]


def evaluation_job(
    name: str,
    labels: Mapping[str, str],
    parts: int,
    keys: Mapping[str, SecretKey],
    image: str,
    settings: Settings,
    expires_at: datetime.datetime,
) -> Manifest:
    """The Job. Create its order first: llmops takes a pod without its order for a pod that cannot start.

    Args:
        name: Name of the Job.
        labels: Labels of the model, the release and the run.
        parts: Number of ConfigMaps of its order.
        keys: Variable -> the API key that it holds.
        image: Image of the evaluation program.
        settings: The installation's settings.
        expires_at: Time from which the reaper may delete it.
    """
    container: Manifest = {
        "name": names.EVALUATION_CONTAINER,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": [f"--order={ORDER_MOUNT}", f"--termination-log={names.TERMINATION_LOG}"],
        "env": [
            variable("HOME", TEMPORARY_MOUNT),
            *({"name": key, "valueFrom": {"secretKeyRef": _reference(secret)}} for key, secret in sorted(keys.items())),
        ],
        "resources": {"requests": dict(REQUESTS), "limits": {"memory": MEMORY_LIMIT}},
        "volumeMounts": [
            mount(pods.TEMPORARY_VOLUME, TEMPORARY_MOUNT),
            mount(ORDER_VOLUME, ORDER_MOUNT, read_only=True),
        ],
        "terminationMessagePath": names.TERMINATION_LOG,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": pods.container_security(),
    }
    sources = [{"configMap": {"name": config_map}} for config_map in order_names(name, parts)]
    pod: Manifest = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pods.pod_security(),
        "containers": [container],
        "volumes": [
            pods.empty_volume(pods.TEMPORARY_VOLUME),
            {"name": ORDER_VOLUME, "projected": {"sources": sources}},
        ],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": settings.namespace,
            "labels": dict(labels),
            "annotations": {names.EXPIRES_ANNOTATION: expires_at.isoformat(timespec="seconds")},
        },
        "spec": {
            "activeDeadlineSeconds": int(LIFETIME.total_seconds()),
            "backoffLimit": RETRIES,
            "podFailurePolicy": _failure_policy(),
            # Two pods at once would measure each other's load.
            "podReplacementPolicy": "Failed",
            "ttlSecondsAfterFinished": FINISHED_SECONDS,
            "template": {"metadata": {"labels": dict(labels)}, "spec": pod},
        },
    }


def order_config_maps(job: Manifest, parts: Sequence[tuple[str, bytes]]) -> list[Manifest]:
    """The immutable ConfigMaps with a Job's order.

    Args:
        job: The Job.
        parts: Name and content of each file.
    """
    meta = job["metadata"]
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": name,
                "namespace": meta["namespace"],
                "labels": dict(meta["labels"]),
                "annotations": dict(meta["annotations"]),
            },
            "immutable": True,
            "binaryData": {key: base64.b64encode(content).decode()},
        }
        for name, (key, content) in zip(order_names(meta["name"], len(parts)), parts, strict=True)
    ]


def ownership(job: Manifest) -> Manifest:
    """A patch that makes a Job the owner of an object: Kubernetes deletes both together.

    Args:
        job: The Job of the API server.
    """
    meta = job["metadata"]
    owner = {"apiVersion": job["apiVersion"], "kind": job["kind"], "name": meta["name"], "uid": meta["uid"]}
    return {"metadata": {"ownerReferences": [owner]}}


def _reference(secret: SecretKey) -> Manifest:
    return {"name": secret.name, "key": secret.key}


def _failure_policy() -> Manifest:
    """How the Job treats a failed pod: a drained node is no failure, and an error that no retry changes is final."""
    return {
        "rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {
                "action": "FailJob",
                "onExitCodes": {
                    "containerName": names.EVALUATION_CONTAINER,
                    "operator": "In",
                    "values": FINAL_EXIT_CODES,
                },
            },
        ]
    }
