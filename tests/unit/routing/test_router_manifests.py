"""The router's configuration as a function of the serving releases, and the router's objects."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from llmops.config.catalog.load import load_catalog
from llmops.config.catalog.spec import ModelSpec, SecretKey
from llmops.config.settings import Settings
from llmops.config.tenants import Tenant, read_tenants
from llmops.errors import BadInput
from llmops.manifests.router import config_map, configured, objects
from llmops.manifests.router.plan import RouterPlan, Serving, plan, routing_of
from llmops.releases.release import Release

HIDDEN = "/llmops/drain/kept-to-itself"
PROVIDER = {"model": "fireworks_ai/accounts/fireworks/models/tiny", "api_key": {"name": "fireworks", "key": "api-key"}}


def spec(name: str, **routing: Any) -> ModelSpec:
    base = {"name": name, "weights": {"repo": f"acme/{name}"}, "engine": {"version": "0.32.0"}, "routing": routing}
    return ModelSpec.model_validate(base)


def tenant(name: str, *models: str, **limits: int) -> Tenant:
    content = {"name": name, "models": models, "key": {"name": f"tenant-{name}", "key": "key"}}
    return Tenant.model_validate(content | limits)


def installation(**router: Any) -> Settings:
    return Settings.model_validate({"namespace": "serving", "router": {"enabled": True, **router}})


def named(release: Release, model: str) -> Release:
    return release.model_copy(update={"model": model})


def deployments(planned: RouterPlan) -> dict[str, list[Mapping[str, Any]]]:
    """Deployments by the name that users request."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for deployment in planned.config["model_list"]:
        groups.setdefault(deployment["model_name"], []).append(deployment)
    return groups


