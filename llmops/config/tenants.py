"""The tenants: one YAML file each, `tenants/NAME.yaml`.

A tenant's applications run in its namespace and call the router with its key. They reach neither engines nor other
tenants.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from llmops.config.catalog.known import not_known
from llmops.config.catalog.spec import NAME
from llmops.config.kinds import Cpu, Memory, Namespace
from llmops.config.loading import Folder, read_folder
from llmops.config.schema import Problem, SecretKey, Strict
from llmops.config.settings.allowed import Allowed


class Quota(Strict):
    """ResourceQuota of the tenant's namespace."""

    cpu: Cpu = Field(default="4", description="Sum of CPU requests.")
    memory: Memory = Field(default="8Gi", description="Sum of memory requests, and of memory limits.")
    gpus: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Sum of nvidia.com/gpu; 0 leaves all GPUs to engines."
    )
    pods: Annotated[int, Field(ge=0)] = Field(default=20, description="Pods that have not ended.")


class ContainerDefaults(Strict):
    """Requests and limit of a container that names none: the quota would refuse its pod."""

    cpu: Cpu = Field(default="100m", description="CPU request.")
    memory: Memory = Field(default="256Mi", description="Memory request and limit.")


class Tenant(Strict):
    """One tenant: `name`, `models` and `key` are required, the rest has defaults."""

    name: Annotated[str, Field(pattern=NAME, description="DNS label, at most 40 characters; the file's name.")]
    description: str = Field(default="", description="For people.")
    namespace: Namespace | None = Field(
        default=None, description="Namespace of the tenant's applications; none: tenant-NAME."
    )
    models: tuple[str, ...] = Field(min_length=1, description="Models that the tenant may use.")
    key: SecretKey = Field(description="Its API key for the router, in a Secret of the serving namespace.")
    requests_per_minute: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Over all its models; none: no limit."
    )
    tokens_per_minute: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Tokens of prompts and answers, over all its models; none: no limit."
    )
    parallel_requests: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Requests at once; none: no limit."
    )
    quota: Quota = Quota()
    container_defaults: ContainerDefaults = ContainerDefaults()
    pod_security: Literal["restricted", "baseline"] = Field(
        default="restricted", description="Pod Security level that its namespace enforces."
    )

    @property
    def home(self) -> str:
        """The namespace of its applications."""
        return self.namespace or f"tenant-{self.name}"


Tenants = Mapping[str, Tenant]
"""Name -> tenant, sorted by name."""


def read_tenants(
    tenants_dir: Path,
    models: Collection[str],
    serving_namespace: str,
    *,
    managed: Collection[str] = (),
    allowed: Allowed | None = None,
) -> Folder[Tenant]:
    """Read every `*.yaml` of a folder. A file with a mistake is left out: it stops no other tenant.

    Args:
        tenants_dir: The folder; without it there are no tenants.
        models: Names of the models of the catalog.
        serving_namespace: Namespace of the engines; no tenant may have it.
        managed: Further models of the router, at providers of managed inference.
        allowed: What tenants may name; None allows all.

    Returns:
        The tenants, and the mistakes of the other files. A model outside of the catalog is a mistake, and so is a
        namespace or a key of another tenant.
    """
    if not tenants_dir.is_dir():
        return Folder({}, {})
    homes: dict[str, str] = {}
    keys: dict[tuple[str, str], str] = {}

    def check(tenant: Tenant) -> Iterator[Problem]:
        known = sorted({*models, *managed})
        for index, model in enumerate(tenant.models):
            if model not in known:
                yield ("models", index), not_known(model, known)
        if tenant.home == serving_namespace:
            yield ("namespace",), f"is {tenant.home}, the namespace of the engines"
        elif tenant.home == "default" or tenant.home.startswith("kube-"):
            yield ("namespace",), f"is {tenant.home}, a namespace of the cluster: its pods would lose their network"
        elif (other := homes.setdefault(tenant.home, tenant.name)) != tenant.name:
            yield ("namespace",), f"is {tenant.home}, the namespace of tenant {other}"
        if (other := keys.setdefault((tenant.key.name, tenant.key.key), tenant.name)) != tenant.name:
            yield ("key",), f"is the key of tenant {other}: the router could not tell them apart"
        for problem in (allowed or Allowed()).secret(tenant.key.name):
            yield ("key", "name"), problem

    return read_folder(tenants_dir, Tenant, check)
