"""How users outside of the cluster reach a model: never without being asked who they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from llmops.config.schema import Problem, SecretKey
from llmops.config.settings.access import Exposure

RUNTIME_LORA = "VLLM_ALLOW_RUNTIME_LORA_UPDATING"


def problems(exposure: Exposure, api_key: SecretKey | None, environment: Mapping[str, str]) -> Iterator[Problem]:
    """What in a model's entry would leave its engine open to the world; fields are those of the entry.

    Args:
        exposure: The way in.
        api_key: The key that the engine asks for.
        environment: The engine's.
    """
    if exposure.kind == "none":
        return
    if api_key is None and exposure.auth_url is None:
        asked = "access.api_key or exposure.auth_url" if exposure.kind == "ingress" else "access.api_key"
        yield ("exposure", "kind"), f"is {exposure.kind}, but nobody is asked who they are: set {asked}"
    if environment.get(RUNTIME_LORA, "0").lower() in ("1", "true"):
        yield (
            ("engine", "env", RUNTIME_LORA),
            "lets every user load adapters through /v1, which is open to the outside; unset it, or exposure.kind",
        )
