"""What an entry names outside of itself: Secrets, hosts, images. The settings say which of them it may."""

from __future__ import annotations

from collections.abc import Iterator

from llmops.config.catalog.spec import ModelSpec
from llmops.config.schema import Problem, SecretKey
from llmops.config.settings.allowed import Allowed


def problems(spec: ModelSpec, allowed: Allowed) -> Iterator[Problem]:
    """What the entry names and may not: field, and problem."""
    secrets: list[tuple[tuple[str | int, ...], SecretKey | None]] = [
        (("weights", "token"), spec.weights.token),
        (("access", "api_key"), spec.access.api_key),
    ]
    for index, managed in enumerate(spec.routing.managed):
        field = ("routing", "managed", index)
        secrets.append(((*field, "api_key"), managed.api_key))
        if managed.api_base is not None:
            yield from (((*field, "api_base"), problem) for problem in allowed.url(managed.api_base))
        else:
            yield from (((*field, "model"), problem) for problem in allowed.provider(managed.model))
    for field, secret in secrets:
        if secret is not None:
            yield from (((*field, "name"), problem) for problem in allowed.secret(secret.name))
    if spec.exposure.tls_secret is not None:
        yield from ((("exposure", "tls_secret"), problem) for problem in allowed.secret(spec.exposure.tls_secret))
    if spec.exposure.auth_url is not None:
        yield from ((("exposure", "auth_url"), problem) for problem in allowed.url(spec.exposure.auth_url))
    yield from ((("engine", "image"), problem) for problem in allowed.image(spec.engine.image))
    if spec.weights.image is not None:
        field = ("weights", "image", "repository")
        yield from ((field, problem) for problem in allowed.image(spec.weights.image.repository))