def of_kind(manifests: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (manifest,) = (manifest for manifest in manifests if manifest["kind"] == kind)
    return manifest


@given(percent=st.integers(0, 100), candidate=st.booleans())
@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
def test_the_canary_gets_the_share_of_the_models_state(release: Release, percent: int, candidate: bool) -> None:
    serving = Serving(release, release if candidate else None, percent)
    planned = plan({"tiny": serving}, {"tiny": spec("tiny")}, {}, installation())
    (tracks,) = deployments(planned).values()
    shares = {deployment["model_info"]["id"]: deployment["litellm_params"]["weight"] for deployment in tracks}
    if percent and candidate:
        assert shares == {"tiny.stable": 100 - percent, "tiny.canary": percent}
    else:
        assert shares == {"tiny.stable": 100}
    for track, service in (("stable", "tiny"), ("canary", "tiny-canary")):
        if f"tiny.{track}" in shares:
            assert planned.urls[f"URL_TINY_{track.upper()}"] == f"http://{service}.serving.svc:8000/v1"
    assert len(planned.urls) == len(shares)


def test_a_model_without_a_release_is_neither_routed_nor_a_fallback(release: Release) -> None:
    catalog = {
        "tiny": spec("tiny", fallbacks=["other", "unborn"], managed=[PROVIDER]),
        "other": spec("other"),
        "unborn": spec("unborn", aliases=["next"]),
    }
    serving = {name: Serving(named(release, name)) for name in ("tiny", "other", "gone-from-the-catalog")}
    planned = plan(serving, catalog, {}, installation())
    assert deployments(planned).keys() == {"tiny", "other", "tiny@managed-0"}
    assert planned.config["router_settings"]["fallbacks"] == [{"tiny": ["other", "tiny@managed-0"]}]
    assert planned.config["router_settings"]["model_group_alias"] == {}


def test_objects_have_the_names_of_secrets_and_no_secret(release: Release) -> None:
    catalog = {"tiny": spec("tiny", managed=[PROVIDER])}
    settings = installation(managed={"tail": PROVIDER})
    tenants = {"acme": tenant("acme", "tiny")}
    planned = plan({"tiny": Serving(release)}, catalog, tenants, settings)
    for deployment in planned.config["model_list"]:
        assert deployment["litellm_params"]["api_key"].startswith("os.environ/KEY_")
    assert planned.config["general_settings"]["master_key"] == "os.environ/LITELLM_MASTER_KEY"
    container = of_kind(objects(planned, settings, HIDDEN), "Deployment")["spec"]["template"]["spec"]["containers"][0]
    sources = {
        variable["name"]: variable["valueFrom"]["secretKeyRef"]
        for variable in container["env"]
        if "valueFrom" in variable
    }
    assert sources == {
        "LITELLM_MASTER_KEY": {"name": "llmops-router", "key": "master-key"},
        "KEY_TINY_STABLE": {"name": "key", "key": "api-key", "optional": True},
        "KEY_TINY_MANAGED_0": {"name": "fireworks", "key": "api-key", "optional": True},
        "KEY_MANAGED_0": {"name": "fireworks", "key": "api-key", "optional": True},
    }


def test_each_replica_has_its_share_of_a_tenants_limits(release: Release) -> None:
    catalog = {"tiny": spec("tiny", aliases=["gpt-4o"], managed=[PROVIDER])}
    tenants = {"acme": tenant("acme", "tiny", requests_per_minute=100, tokens_per_minute=5, parallel_requests=1)}
    planned = plan({"tiny": Serving(release)}, catalog, tenants, installation(replicas=3))
    assert planned.tenants == {
        "acme": {
            "namespace": "tenant-acme",
            "models": ["tiny", "gpt-4o", "tiny@managed-0"],
            "requests_per_minute": 34,
            "tokens_per_minute": 2,
            "parallel_requests": 1,
        }
    }
    assert planned.keys == {"acme": SecretKey(name="tenant-acme", key="key")}


def test_another_configuration_has_a_config_map_of_another_name(release: Release) -> None:
    settings = installation()
    one, same, other = (
        plan({"tiny": Serving(release, release, percent)}, {"tiny": spec("tiny")}, {}, settings)
        for percent in (0, 0, 25)
    )
    assert objects(one, settings, HIDDEN) == objects(same, settings, HIDDEN)
    before, after = (of_kind(objects(planned, settings, HIDDEN), "ConfigMap") for planned in (one, other))
    assert before["immutable"]
    assert before["metadata"]["name"] != after["metadata"]["name"]
    deployment = of_kind(objects(other, settings, HIDDEN), "Deployment")
    assert configured(deployment) == after["metadata"]["name"]
    assert yaml.safe_load(after["data"]["config.yaml"]) == other.config
    assert json.loads(after["data"]["tenants.json"]) == other.tenants


def test_the_routers_rollout_surges_and_drains() -> None:
    settings = installation(unroute_seconds=7, drain_seconds=300)
    deployment = of_kind(objects(plan({}, {}, {}, settings), settings, HIDDEN), "Deployment")["spec"]
    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": "100%", "maxUnavailable": 0}
    pod = deployment["template"]["spec"]
    (container,) = pod["containers"]
    assert container["lifecycle"]["preStop"]["httpGet"]["path"] == f"{HIDDEN}?seconds=7&idle=300"
    values = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert values["GRACEFUL_SHUTDOWN_TIMEOUT"] == "300"
    assert pod["terminationGracePeriodSeconds"] > 307


def test_the_router_closes_an_idle_connection_before_vllm_does() -> None:
    settings = installation()
    deployment = of_kind(objects(plan({}, {}, {}, settings), settings, HIDDEN), "Deployment")["spec"]
    (container,) = deployment["template"]["spec"]["containers"]
    values = {variable["name"]: variable.get("value") for variable in container["env"]}
    vllm_closes_after = 5
    assert float(values["AIOHTTP_KEEPALIVE_TIMEOUT"]) < vllm_closes_after


def test_tenants_reach_the_router_and_only_providers_open_its_egress(release: Release) -> None:
    settings, tenants = installation(), {"acme": tenant("acme", "tiny")}

    def policy(**routing: Any) -> dict[str, Any]:
        planned = plan({"tiny": Serving(release)}, {"tiny": spec("tiny", **routing)}, tenants, settings)
        return of_kind(objects(planned, settings, HIDDEN), "NetworkPolicy")["spec"]

    (rule,) = policy()["ingress"]
    assert {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "tenant-acme"}}} in rule["from"]
    assert "ipBlock" not in json.dumps(policy())
    (world,) = (egress for egress in policy(managed=[PROVIDER])["egress"] if "ipBlock" in json.dumps(egress))
    assert world["ports"] == [{"port": 443, "protocol": "TCP"}]


