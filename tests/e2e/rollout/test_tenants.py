"""Tenants in a real cluster: quotas, owners of namespaces, and the objects that stay when a tenant leaves."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from llmops_sandbox.cluster.binaries import find_or_build_kubectl
from llmops_sandbox.sandbox import Sandbox

from llmops.cli.app import main
from llmops.clients.kubernetes.problems import Forbidden
from llmops.config.schema import SecretKey
from llmops.config.settings import Settings
from llmops.config.tenants import Tenant
from llmops.defs.resources import PlatformResource
from llmops.defs.tenants.assets import tenants
from llmops.errors import ClusterCannot
from llmops.manifests.tenants import objects
from llmops.rollout.ops.routing.tenants import apply_tenants
from llmops.rollout.platform import Platform
from tests.e2e.installation.rights import account_kubeconfig
from tests.support.world import Model, new_model

TENANT = Tenant(name="acme", models=("m",), key=SecretKey(name="acme", key="key"))


def test_a_tenants_pods_reach_the_router_and_neither_engines_nor_others() -> None:
    policy = objects(TENANT, Settings.model_validate({}))[-1]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["podSelector"] == {}
    assert policy["ingress"] == [{"from": [{"podSelector": {}}]}]
    own, router, dns = policy["egress"]
    assert own == {"to": [{"podSelector": {}}]}
    assert router["ports"] == [{"port": 4000, "protocol": "TCP"}]
    (peer,) = router["to"]
    assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "router"
    assert {port["port"] for port in dns["ports"]} == {53}


def test_without_policies_or_dns_nothing_is_opened_by_accident() -> None:
    closed = Settings.model_validate({"network": {"dns": []}})
    assert len(objects(TENANT, closed)[-1]["spec"]["egress"]) == 2
    off = Settings.model_validate({"network": {"enforce": False}})
    assert "NetworkPolicy" not in {obj["kind"] for obj in objects(TENANT, off)}


@pytest.fixture(scope="module")
def world(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    folder = tmp_path_factory.mktemp("tenants")
    with new_model(sandbox, folder) as model:
        settings = json.loads(model.settings_file.read_text())
        model.settings_file.write_text(json.dumps(settings | {"tenants_dir": str(folder / "tenants")}))
        (folder / "tenants").mkdir()
        yield model


def declare(world: Model, name: str, **changes: Any) -> Path:
    path = world.folder / "tenants" / f"{name}.yaml"
    key = {"name": f"tenant-{name}", "key": "api-key"}
    path.write_text(json.dumps({"name": name, "models": [world.name], "key": key} | changes))
    return path


def pod(name: str, namespace: str, **requests: str) -> dict[str, Any]:
    container = {
        "name": "c",
        "image": "python:3",
        "resources": {"requests": requests, "limits": {key: value for key, value in requests.items() if "gpu" in key}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    # No node runs it: the test asks only whether the API server admits it.
    spec = {"containers": [container], "nodeSelector": {"none": "such"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def admitted(world: Model, wanted: dict[str, Any]) -> dict[str, Any]:
    """Create the pod as soon as its namespace has its service account and the counts of its quota."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return dict(world.cluster.create(wanted))
        except Forbidden as error:
            beginning = "serviceaccount" in str(error) or "status unknown" in str(error)
            if not beginning or time.monotonic() > deadline:
                raise


def test_what_a_tenant_may_take_of_the_cluster_is_bounded(world: Model) -> None:
    """Slow: a sandbox. Its controllers count, and its API server refuses a pod over the quota by name."""
    path = declare(world, "acme", quota={"pods": 2, "cpu": "1", "memory": "1Gi"})
    lines: list[str] = []
    assert apply_tenants(world.platform, lines.append) == ()
    assert len(lines) == 4
    first = admitted(world, pod("one", "tenant-acme"))
    resources = first["spec"]["containers"][0]["resources"]
    assert resources["requests"] == {"cpu": "100m", "memory": "256Mi"}
    assert resources["limits"] == {"memory": "256Mi"}
    with pytest.raises(Forbidden, match=r"exceeded quota.*requests\.cpu"):
        admitted(world, pod("large", "tenant-acme", cpu="950m"))
    with pytest.raises(Forbidden, match=r"exceeded quota.*nvidia\.com/gpu"):
        admitted(world, pod("gpu", "tenant-acme", **{"nvidia.com/gpu": "1"}))
    admitted(world, pod("two", "tenant-acme"))
    with pytest.raises(Forbidden, match=r"exceeded quota.*pods"):
        admitted(world, pod("three", "tenant-acme"))
    privileged = pod("root", "tenant-acme")
    privileged["spec"]["containers"][0]["securityContext"] = {"privileged": True}
    with pytest.raises(Forbidden, match="PodSecurity"):
        admitted(world, privileged)
    lines.clear()
    assert apply_tenants(world.platform, lines.append) == ()
    assert lines == [], "a second call changes nothing"
    path.unlink()
    (left,) = apply_tenants(world.platform, lines.append)
    assert (left.tenant, left.namespace, left.pods) == ("acme", "tenant-acme", 2)
    assert lines == [str(left)]
    assert world.cluster.get("Pod", "one", namespace="tenant-acme") is not None
    assert world.cluster.get("ResourceQuota", "llmops-tenant", namespace="tenant-acme") is not None


