"""Where this installation lives: cluster, namespace, volume, hub and registry endpoints.

A model's entry in the catalog says *what* to serve; these settings say *where*. They come from the YAML
file that `LLMOPS_SETTINGS` names (the sandbox writes one), and each has a default for a real cluster.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from llmops.config.alerting import AlertTarget
from llmops.config.loading import read_file
from llmops.config.names import SETTINGS_VARIABLE
from llmops.config.schema import Strict
from llmops.config.settings.access import AccessSettings
from llmops.config.settings.lease import LeaseSettings
from llmops.config.settings.monitoring import MonitoringSettings
from llmops.config.settings.network import NetworkSettings
from llmops.config.settings.router import RouterSettings


class Settings(Strict):
    """The installation. Field defaults are those of a real cluster."""

    kubeconfig: str | None = Field(
        None, description="Path; None means the pod's own account, then the default kubeconfig."
    )
    context: str | None = Field(None, description="Context of the kubeconfig; None means its current one.")
    namespace: str = Field("llm-serving", description="Namespace of the engines, the Jobs and the records.")
    claim: str = Field("llmops-weights", description="PersistentVolumeClaim with the weights, ReadWriteMany.")
    storage_class: str | None = Field(None, description="Storage class of the claim; None means the cluster's default.")
    storage: str = Field("500Gi", description="Size asked for when the claim is created.")
    worker_image: str = Field("ghcr.io/llmops-dev/worker:0.1.0", description="Image of the download and checksum Jobs.")
    evaluation_image: str = Field(
        "ghcr.io/llmops-dev/evaluation:0.1.0", description="Image of the Jobs that measure inside the cluster."
    )
    evaluate_from: Literal["auto", "here", "cluster"] = Field(
        "auto",
        description="Where engines are measured and proven from: this process, a Job in the cluster, or auto: here "
        "where this process reaches the engines' Services.",
    )
    hub_endpoint: str = Field("https://huggingface.co", description="Hub as the Jobs and the pipeline reach it.")
    registry_mirrors: dict[str, str] = Field(
        default_factory=dict[str, str],
        description="Registry host -> base URL to ask instead, for example {'docker.io': 'http://127.0.0.1:5000'}.",
    )
    dagster_url: str | None = Field(None, description="Base URL of the Dagster UI, for links to runs.")
    service_url: str | None = Field(
        None, description="Base URL of `llmops serve` as people reach it, for links to reports."
    )
    alerts: tuple[AlertTarget, ...] = Field((), description="Where alerts are sent to.")
    stuck_after_hours: Annotated[float, Field(gt=0)] = Field(
        6, description="A run that goes on for longer is told of; longer than the longest download takes."
    )
    registry_poll_seconds: Annotated[int, Field(ge=5)] = Field(
        60, description="Between two looks at an image repository, each of them one small request."
    )
    hub_poll_seconds: Annotated[int, Field(ge=5)] = Field(120, description="Between two looks at the hub.")
    registry_secret: str | None = Field(
        None, description="Secret of type kubernetes.io/dockerconfigjson with credentials for registries."
    )
    lease: LeaseSettings = LeaseSettings()
    access: AccessSettings = AccessSettings()
    monitoring: MonitoringSettings = MonitoringSettings()
    network: NetworkSettings = NetworkSettings()
    router: RouterSettings = RouterSettings()
    prices: Path | None = Field(None, description="File with prices; None means the packaged ones.")
    models_dir: Path = Field(Path("models"), description="The catalog.")
    tenants_dir: Path = Field(Path("tenants"), description="The tenants; it need not be there.")
    evals_dir: Path = Field(Path("evals"), description="The evaluation suites.")
    history_limit: Annotated[int, Field(ge=2)] = Field(20, description="Records kept per model.")


def load_settings(path: Path | None = None) -> Settings:
    """Read the settings file at `path`, or the one that `LLMOPS_SETTINGS` names, or take the defaults.

    Raises:
        BadInput: The file cannot be read, is not a mapping, or a field is unknown or wrong; the message has one line
            per mistake, with file, line, field and what was found.
    """
    named = path or (Path(value) if (value := os.environ.get(SETTINGS_VARIABLE)) else None)
    return Settings.model_validate({}) if named is None else read_file(named, Settings)