def write(folder: Path, name: str, **routing: Any) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.yaml").write_text(spec(name, **routing).model_dump_json(exclude_defaults=True))


@pytest.mark.parametrize(
    ("routing", "mistake"),
    [
        ({"aliases": ["b"]}, "a.yaml:1: routing.aliases[0]: is 'b', the name of model b"),
        ({"aliases": ["shared"]}, "b.yaml:1: routing.aliases[0]: is 'shared', an alias of model a"),
        ({"aliases": ["x", "x"]}, "routing.aliases[1]: is 'x', an alias of model a"),
        ({"fallbacks": ["a"]}, "routing.fallbacks[0]: is the model itself"),
        ({"fallbacks": ["c"]}, "routing.fallbacks[0]: is 'c', which is not in the catalog; Allowed: a, b"),
    ],
)
def test_a_name_of_two_models_or_of_none_is_refused(tmp_path: Path, routing: dict[str, Any], mistake: str) -> None:
    write(tmp_path / "models", "a", **routing)
    write(tmp_path / "models", "b", aliases=["shared"])
    with pytest.raises(BadInput) as raised:
        load_catalog(tmp_path / "models")
    assert mistake in str(raised.value)


def test_no_model_has_the_routers_name(tmp_path: Path) -> None:
    write(tmp_path / "models", "llmops-router")
    with pytest.raises(BadInput) as raised:
        load_catalog(tmp_path / "models")
    assert raised.value.about == f"{tmp_path / 'models' / 'llmops-router.yaml'}:1: name"


@pytest.mark.parametrize("name", ["tiny", "gpt-4o"])
def test_a_provider_has_no_name_of_a_model(name: str) -> None:
    with pytest.raises(BadInput) as raised:
        plan({}, {"tiny": spec("tiny", aliases=["gpt-4o"])}, {}, installation(managed={name: PROVIDER}))
    assert (raised.value.code, raised.value.about) == ("NameTaken", f"router.managed {name}")
    assert "model tiny" in raised.value.message


@pytest.mark.parametrize("image", ["ghcr.io/berriai/litellm", "ghcr.io/berriai/litellm:latest", "litellm:main-stable"])
def test_an_unpinned_image_is_refused(image: str) -> None:
    with pytest.raises(ValueError, match="must be pinned by a version or a digest"):
        installation(image=image)


def test_tenants_may_have_models_of_providers(tmp_path: Path) -> None:
    content = {"name": "acme", "models": ["tail"], "key": {"name": "acme", "key": "key"}}
    (tmp_path / "acme.yaml").write_text(json.dumps(content))
    assert read_tenants(tmp_path, {}, "serving", managed=("tail",)).all()["acme"].models == ("tail",)
    with pytest.raises(BadInput) as raised:
        read_tenants(tmp_path, {}, "serving").all()
    assert raised.value.about == f"{tmp_path / 'acme.yaml'}:1: models[0]"


def test_the_routing_of_a_model_is_read_back_from_what_the_router_is_told(release: Release) -> None:
    catalog = {
        "tiny": spec("tiny", aliases=["gpt-4o", "small"], fallbacks=["tail"], managed=[PROVIDER], timeout_seconds=77),
        "tail": spec("tail"),
    }
    told = plan({name: Serving(named(release, name)) for name in catalog}, catalog, {}, installation())
    for name, entry in catalog.items():
        assert routing_of(told.config, told.secrets, name) == entry.routing
    assert routing_of(told.config, told.secrets, "new") == spec("new").routing


def test_the_configuration_of_hundreds_of_models_fits_into_a_config_map(release: Release) -> None:
    catalog = {f"model-{index}": spec(f"model-{index}", aliases=[f"alias-{index}"]) for index in range(500)}
    tenants = {f"tenant-{index}": tenant(f"tenant-{index}", *catalog) for index in range(20)}
    serving = {name: Serving(named(release, name), named(release, name), 50) for name in catalog}
    manifest = config_map(plan(serving, catalog, tenants, installation()), installation())
    assert sum(len(text.encode()) for text in manifest["data"].values()) < 1_000_000
