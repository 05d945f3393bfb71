"""Every entry that the catalog accepts renders to the same valid objects each time; an API server takes them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, Phase, assume, find, given
from hypothesis import settings as examples
from hypothesis.errors import NoSuchExample
from llmops_sandbox.cluster.controlplane import ControlPlane

from llmops.clients.kubernetes.client import Cluster
from llmops.config.catalog.load import load_catalog
from llmops.config.catalog.spec import ModelSpec
from llmops.config.settings import Settings
from llmops.config.tenants import Tenants
from llmops.errors import BadInput
from llmops.manifests.companions.objects import KINDS, around
from llmops.manifests.text import as_yaml
from tests.support.everything import (
    ENTRIES,
    INSTALLATIONS,
    PROMETHEUS,
    base,
    beside,
    changed,
    everything,
    installations,
    pinned,
    specs,
    tenants,
)
from tests.support.generation import fields, given_fields
from tests.support.schemas import UNPUBLISHED, VERSIONS, check_schema

REPOSITORY = Path(__file__).parents[3]
K8S = REPOSITORY / "k8s"
MODELS = load_catalog(REPOSITORY / "models")
ROOM = examples(deadline=None, suppress_health_check=(HealthCheck.too_slow, HealthCheck.filter_too_much))


def rendered(render: Callable[..., list[dict[str, Any]]], *arguments: Any) -> list[dict[str, Any]]:
    try:
        return render(*arguments)
    except BadInput:
        # The entry and the settings contradict: a BadInput says so.
        assume(False)
        raise


@pytest.mark.parametrize("installation", INSTALLATIONS, ids=str)
@pytest.mark.parametrize("model", MODELS, ids=str)
def test_every_model_with_every_option_fits_the_schemas(model: str, installation: str) -> None:
    settings = Settings.model_validate({"monitoring": PROMETHEUS} | INSTALLATIONS[installation])
    seen: set[str] = set()
    for entry in ENTRIES.values():
        for manifest in [*base(settings), *everything(changed(MODELS[model], entry), settings)]:
            seen.add(manifest["kind"])
            for version in VERSIONS:
                check_schema(manifest, version)
    assert {"Deployment", "Service", "Job", "ConfigMap"} <= seen


@examples(ROOM, max_examples=20)
@given(spec=specs(), settings=installations())
def test_what_the_catalog_accepts_is_rendered_fits_and_is_the_same_twice(spec: ModelSpec, settings: Settings) -> None:
    first = rendered(everything, spec, settings)
    assert as_yaml(first) == as_yaml(everything(ModelSpec.model_validate(spec.model_dump()), settings))
    for manifest in first:
        check_schema(manifest)
        meta = manifest["metadata"]
        assert meta["namespace"] == settings.namespace, manifest["kind"]
        assert meta["labels"]["app.kubernetes.io/managed-by"] == "llmops"
    for companion in around(spec, pinned(spec), settings):
        assert companion["kind"] in KINDS
        assert companion["metadata"]["labels"]["llmops.dev/surrounds"] == spec.name
    identities = [
        (manifest["kind"], manifest["metadata"]["name"]) for manifest in first if manifest["metadata"]["name"]
    ]
    # Both tracks apply the ConfigMaps that they share; no other object has the name of another one.
    shared = {identity for identity in identities if identities.count(identity) > 1}
    assert {kind for kind, _ in shared} <= {"ConfigMap"}


@examples(ROOM, max_examples=8)
@given(spec=specs(), owners=tenants(), settings=installations())
def test_what_stands_beside_models_fits_and_is_the_same_twice(
    spec: ModelSpec, owners: Tenants, settings: Settings
) -> None:
    first = rendered(beside, spec, owners, settings)
    assert as_yaml(first) == as_yaml(beside(ModelSpec.model_validate(spec.model_dump()), owners, settings))
    for manifest in first:
        check_schema(manifest)
        assert manifest["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "llmops"
    identities = [
        (manifest["kind"], manifest["metadata"].get("namespace"), manifest["metadata"]["name"]) for manifest in first
    ]
    assert len(set(identities)) == len(identities)
    homes = {tenant.home for tenant in owners.values()}
    assert {namespace for _, namespace, _ in identities if namespace} == homes | {settings.namespace}


@pytest.mark.full
def test_every_field_of_an_entry_is_drawn() -> None:
    """The random entries set every field. Full: hundreds of entries."""
    missing = set(fields(ModelSpec))

    def last(spec: ModelSpec) -> bool:
        missing.difference_update(given_fields(spec))
        return not missing

    with contextlib.suppress(NoSuchExample):
        find(specs(), last, settings=examples(ROOM, max_examples=4000, database=None, phases=[Phase.generate]))
    assert missing == set()


def test_the_schemas_find_what_is_wrong() -> None:
    settings = Settings.model_validate(INSTALLATIONS["service monitors"])
    manifests = everything(changed(MODELS["smollm2-135m"], ENTRIES["gateway"]), settings)
    route = next(manifest for manifest in manifests if manifest["kind"] == "HTTPRoute")
    route["spec"]["rules"][0]["backendRefs"][0]["wieght"] = 1
    with pytest.raises(jsonschema.ValidationError, match="wieght"):
        check_schema(route)
    monitor = next(manifest for manifest in manifests if manifest["kind"] == "ServiceMonitor")
    monitor["spec"]["endpoints"][0]["interval"] = "often"
    with pytest.raises(jsonschema.ValidationError, match="often"):
        check_schema(monitor)
    deployment = next(manifest for manifest in manifests if manifest["kind"] == "Deployment")
    deployment["spec"]["replica"] = 1
    with pytest.raises(jsonschema.ValidationError):
        check_schema(deployment)


Judge = Callable[[list[dict[str, Any]]], None]


@pytest.fixture(scope="module")
def judge(plane: ControlPlane) -> Judge:
    """Asks an API server for a dry run of each object, once for equal objects."""
    settings = Settings.model_validate({"kubeconfig": str(plane.kubeconfig)})
    cluster = Cluster.connect(settings)
    for manifest in [*base(settings), *yaml.safe_load_all((K8S / "base" / "namespaces.yaml").read_text())]:
        cluster.apply(manifest, force=True)
    judged: set[str] = set()

    def judge(manifests: list[dict[str, Any]]) -> None:
        for manifest in manifests:
            text = json.dumps(manifest, sort_keys=True)
            if manifest["kind"] not in UNPUBLISHED and text not in judged:
                # The API server checks an object only in an existing namespace.
                cluster.apply(manifest, dry_run=manifest["kind"] != "Namespace")
                judged.add(text)

    return judge


@pytest.mark.parametrize("installation", INSTALLATIONS, ids=str)
def test_an_api_server_takes_every_model_with_every_option(judge: Judge, installation: str) -> None:
    settings = Settings.model_validate({"monitoring": PROMETHEUS} | INSTALLATIONS[installation])
    for model in MODELS.values():
        for entry in ENTRIES.values():
            judge(everything(changed(model, entry), settings))


def test_an_api_server_takes_what_the_catalog_accepts(judge: Judge) -> None:

    @examples(ROOM, max_examples=10)
    @given(spec=specs(), owners=tenants(), settings=installations())
    def look(spec: ModelSpec, owners: Tenants, settings: Settings) -> None:
        judge(rendered(everything, spec, settings))
        judge(rendered(beside, spec, owners, settings))

    look()


@pytest.mark.parametrize("path", ["tenants/rights.yaml", "monitoring/service.yaml"])
def test_an_api_server_takes_what_is_applied_beside_an_overlay(judge: Judge, path: str) -> None:
    """tests/e2e/installation/test_overlays.py applies the overlays themselves."""
    manifests = list(yaml.safe_load_all((K8S / path).read_text()))
    for manifest in manifests:
        check_schema(manifest)
    judge(manifests)
