"""Names, labels and annotations of all objects that llmops creates.

A model's name is the base of every object's name. Names are deterministic: a second run adopts existing objects.
"""

from __future__ import annotations

import hashlib
from typing import Literal

SETTINGS_VARIABLE = "LLMOPS_SETTINGS"
"""Environment variable with the path of the settings file."""
FIELD_MANAGER = "llmops"
REPLICAS_MANAGER = "llmops-replicas"
"""Field manager of a Deployment's replicas while llmops or an autoscaler takes them over."""
DOMAIN = "llmops.dev"

MODEL_LABEL = f"{DOMAIN}/model"
RELEASE_LABEL = f"{DOMAIN}/release"
TRACK_LABEL = f"{DOMAIN}/track"
RUN_LABEL = f"{DOMAIN}/run"
COMPONENT_LABEL = "app.kubernetes.io/component"
RECORD_LABEL = f"{DOMAIN}/record"
SURROUNDS_LABEL = f"{DOMAIN}/surrounds"
"""On objects around a model's engines: the model. By it llmops finds and deletes unwanted ones."""
TENANT_LABEL = f"{DOMAIN}/tenant"
"""On a tenant's namespace and the objects in it."""
ALERT_LABEL = f"{DOMAIN}/alert"
"""On an alert: whether it is pending or settled."""
SHARED_ANNOTATION = f"{DOMAIN}/read-write-many"
"""On a storage class with an unknown provisioner: "true" if its volumes can be ReadWriteMany."""
EXPIRES_ANNOTATION = f"{DOMAIN}/expires-at"
LENT_ANNOTATION = f"{DOMAIN}/lent-replicas"
"""On stable's Deployment: number of replicas that it lends to the canary."""
AUTOSCALER_ANNOTATION = f"{DOMAIN}/autoscaler"
"""On stable's Deployment: the kind of autoscaler that sets its replicas."""

KEPT_ANNOTATIONS = {
    # https://argo-cd.readthedocs.io/en/stable/user-guide/sync-options/ and .../compare-options/
    "argocd.argoproj.io/sync-options": "Prune=false,Delete=false",
    "argocd.argoproj.io/compare-options": "IgnoreExtraneous",
    # https://fluxcd.io/flux/components/kustomize/kustomizations/#prune
    "kustomize.toolkit.fluxcd.io/prune": "disabled",
}
"""On records and leases, which no repository declares: Argo CD and Flux leave them where they are."""

ENGINE_PORT = 8000
ROUTER = "llmops-router"
"""Name of the router's Deployment and Service; no model may have it."""
ROUTER_PORT = 4000
ROUTER_CONTAINER = "router"
ENGINE_CONTAINER = "engine"
WORKER_CONTAINER = "worker"
WEIGHTS_CONTAINERS = ("weights-download", "weights-checksum")
"""Init containers of an engine's pod that downloads its own weights, in this order."""
EVALUATION_CONTAINER = "evaluation"
CONTAINERS = frozenset(
    (ENGINE_CONTAINER, WORKER_CONTAINER, EVALUATION_CONTAINER, ROUTER_CONTAINER, *WEIGHTS_CONTAINERS)
)
"""All containers that llmops puts into pods. Any other one was added by somebody else, such as a mesh."""
VOLUME_MOUNT = "/models"
RELEASE_MOUNT = "/etc/llmops"
RELEASE_FILE = "release.json"
TERMINATION_LOG = "/dev/termination-log"
JOB_NAME_LENGTH = 60
"""A pod of an Indexed Job has the host name JOB-INDEX, which is at most 63 characters long."""

Track = Literal["stable", "canary"]


def labels(model: str, release: str, component: str, *, run: str | None = None) -> dict[str, str]:
    """Labels of an object that belongs to a release of a model.

    Args:
        model: Name of the model.
        release: Id of the release.
        component: One of engine, download, checksum, rehash, collect, evaluation, record.
        run: Dagster run that creates a temporary object.
    """
    common = {
        "app.kubernetes.io/name": model,
        COMPONENT_LABEL: component,
        "app.kubernetes.io/part-of": "llmops",
        "app.kubernetes.io/managed-by": "llmops",
        MODEL_LABEL: model,
        RELEASE_LABEL: release,
    }
    return common | ({RUN_LABEL: run} if run else {})


def engine_selector(model: str, track: Track) -> dict[str, str]:
    """Labels that a Deployment and its Service select pods by: they tell canary and stable apart."""
    return {MODEL_LABEL: model, TRACK_LABEL: track}


def engine_name(model: str, track: Track) -> str:
    """Name of the Deployment, Service and disruption budget of a track."""
    return model if track == "stable" else f"{model}-canary"


def job_name(model: str, stage: Literal["download", "checksum", "collect", "evaluation", "rehash"], key: str) -> str:
    """Name of a stage's Job; `key` identifies its work: the weights' key, or the release.

    A name that is too long keeps its start and ends in its hash. Two keys must never share a name, or a run adopts the
    Job of other weights.
    """
    name = f"{model}-{stage}-{key}"
    if len(name) <= JOB_NAME_LENGTH:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: JOB_NAME_LENGTH - 9].rstrip('-')}-{digest}"


def pins_name(model: str, release: str) -> str:
    """Name of the immutable ConfigMap with a release's pins."""
    return f"{model}.release.{release}"


def record_name(model: str, release: str) -> str:
    """Name of the ConfigMap with a release's record: outcomes of stages, verdict, figures."""
    return f"{model}.record.{release}"


def state_name(model: str) -> str:
    """Name of the ConfigMap with the model's stable and candidate releases."""
    return f"{model}.state"


def validation_name(model: str) -> str:
    """Name of the ConfigMap with the model's last validation."""
    return f"{model}.validation"


def alert_name(alert: str) -> str:
    """Name of the ConfigMap with an alert, by its id."""
    return f"llmops.alert.{alert}"


def counters_name(model: str) -> str:
    """Name of the ConfigMap with a model's counters."""
    return f"{model}.counters"


def costs_name(model: str) -> str:
    """Name of the ConfigMap with the model's costs, week by week."""
    return f"{model}.costs"


def lease_name(model: str) -> str:
    """Name of the Lease that allows one rollout per model at a time."""
    return f"llmops-{model}"


def weights_path(model: str, key: str) -> str:
    """Folder of verified weights, relative to the volume's root."""
    return f"weights/{model}/{key}"


def staging_path(model: str, key: str) -> str:
    """Folder that a download writes to, relative to the volume's root; no engine mounts it."""
    return f"staging/{model}/{key}"
