"""Change a model's objects under the field manager of another tool, as people and controllers do."""

from __future__ import annotations

from typing import Any

from kubernetes import client, config

from llmops.config import names
from llmops.config.settings import load_settings
from tests.support.world import Model

EDITOR = "kubectl-edit"


def _apps(model: Model) -> tuple[Any, str]:
    settings = load_settings(model.settings_file)
    connection = config.new_client_from_config(settings.kubeconfig, context=settings.context)
    return client.AppsV1Api(connection), settings.namespace


def edit(model: Model, engine: dict[str, Any], *, track: names.Track = "stable", manager: str = EDITOR) -> None:
    """Change fields of the engine's container in a track's Deployment, as `kubectl edit` does."""
    api, namespace = _apps(model)
    container = {"name": "engine", **engine}
    patch = {"spec": {"template": {"spec": {"containers": [container]}}}}
    api.patch_namespaced_deployment(names.engine_name(model.name, track), namespace, patch, field_manager=manager)


def replace_template(model: Model, template: dict[str, Any], *, manager: str = EDITOR) -> None:
    """Replace the pod template of the main Deployment, as `kubectl rollout undo` does."""
    api, namespace = _apps(model)
    patch = [{"op": "replace", "path": "/spec/template", "value": template}]
    api.patch_namespaced_deployment(model.name, namespace, patch, field_manager=manager)


def scale(model: Model, replicas: int, *, manager: str = "kubectl") -> None:
    """Set the replicas, as `kubectl scale` and an autoscaler do."""
    api, namespace = _apps(model)
    api.patch_namespaced_deployment_scale(
        model.name, namespace, {"spec": {"replicas": replicas}}, field_manager=manager
    )


def autoscale(model: Model, most: int) -> None:
    """Create a HorizontalPodAutoscaler for the main Deployment."""
    model.cluster.create(
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": model.name},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": model.name},
                "minReplicas": 1,
                "maxReplicas": most,
            },
        }
    )
