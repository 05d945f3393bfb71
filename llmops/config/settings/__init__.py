"""The settings of an installation: cluster, namespace, volume, hub and registry endpoints.

A model's entry says *what* to serve, these settings *where*. They come from the YAML file in `LLMOPS_SETTINGS`; each
has a default for a real cluster.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from llmops.config.alerting import AlertTarget
from llmops.config.kinds import BaseUrl, Memory, Namespace, ObjectName
from llmops.config.loading import read_file
from llmops.config.names import SETTINGS_VARIABLE
from llmops.config.schema import Strict
from llmops.config.settings.access import AccessSettings
from llmops.config.settings.allowed import Allowed
from llmops.config.settings.lease import LeaseSettings
from llmops.config.settings.monitoring import MonitoringSettings
from llmops.config.settings.network import NetworkSettings
from llmops.config.settings.router import RouterSettings


class Settings(Strict):
    """An installation, with defaults for a real cluster."""

    kubeconfig: str | None = Field(
        None, description="Path; None means the pod's own account, then the default kubeconfig."
    )
    context: str | None = Field(None, description="Context of the kubeconfig; None means its current one.")
    namespace: Namespace = Field("llm-serving", description="Namespace of the engines, the Jobs and the records.")
    claim: ObjectName = Field("llmops-weights", description="PersistentVolumeClaim with the weights, ReadWriteMany.")
    storage_class: ObjectName | None = Field(
        None, description="Storage class of the claim; None means the cluster's default."
    )
    storage: Memory = Field("500Gi", description="Size of a new claim.")
    worker_image: str = Field("ghcr.io/llmops-dev/worker:0.1.0", description="Image of the download and checksum Jobs.")
    evaluation_image: str = Field("ghcr.io/llmops-dev/evaluation:0.1.0", description="Image of the evaluation Jobs.")
    evaluate_from: Literal["auto", "here", "cluster"] = Field(
        "auto",
        description="Where evaluations run: here: in this process; cluster: in a Job; auto: here if this process "
        "reaches the engines' Services, else in a Job.",
    )
    hub_endpoint: BaseUrl = Field(
        "https://huggingface.co", description="Base URL of the hub for the pipeline and its Jobs."
    )
    registry_mirrors: dict[str, BaseUrl] = Field(
        default_factory=dict[str, BaseUrl],
        description="Registry host -> base URL of its mirror, for example {'docker.io': 'http://127.0.0.1:5000'}.",
    )
    registry_token_services: dict[str, tuple[str, ...]] = Field(
        default_factory=dict[str, tuple[str, ...]],
        description="Registry host -> hosts of its token service, if that is neither the registry's own host nor a "
        "known one, for example {'registry.example.com': ['gitlab.example.com']}. It gets the registry's credentials.",
    )
    dagster_url: BaseUrl | None = Field(None, description="Base URL of the Dagster UI, for links to runs.")
    service_url: BaseUrl | None = Field(
        None, description="Base URL of `llmops serve` for people, for links to reports."
    )
    alerts: tuple[AlertTarget, ...] = Field((), description="Targets of alerts.")
    stuck_after_hours: Annotated[float, Field(gt=0)] = Field(
        6, description="A run that takes longer raises an alert; set it above the longest download."
    )
    registry_poll_seconds: Annotated[int, Field(ge=5)] = Field(
        60, description="Time between two requests for the tags of an image repository."
    )
    hub_poll_seconds: Annotated[int, Field(ge=5)] = Field(120, description="Time between two requests to the hub.")
    registry_secret: ObjectName | None = Field(
        None, description="Secret of type kubernetes.io/dockerconfigjson with credentials for registries."
    )
    lease: LeaseSettings = LeaseSettings()
    access: AccessSettings = AccessSettings()
    monitoring: MonitoringSettings = MonitoringSettings()
    network: NetworkSettings = NetworkSettings()
    router: RouterSettings = RouterSettings()
    catalog_allows: Allowed = Allowed()
    prices: Path | None = Field(None, description="File with prices; None means the packaged ones.")
    models_dir: Path = Field(Path("models"), description="The catalog.")
    tenants_dir: Path = Field(Path("tenants"), description="The tenants; the folder may be missing.")
    evals_dir: Path = Field(Path("evals"), description="The evaluation suites.")
    history_limit: Annotated[int, Field(ge=2)] = Field(20, description="Records kept per model.")


def load_settings(path: Path | None = None) -> Settings:
    """Read the settings file at `path`, or the one in `LLMOPS_SETTINGS`; without either, take the defaults.

    Raises:
        BadInput: The file cannot be read, is no mapping, or has a wrong or unknown field; the message has one line per
            mistake, with file, line, field and value.
    """
    named = path or (Path(value) if (value := os.environ.get(SETTINGS_VARIABLE)) else None)
    return Settings.model_validate({}) if named is None else read_file(named, Settings)
