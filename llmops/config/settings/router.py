"""The router in front of the models."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated

from pydantic import AfterValidator, Field

from llmops.config.kinds import Cpu, Memory
from llmops.config.schema import Consistent, Problem, SecretKey, Strict
from llmops.config.settings.access import Exposure

NAME = r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$"
"""Names of models at the router, such as `gpt-4o` or `meta-llama/Llama-3.3-70B-Instruct`."""

ModelName = Annotated[str, Field(pattern=NAME)]


def _pinned(value: str) -> str:
    version = value.partition("@")[2] or value.rpartition("/")[2].partition(":")[2]
    if not re.fullmatch(r"sha256:[0-9a-f]{64}|v?[0-9].*", version):
        raise ValueError("must be pinned by a version or a digest: a tag such as latest moves")
    return value


class Managed(Strict):
    """A model at a provider of managed inference: you pay per token, and prompts leave the cluster."""

    model: Annotated[str, Field(pattern=r"^[a-z0-9_]+/\S+$")] = Field(
        description="LiteLLM's name of provider and model: fireworks_ai/..., together_ai/..., replicate/..."
    )
    api_key: SecretKey = Field(description="The provider's API key.")
    api_base: Annotated[str, Field(pattern=r"^https?://\S+$")] | None = Field(
        default=None, description="Base URL, if not the provider's usual one."
    )


class RouterSettings(Consistent):
    """LiteLLM's proxy: one address and one API for all models, with a key per tenant."""

    enabled: bool = Field(default=False, description="Whether llmops runs a router.")
    image: Annotated[str, AfterValidator(_pinned)] = Field(
        default="ghcr.io/berriai/litellm-non_root:v1.108.5",
        description="LiteLLM's image without root, pinned by a version or a digest.",
    )
    user: Annotated[int, Field(ge=1)] = Field(default=65534, description="User id of the router: nobody's.")
    replicas: Annotated[int, Field(ge=1)] = Field(
        default=2, description="Pods; each allows its share of every tenant's limits."
    )
    cpu: Cpu = Field(default="1", description="CPU request of each pod; there is no limit.")
    memory: Memory = Field(default="2Gi", description="Memory request and limit of each pod.")
    master_key: SecretKey = Field(
        default=SecretKey(name="llmops-router", key="master-key"),
        description="Key of the installation's operator: all models, no limits. At least 32 characters.",
    )
    exposure: Exposure = Field(default=Exposure(), description="Access from outside of the cluster.")
    managed: dict[ModelName, Managed] = Field(
        default_factory=dict[str, Managed],
        description="Models that no engine of the installation serves, because few requests do not justify a GPU.",
    )
    retries: Annotated[int, Field(ge=0, le=10)] = Field(
        default=1, description="Further attempts at a model's engines before a fallback."
    )
    allowed_fails: Annotated[int, Field(ge=0)] = Field(
        default=3, description="Failures within a minute after which the router skips a model's track."
    )
    cooldown_seconds: Annotated[int, Field(ge=1)] = Field(default=10, description="How long it skips the track.")
    unroute_seconds: Annotated[int, Field(ge=1)] = Field(
        default=10, description="How long clients may take to stop connecting to a terminating pod."
    )
    drain_seconds: Annotated[int, Field(ge=1)] = Field(
        default=600, description="How long answers may continue after that: a new configuration cuts off none."
    )

    def problems(self) -> Iterator[Problem]:
        """See `Consistent`."""
        if self.exposure.kind != "none" and not self.enabled:
            yield ("exposure", "kind"), f"is {self.exposure.kind}, but the router is not enabled"
