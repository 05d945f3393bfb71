"""Read a model's configuration and parameter counts: the preflight computes from them whether it fits its GPUs."""

from __future__ import annotations

from functools import partial

from llmops.clients import hub
from llmops.config.catalog.spec import ModelSpec
from llmops.preflight.fit.shape import Shape
from llmops.preflight.fit.weights import SAYS_HOW
from llmops.releases.release import Release
from llmops.rollout.ops.pinning import hub_token
from llmops.rollout.platform import Platform

CONFIG = "config.json"
WEIGHTS = ".safetensors"


def read_shape(platform: Platform, spec: ModelSpec, release: Release) -> Shape | None:
    """Read the configuration and the headers of the weight files from the hub; None if the model lacks either.

    Raises:
        BadRelease: The configuration or a header is malformed.
        BadInput: The hub refuses access.
        Unavailable: The hub does not answer.
    """
    files = [file for file in release.weights.files if file.path.endswith(WEIGHTS)]
    if not files or not any(file.path == CONFIG for file in release.weights.files):
        return None
    settings, pin = platform.settings, release.weights
    token = hub_token(platform.cluster, spec)
    read = partial(hub.read_config, pin.repo, pin.commit, endpoint=settings.hub_endpoint, token=token)
    present = {file.path for file in release.weights.files}
    return Shape(
        config=read(CONFIG),
        parameters=hub.count_parameters(
            pin.repo, pin.commit, [file.path for file in files], endpoint=settings.hub_endpoint, token=token
        ),
        size=sum(file.size for file in files),
        beside={name: read(name) for name in SAYS_HOW if name in present},
    )