def test_a_namespace_that_is_somebody_elses_is_left_alone(world: Model, capsys: pytest.CaptureFixture[str]) -> None:
    """Slow: a sandbox. The asset and the command both stop before they change anything."""

    def output(*arguments: str) -> str:
        with pytest.raises(SystemExit):
            main([*arguments])
        return capsys.readouterr().out

    metadata = {"name": "shop", "labels": {"team": "shop"}}
    world.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    first, second = declare(world, "beta"), declare(world, "gamma", namespace="shop")
    try:
        with pytest.raises(ClusterCannot) as caught:
            apply_tenants(world.platform, print)
        assert (caught.value.code, caught.value.about) == ("NamespaceTaken", "Namespace shop")
        assert "llmops.dev/tenant=gamma" in caught.value.remedy
        assert world.cluster.get("Namespace", "tenant-beta") is None
        failed = dg.materialize([tenants], resources={"platform": world.platform}, raise_on_error=False)
        assert not failed.success
        second.unlink()
        done = dg.materialize([tenants], resources={"platform": world.platform})
        (event,) = done.asset_materializations_for_node("tenants")
        assert "| beta | tenant-beta |" in str(event.metadata["tenants"].value)
        assert output("tenants").count("kind: ") == len(
            objects(world.platform.tenants["beta"], world.platform.settings)
        )
        assert "1 tenants are as declared" in output("tenants", "--apply")
    finally:
        first.unlink()
        second.unlink(missing_ok=True)


RIGHTS = Path(__file__).parents[3] / "k8s" / "tenants" / "rights.yaml"


def reduced(rules: list[dict[str, Any]], verb: str, resource: str) -> list[dict[str, Any]]:
    """The rules without one verb on one resource."""
    return [
        {
            **rule,
            "resources": [name],
            "verbs": [allowed for allowed in rule["verbs"] if (allowed, name) != (verb, resource)],
        }
        for rule in rules
        for name in rule["resources"]
    ]


def test_the_component_has_the_rights_that_tenants_need_and_no_other(world: Model, sandbox: Sandbox) -> None:
    """Slow: a sandbox. The test removes each verb once; the API server then names the missing right.

    Without the component, which no overlay has, the asset's error names it and a way to do without it.
    """
    role, binding = yaml.safe_load_all(RIGHTS.read_text())
    admin = world.cluster
    admin.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "llmops"}})
    account = {"name": "llmops", "namespace": "llmops"}
    admin.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})
    rights = RIGHTS.parents[1] / "base" / "rights-serving.yaml"
    for manifest in yaml.safe_load_all(rights.read_text()):
        if manifest["kind"].startswith("Cluster"):
            admin.apply(manifest)
    admin.apply(role)
    admin.apply(binding)
    kubectl = str(find_or_build_kubectl())
    command = [kubectl, "--kubeconfig", str(sandbox.kubeconfig), "create", "token", "llmops", "--namespace", "llmops"]
    token = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    settings = json.loads(world.settings_file.read_text())
    limited = world.folder / "limited.yaml"
    kubeconfig = account_kubeconfig(world.folder / "limited.kubeconfig", sandbox.kubeconfig, token)
    limited.write_text(json.dumps(settings | {"kubeconfig": str(kubeconfig)}))
    number = 0

    def lacks() -> str:
        """The refusal when the account applies a new tenant and changes it; empty if it may."""
        nonlocal number
        number += 1
        path = declare(world, f"t{number}")
        try:
            apply_tenants(Platform(settings_file=str(limited)), print)
            declare(world, f"t{number}", quota={"pods": 7}, container_defaults={"cpu": "1m"}, pod_security="baseline")
            apply_tenants(Platform(settings_file=str(limited)), print)
        except Forbidden as error:
            return str(error)
        finally:
            path.unlink()
        return ""

    def settled(expected: str) -> str:
        """The API server applies changed roles a moment later."""
        deadline = time.monotonic() + 15
        while expected not in (refusal := lacks()) or (not expected and refusal):
            assert time.monotonic() < deadline, f"expected {expected!r}, last said {refusal!r}"
        return refusal

    settled("")
    admin.apply({**role, "rules": []})
    for part in (
        "k8s/tenants",
        "llmops tenants --apply",
        '"namespaces"',
        "system:serviceaccount:llmops:llmops",
    ):
        settled(part)
    platform = PlatformResource(settings_file=str(limited))
    failed = dg.materialize([tenants], resources={"platform": platform}, raise_on_error=False)
    (failure,) = failed.get_step_failure_events()
    assert "k8s/tenants" in str(failure.step_failure_data.user_failure_data)
    for rule in role["rules"]:
        for resource in rule["resources"]:
            for verb in rule["verbs"]:
                admin.apply({**role, "rules": reduced(role["rules"], verb, resource)})
                settled(f'"{resource}"')
    admin.apply(role)
    settled("")
