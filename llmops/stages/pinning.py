"""From the catalog to a release, with the installation's hub, registry and suites: for the release stage and `plan`."""

from __future__ import annotations

from llmops.errors import BadInput
from llmops.evaluation.suites import load_suites
from llmops.registry import RegistryClient
from llmops.releases.release import Release
from llmops.releases.resolve import Hub, resolve
from llmops.stages.platform import Platform


def pin(platform: Platform, model: str, *, engine_version: str | None = None, revision: str | None = None) -> Release:
    """Resolve every policy of a model's spec.

    Args:
        platform: The installation.
        model: Name of the model.
        engine_version: Engine version (or range) to take instead of the spec's.
        revision: Weights revision to take instead of the spec's.

    Raises:
        BadInput: The model is not in the catalog, or hub or registry have no such thing.
        BadRelease: Nothing of what there is may be taken.
        Unavailable: Hub or registry do not answer.
    """
    spec, settings = platform.catalog[model], platform.settings
    token = None
    if secret := spec.weights.token:
        token = platform.cluster.secret_value(secret.name, secret.key)
        if token is None:
            raise BadInput(
                f"{model}: weights.token names key {secret.key} of Secret {secret.name}, "
                f"which is not in namespace {settings.namespace}",
                remedy=f"Create it: kubectl -n {settings.namespace} create secret generic {secret.name} "
                f"--from-file={secret.key}=FILE_WITH_THE_TOKEN",
            )
    suites = {suite.name: suite.sha256 for suite in load_suites(settings.evals_dir, spec.evaluation.suites)}
    with RegistryClient(settings.registry_mirrors) as registry:
        return resolve(
            spec,
            hub=Hub(settings.hub_endpoint, token),
            registry=registry,
            suites=suites,
            engine_version=engine_version,
            revision=revision,
        )
