"""A file with mistakes changes nothing of what the router has for its model or its tenant."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

import pytest
from llmops_sandbox.cluster.controlplane import ControlPlane

from llmops.config import names
from llmops.config.settings import load_settings
from llmops.errors import BadInput
from llmops.manifests.records import pins_config_map
from llmops.manifests.router import TENANTS_FILE
from llmops.manifests.volume import namespace
from llmops.rollout.ops.routing.router import router_objects
from llmops.rollout.platform import Platform
from tests.api.rollout.test_surroundings import release

MODEL = {
    "name": "tiny",
    "weights": {"repo": "a/b"},
    "engine": {"version": "0.32.0"},
    "routing": {"aliases": ["small"]},
}
TENANT = {
    "name": "acme",
    "namespace": "acme-apps",
    "models": ["tiny"],
    "key": {"name": "acme-key", "key": "token"},
    "requests_per_minute": 60,
}


@pytest.fixture
def installation(plane: ControlPlane, tmp_path: Path) -> Path:
    """Settings of an installation with one serving model, one tenant, and the router that follows from them."""
    for folder, entry in (("models", MODEL), ("tenants", TENANT)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{entry['name']}.yaml").write_text(json.dumps(entry))
    file = tmp_path / "settings.yaml"
    settings = {
        "kubeconfig": str(plane.kubeconfig),
        "namespace": f"routed-{secrets.token_hex(3)}",
        "models_dir": str(tmp_path / "models"),
        "tenants_dir": str(tmp_path / "tenants"),
        "router": {"enabled": True, "image": f"litellm@sha256:{'0' * 64}"},
    }
    file.write_text(json.dumps(settings))
    platform = Platform(settings_file=str(file))
    platform.cluster.apply(namespace(load_settings(file)))
    platform.records.save_release(pins_config_map(release()))
    platform.records.update_state("tiny", stable=release().id)
    for wanted in router_objects(platform, None):
        platform.cluster.apply(wanted)
    return file


def now(settings: Path) -> list[dict[str, Any]]:
    """The objects of the router by the files as they are now."""
    platform = Platform(settings_file=str(settings))
    return router_objects(platform, platform.cluster.get("Deployment", names.ROUTER))


@pytest.mark.parametrize(
    "broken", [("models/tiny.yaml",), ("tenants/acme.yaml",), ("models/tiny.yaml", "tenants/acme.yaml")]
)
def test_a_file_with_mistakes_changes_nothing(installation: Path, broken: tuple[str, ...]) -> None:
    before = now(installation)
    (config,) = (obj for obj in before if obj["kind"] == "ConfigMap")
    assert json.loads(config["data"][TENANTS_FILE])["acme"]["requests_per_minute"]
    for name in broken:
        file = installation.parent / name
        file.write_text(file.read_text()[:-1])
    assert now(installation) == before


def test_another_tenant_is_let_in_meanwhile(installation: Path) -> None:
    (installation.parent / "tenants" / "acme.yaml").write_text("{")
    other = TENANT | {"name": "other", "namespace": "other-apps", "key": {"name": "other-key", "key": "token"}}
    (installation.parent / "tenants" / "other.yaml").write_text(json.dumps(other))
    (config,) = (obj for obj in now(installation) if obj["kind"] == "ConfigMap")
    assert sorted(json.loads(config["data"][TENANTS_FILE])) == ["acme", "other"]


def test_a_tenant_that_the_router_does_not_know_waits_for_its_file(installation: Path) -> None:
    before = now(installation)
    (installation.parent / "tenants" / "new.yaml").write_text("name: new\nmodels: []\n")
    assert now(installation) == before
    with pytest.raises(BadInput, match=r"new\.yaml"):
        _ = Platform(settings_file=str(installation)).all_tenants
