"""Asks the hub and the registry about a model; the checks judge the answers."""

from __future__ import annotations

from llmops.clients.hub import check_access, whoami
from llmops.clients.registry import ImageName, PinnedImage, RegistryClient, resolve_image
from llmops.clients.retries import Patience
from llmops.config.catalog.spec import ModelSpec
from llmops.errors import LlmopsError
from llmops.preflight.checks.case import HubAnswer, ImageAnswer

ONCE = Patience(attempts=1)
"""A person waits for the findings: one attempt, and a missing answer is a finding."""


def ask_hub(spec: ModelSpec, endpoint: str, token: str | None) -> HubAnswer | LlmopsError | None:
    """Whether the hub gives a model's files to its token; None if the weights do not come from a hub."""
    if spec.weights.pins:
        return None
    try:
        account = whoami(endpoint=endpoint, token=token, patience=ONCE) if token else None
        check_access(spec.weights.repo, endpoint=endpoint, token=token, patience=ONCE)
    except LlmopsError as error:
        return error
    return HubAnswer(endpoint, spec.weights.repo, account)


def ask_registry(
    spec: ModelSpec, registry: RegistryClient, pinned: PinnedImage | None = None
) -> ImageAnswer | LlmopsError:
    """Resolve the engine's image, and list the processors that it supports.

    Args:
        spec: The model's entry.
        registry: Client of the registry.
        pinned: The image, if it is resolved already.
    """
    engine = spec.engine
    try:
        if pinned is None:
            pinned = resolve_image(registry, engine.image, engine.version, engine.variant, engine.prereleases)
        architectures = registry.architectures(ImageName.parse(engine.image), pinned.digest)
    except LlmopsError as error:
        return error
    return ImageAnswer(pinned.tag, pinned.digest, engine.image, architectures)
