"""Every object against Kubernetes: its published schemas, and a real API server with its admission."""

from __future__ import annotations

import datetime
import json
from typing import Any, cast

import kubernetes_validate
import pytest
from llmops_sandbox.cluster.controlplane import ControlPlane

from llmops.clients.kubernetes.client import Cluster
from llmops.config.catalog.spec import Access, Gpu
from llmops.config.settings import Settings
from llmops.manifests.engine import deployment, objects
from llmops.manifests.jobs import checksum_job, collect_job, download_job, image_checksum_job
from llmops.manifests.records import pins_config_map
from llmops.manifests.volume import claim, namespace
from llmops.releases.release import ImagePin, Release

EXPIRES = datetime.datetime(2026, 11, 25, 12, tzinfo=datetime.UTC)


def manifests(release: Release, settings: Settings) -> list[dict[str, Any]]:
    on_cpu = release.model_copy(update={"gpu": Gpu(count=0), "access": Access()})
    return [
        claim(settings),
        pins_config_map(release),
        download_job(release, settings, "run"),
        checksum_job(release, settings, 3, "run"),
        collect_job(release.model, ["k1", "k2"], settings, "run", release.id),
        *objects(release, settings, "canary", 1, surge=True, run="run", expires_at=EXPIRES),
        *objects(release, settings, "stable", 2, surge=False),
        deployment(on_cpu.model_copy(update={"model": "other"}), settings, "stable", 1, surge=True),
        *by_other_strategies(release, settings),
    ]


def by_other_strategies(release: Release, settings: Settings) -> list[dict[str, Any]]:
    image = ImagePin(repository="r.example/weights", tag="1", digest=f"sha256:{'a' * 64}", path="/llama")
    own, imaged = (
        release.model_copy(update={"model": name, "weights": release.weights.model_copy(update=changes)})
        for name, changes in (
            ("own", {"strategy": "init"}),
            ("imaged", {"strategy": "image", "image": image}),
        )
    )
    return [
        deployment(own, settings, "stable", 1, surge=True),
        deployment(imaged, settings, "stable", 1, surge=True),
        image_checksum_job(imaged, image, settings, "run"),
    ]


@pytest.mark.parametrize("version", ["1.34", "1.37"])
def test_every_object_is_what_the_schema_says(release: Release, settings: Settings, version: str) -> None:
    for manifest in [namespace(settings), *manifests(release, settings)]:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_the_schema_finds_a_field_that_is_not_one(release: Release, settings: Settings) -> None:
    wrong = deployment(release, settings, "stable", 1, surge=True)
    wrong["spec"]["template"]["spec"]["containers"][0]["lifecycle"]["preStop"]["httpGet"]["ports"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.37", strict=True)


def test_an_api_server_takes_every_object_and_a_second_apply_changes_nothing(
    plane: ControlPlane, release: Release, settings: Settings
) -> None:
    at = settings.model_copy(update={"kubeconfig": str(plane.kubeconfig), "namespace": "applied"})
    cluster = Cluster.connect(at)
    cluster.apply(namespace(at))
    first = [cluster.apply(manifest) for manifest in manifests(release, at)]
    again = [cluster.apply(manifest) for manifest in manifests(release, at)]
    for one, two in zip(first, again, strict=True):
        assert one["metadata"].get("generation") == two["metadata"].get("generation"), one["kind"]
    for sent, kept in zip(manifests(release, at), again, strict=True):
        assert not dropped(sent, kept), f"{sent['kind']} {sent['metadata']['name']}"


def test_every_pod_is_admitted_where_only_the_restricted_are(
    plane: ControlPlane, release: Release, settings: Settings
) -> None:
    at = settings.model_copy(update={"kubeconfig": str(plane.kubeconfig), "namespace": "restricted"})
    cluster = Cluster.connect(at)
    strict = namespace(at)
    strict["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = "restricted"
    cluster.apply(strict)
    templates = [
        manifest["spec"]["template"] for manifest in manifests(release, at) if "template" in manifest.get("spec", {})
    ]
    assert len(templates) == 9
    for number, template in enumerate(templates):
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"pod-{number}", "labels": template["metadata"]["labels"]},
            "spec": json.loads(json.dumps(template["spec"])),
        }
        assert cluster.apply(pod, dry_run=True)["kind"] == "Pod"


def dropped(sent: Any, kept: Any, path: str = "") -> list[str]:
    """Sent fields that the stored object lacks: a server of another version drops fields that it does not know."""
    if isinstance(sent, dict):
        fields = cast(dict[str, Any], sent)
        gone = [f"{path}.{key}" for key in fields.keys() - kept.keys()]
        return gone + [
            lost for key in fields.keys() & kept.keys() for lost in dropped(fields[key], kept[key], f"{path}.{key}")
        ]
    if isinstance(sent, list):
        items = list(enumerate(cast(list[Any], sent)))
        if len(items) != len(kept):
            return [path]
        return [lost for index, item in items for lost in dropped(item, kept[index], f"{path}[{index}]")]
    return []
