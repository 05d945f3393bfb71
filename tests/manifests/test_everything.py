"""Whatever the catalog accepts is rendered, fits its schema, and is the same each time; an API server takes it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, Phase, assume, given
from hypothesis import settings as examples

from llmops.catalog.load import load_catalog
from llmops.catalog.spec import ModelSpec
from llmops.cluster.client import Cluster
from llmops.errors import BadInput
from llmops.manifests.around import KINDS, around
from llmops.manifests.text import as_yaml
from llmops.sandbox.binaries import find_or_build
from llmops.sandbox.controlplane import ControlPlane
from llmops.sandbox.crds import install_crds
from llmops.settings import Settings
from tests.generation import fields, given_fields
from tests.manifests.checking import UNPUBLISHED, VERSIONS, check_schema
from tests.manifests.everything import base, everything, installations, pinned, specs

REPOSITORY = Path(__file__).parents[2]
MODELS = load_catalog(REPOSITORY / "models")
ROOM = examples(deadline=None, suppress_health_check=(HealthCheck.too_slow, HealthCheck.filter_too_much))

PROMETHEUS = {"prometheus_url": "http://prometheus:9090"}
# Each option of the installation that renders something of its own.
INSTALLATIONS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "service monitors": {"monitoring": {"monitor": "service-monitor", **PROMETHEUS}},
    "pod monitors": {"monitoring": {"monitor": "pod-monitor", **PROMETHEUS}},
    "ALB": {"access": {"ingress": {"controller": "alb", "class_name": "alb"}}},
    "gateway of yours": {"access": {"gateway": {"name": "edge", "namespace": "gateways"}}},
    "gateway of ours": {"access": {"gateway": {"class_name": "envoy", "load_balancer": "aws-nlb"}, "issuer": "le"}},
    "GKE": {"access": {"gateway": {"class_name": "gke-l7-global-external-managed", "load_balancer": "gke"}}},
    "no policies": {"network": {"enforce": False}},
    "a storage class": {"storage_class": "efs", "storage": "1Ti"},
}
KEY = {"api_key": {"name": "k", "key": "k"}}
ENTRIES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "ingress": {"exposure": {"kind": "ingress", "host": "x.example.com"}, "access": KEY},
    "gateway": {"exposure": {"kind": "gateway", "host": "x.example.com"}, "access": KEY},
    "by queue": {"autoscaling": {"max": 8, "running": 4}},
    "by CPU": {"autoscaling": {"kind": "cpu", "max": 8}},
    "KEDA": {"autoscaling": {"kind": "keda", "max": 8}},
    "steps": {"traffic": {"steps": [{"percent": 10}, {"percent": 50}]}},
    "in pods": {"weights": {"strategy": "init"}},
    "in an image": {"weights": {"strategy": "image", "image": {"repository": "acme/weights", "tag": "v1"}}},
    "root": {"engine": {"user": 0}},
}


def changed(spec: ModelSpec, entry: dict[str, Any]) -> ModelSpec:
    content = spec.model_dump(mode="json", exclude_defaults=True)
    for name, value in entry.items():
        content[name] = {**content.get(name, {}), **value}
    return ModelSpec.model_validate(content)


def rendered(spec: ModelSpec, settings: Settings) -> list[dict[str, Any]]:
    try:
        return everything(spec, settings)
    except BadInput:
        # The two don't go together, and whoever wrote them is told.
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


@pytest.mark.parametrize("overlay", ["production", "sandbox"])
def test_every_object_of_an_overlay_fits_the_schemas(overlay: str) -> None:
    command = [str(find_or_build()["kubectl"]), "kustomize", str(REPOSITORY / "k8s" / "overlays" / overlay)]
    built = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = list(yaml.safe_load_all(built))
    assert len(found) > 20
    for manifest in found:
        check_schema(manifest)


@examples(ROOM, max_examples=20)
@given(spec=specs(), settings=installations())
def test_what_the_catalog_accepts_is_rendered_fits_and_is_the_same_twice(spec: ModelSpec, settings: Settings) -> None:
    first = rendered(spec, settings)
    assert as_yaml(first) == as_yaml(everything(ModelSpec.model_validate(spec.model_dump()), settings))
    for manifest in first:
        check_schema(manifest)
        meta = manifest["metadata"]
        assert meta["namespace"] == settings.namespace, manifest["kind"]
        assert meta["labels"]["app.kubernetes.io/managed-by"] == "llmops"
    for each in around(spec, pinned(spec), settings):
        assert each["kind"] in KINDS
        assert each["metadata"]["labels"]["llmops.dev/surrounds"] == spec.name
    identities = [(each["kind"], each["metadata"]["name"]) for each in first if each["metadata"]["name"]]
    # What both tracks share is applied by each of them; nothing else has another's name.
    shared = {each for each in identities if identities.count(each) > 1}
    assert {kind for kind, _ in shared} <= {"ConfigMap"}


@pytest.mark.long
def test_every_field_of_an_entry_is_drawn() -> None:
    """A field that no random entry has would be tested by none. Long: hundreds of entries."""
    missing = set(fields(ModelSpec))

    @examples(max_examples=400, deadline=None, database=None, phases=[Phase.generate], derandomize=True)
    @given(spec=specs())
    def look(spec: ModelSpec) -> None:
        missing.difference_update(given_fields(spec))

    look()
    assert missing == set()


def test_the_schemas_find_what_is_wrong() -> None:
    settings = Settings.model_validate(INSTALLATIONS["service monitors"])
    found = everything(changed(MODELS["smollm2-135m"], ENTRIES["gateway"]), settings)
    route = next(each for each in found if each["kind"] == "HTTPRoute")
    route["spec"]["rules"][0]["backendRefs"][0]["wieght"] = 1
    with pytest.raises(jsonschema.ValidationError, match="wieght"):
        check_schema(route)
    monitor = next(each for each in found if each["kind"] == "ServiceMonitor")
    monitor["spec"]["endpoints"][0]["interval"] = "often"
    with pytest.raises(jsonschema.ValidationError, match="often"):
        check_schema(monitor)
    deployment = next(each for each in found if each["kind"] == "Deployment")
    deployment["spec"]["replica"] = 1
    with pytest.raises(jsonschema.ValidationError):
        check_schema(deployment)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    plane = ControlPlane(tmp_path_factory.mktemp("plane"), find_or_build())
    try:
        plane.up()
        settings = Settings.model_validate({"kubeconfig": str(plane.kubeconfig)})
        found = Cluster.connect(settings)
        for manifest in base(settings):
            found.apply(manifest)
        install_crds(found)
        yield found
    finally:
        plane.down()


def judged(cluster: Cluster, manifests: list[dict[str, Any]]) -> None:
    for manifest in manifests:
        if manifest["kind"] not in UNPUBLISHED:
            cluster.apply(manifest, dry_run=True)


@pytest.mark.slow
@pytest.mark.parametrize("installation", INSTALLATIONS, ids=str)
def test_an_api_server_takes_every_model_with_every_option(cluster: Cluster, installation: str) -> None:
    """Slow: starts a control plane; thousands of dry runs."""
    settings = Settings.model_validate({"monitoring": PROMETHEUS} | INSTALLATIONS[installation])
    for model in MODELS.values():
        for entry in ENTRIES.values():
            judged(cluster, everything(changed(model, entry), settings))


@pytest.mark.slow
def test_an_api_server_takes_what_the_catalog_accepts(cluster: Cluster) -> None:
    """Slow: starts a control plane."""

    @examples(ROOM, max_examples=10)
    @given(spec=specs(), settings=installations())
    def look(spec: ModelSpec, settings: Settings) -> None:
        judged(cluster, rendered(spec, settings))

    look()
