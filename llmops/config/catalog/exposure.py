"""Checks that a model's exposure authenticates its users."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from llmops.config.schema import Problem, SecretKey
from llmops.config.settings.access import Exposure

RUNTIME_LORA = "VLLM_ALLOW_RUNTIME_LORA_UPDATING"


def problems(exposure: Exposure, api_key: SecretKey | None, environment: Mapping[str, str]) -> Iterator[Problem]:
    """Problems of a model's entry that would open its engine to the world.

    Args:
        exposure: The model's exposure.
        api_key: The engine's API key.
        environment: The engine's environment.
    """
    if exposure.kind == "none":
        return
    if api_key is None and exposure.auth_url is None:
        fields = "access.api_key or exposure.auth_url" if exposure.kind == "ingress" else "access.api_key"
        yield ("exposure", "kind"), f"is {exposure.kind} without authentication: set {fields}"
    if environment.get(RUNTIME_LORA, "0").lower() in ("1", "true"):
        yield (
            ("engine", "env", RUNTIME_LORA),
            "lets every user outside of the cluster load adapters through /v1: unset it, or exposure.kind",
        )
