"""Pin a catalog entry to a release, with the installation's hub, registry and suites."""

from __future__ import annotations

from llmops.clients.kubernetes.client import Cluster
from llmops.clients.registry import SECRET_KEY, Credentials, PinnedImage, RegistryClient, parse_docker_config
from llmops.config.catalog.spec import ModelSpec
from llmops.config.settings import Settings
from llmops.evaluation.suites import load_suites
from llmops.releases.pins_file import PinsFile
from llmops.releases.release import Release
from llmops.releases.resolve import Hub, resolve
from llmops.rollout.platform import Platform


def pin(
    platform: Platform,
    model: str | ModelSpec,
    *,
    engine_version: str | None = None,
    image: str | None = None,
    revision: str | None = None,
) -> Release:
    """Resolve every policy of a model's spec.

    Args:
        platform: The installation.
        model: Name of the model, or an entry that is not in the catalog.
        engine_version: Engine version (or range) that overrides the spec's.
        image: Exact image, TAG@DIGEST, that overrides the registry's.
        revision: Weights revision that overrides the spec's.

    Raises:
        BadInput: The catalog lacks the model, or the hub or the registry lacks what the spec names.
        BadRelease: The policy admits no revision or no image.
        Unavailable: The hub or the registry does not answer.
    """
    spec = model if isinstance(model, ModelSpec) else platform.spec(model)
    settings = platform.settings
    # Without a Secret this works without a cluster.
    token = hub_token(platform.cluster, spec) if spec.weights.token else None
    credentials = registry_credentials(platform.cluster, settings) if settings.registry_secret else {}
    suites = {
        suite.name: suite.sha256
        for suite in load_suites(settings.evals_dir, spec.evaluation.suites, settings.catalog_allows)
    }
    services = settings.registry_token_services
    with RegistryClient(settings.registry_mirrors, credentials, token_services=services) as registry:
        return resolve(
            spec,
            hub=PinsFile(settings.models_dir / pins)
            if (pins := spec.weights.pins)
            else Hub(settings.hub_endpoint, token),
            registry=registry,
            suites=suites,
            engine_version=engine_version,
            image=PinnedImage.parse(image) if image else None,
            revision=revision,
        )


def hub_token(cluster: Cluster, spec: ModelSpec) -> str | None:
    """Read the hub token from the Secret that a model's spec names; None if it names none.

    Raises:
        BadInput: The Secret or its key is missing (code SecretMissing), or its value is not a token.
    """
    if (secret := spec.weights.token) is None:
        return None
    if (token := cluster.secret_value(secret.name, secret.key)) is None:
        create = f"create secret generic {secret.name} --from-file={secret.key}=FILE_WITH_THE_TOKEN"
        raise cluster.missing_secret(secret.name, secret.key, f"{spec.name}: weights.token", create)
    return token


def registry_credentials(cluster: Cluster, settings: Settings) -> dict[str, Credentials]:
    """Read the credentials for registries from the Secret that the settings name; empty if they name none.

    Raises:
        BadInput: The Secret is missing (code SecretMissing), or is not a Docker configuration.
    """
    if (name := settings.registry_secret) is None:
        return {}
    source = f"Secret {name} in namespace {cluster.namespace} (registry_secret in the settings)"
    if (text := cluster.secret_text(name, SECRET_KEY)) is None:
        create = f"create secret docker-registry {name} --docker-server=HOST --docker-username=USER"
        raise cluster.missing_secret(name, SECRET_KEY, "registry_secret in the settings", create)
    return parse_docker_config(text, source)
