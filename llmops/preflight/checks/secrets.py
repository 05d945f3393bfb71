"""Whether the Secrets that the configuration names exist and have the key. Their values are not read."""

from __future__ import annotations

from collections.abc import Iterator

from llmops.config.catalog.spec import SecretKey
from llmops.preflight.checks.case import Case, Check
from llmops.preflight.finding import Finding
from llmops.preflight.snapshot import Snapshot

DOCKER_CONFIG = ".dockerconfigjson"


def _of_model(case: Case) -> Iterator[Finding]:
    wanted: tuple[tuple[str, SecretKey | None], ...] = (
        ("weights.token", case.spec.weights.token),
        ("access.api_key", case.spec.access.api_key),
    )
    for field, secret in wanted:
        if secret is not None:
            yield _key(case.snapshot, secret, field)


def _of_installation(snapshot: Snapshot) -> Iterator[Finding]:
    if name := snapshot.settings.registry_secret:
        create = f"create secret docker-registry {name} --docker-server=HOST --docker-username=USER"
        yield _exists(snapshot, SecretKey(name=name, key=DOCKER_CONFIG), "registry_secret in the settings", create)
    router = snapshot.settings.router
    if router.enabled:
        yield _key(snapshot, router.master_key, "router.master_key in the settings")
        for name, managed in sorted(router.managed.items()):
            yield _key(snapshot, managed.api_key, f"router.managed {name} in the settings")


def _key(snapshot: Snapshot, secret: SecretKey, field: str) -> Finding:
    return _exists(snapshot, secret, field, f"create secret generic {secret.name} --from-file={secret.key}=FILE")


def _exists(snapshot: Snapshot, secret: SecretKey, field: str, create: str) -> Finding:
    subject = f"Secret {secret.name}/{secret.key}"
    if secret.key in snapshot.secrets.get(secret.name, frozenset()):
        return Finding("ok", subject, f"exists, for {field}")
    kubectl = f"kubectl -n {snapshot.settings.namespace}"
    if secret.name in snapshot.secrets:
        remedy = f"Add {secret.key} under stringData: {kubectl} edit secret {secret.name}"
        return Finding("error", subject, f"has no key {secret.key}; {field} names it", remedy)
    return Finding("error", subject, f"does not exist; {field} names it", f"{kubectl} {create}")


CHECKS = (
    Check[Snapshot](
        "secrets.installation",
        "Secrets",
        ("secrets",),
        _of_installation,
        used=lambda snapshot: snapshot.settings.registry_secret is not None or snapshot.settings.router.enabled,
    ),
)
MODEL_CHECKS = (
    Check[Case](
        "secrets.model",
        "Secrets",
        ("secrets",),
        _of_model,
        used=lambda case: case.spec.weights.token is not None or case.spec.access.api_key is not None,
    ),
)
