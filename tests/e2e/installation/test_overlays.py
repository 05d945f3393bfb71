"""The overlays as kustomize renders them, against the schemas, a real API server and Dagster's configuration."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from dagster._core.instance.config import dagster_instance_config
from llmops_sandbox.cluster.binaries import find_or_build, find_or_build_kubectl
from llmops_sandbox.cluster.controlplane import ControlPlane
from llmops_sandbox.installing import without_containers

from llmops.config.settings import load_settings

ROOT = Path(__file__).parents[3]
K8S = ROOT / "k8s"
OVERLAYS = ("sandbox", "production")
INSTANCE = yaml.safe_load((K8S / "base" / "dagster.yaml").read_text())
Object = dict[str, Any]


def render(overlay: Path) -> list[Object]:
    command = [str(find_or_build_kubectl()), "kustomize", str(overlay)]
    made = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return list(yaml.safe_load_all(made))


def pod_specs(manifests: list[Object]) -> Iterator[tuple[str, Object]]:
    for manifest in manifests:
        if manifest["kind"] in ("Deployment", "StatefulSet"):
            yield manifest["metadata"]["name"], manifest["spec"]["template"]["spec"]


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("version", ["1.34", "1.37"])
def test_every_object_is_what_the_schema_says(overlay: str, version: str) -> None:
    manifests = render(K8S / "overlays" / overlay)
    assert {manifest["kind"] for manifest in manifests} >= {
        "Namespace",
        "Deployment",
        "Role",
        "NetworkPolicy",
        "ConfigMap",
    }
    for manifest in manifests:
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_container_says_what_it_takes_and_can_gain_nothing(overlay: str) -> None:
    for name, spec in pod_specs(render(K8S / "overlays" / overlay)):
        for container in spec["containers"]:
            assert set(container["resources"]["requests"]) == {"cpu", "memory"}, name
            assert container["resources"]["limits"]["memory"], name
            assert container["securityContext"]["readOnlyRootFilesystem"], name
            assert not container["image"].endswith(":latest"), name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_is_named_is_there(overlay: str) -> None:
    """Accounts, ConfigMaps and Services that pods name. People make the Secrets."""
    manifests = render(K8S / "overlays" / overlay)
    there = {
        (manifest["kind"], manifest["metadata"].get("namespace"), manifest["metadata"]["name"])
        for manifest in manifests
    }
    for name, spec in pod_specs(manifests):
        if spec.get("automountServiceAccountToken", True):
            assert ("ServiceAccount", "llmops", spec["serviceAccountName"]) in there, name
        for volume in spec["volumes"]:
            if "configMap" in volume:
                assert ("ConfigMap", "llmops", volume["configMap"]["name"]) in there, name
        hosts = re.findall(r"([a-z-]+)\.llmops\.svc", json.dumps(spec))
        assert {("Service", "llmops", host) for host in hosts} <= there, name
    for manifest in manifests:
        if manifest["kind"] == "RoleBinding":
            assert ("Role", manifest["metadata"]["namespace"], manifest["roleRef"]["name"]) in there


def namespace_writers(manifests: list[Object]) -> set[str]:
    """Names of the roles that may write a namespace."""
    return {
        manifest["metadata"]["name"]
        for manifest in manifests
        if manifest["kind"] in ("Role", "ClusterRole")
        for rule in manifest["rules"]
        if {"*", "namespaces"} & set(rule.get("resources", ()))
        and {"*", ""} & set(rule.get("apiGroups", ()))
        and set(rule["verbs"]) - {"get", "list", "watch"}
    }


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_secrets_are_read_by_name_and_jobs_made_by_the_daemon_alone(overlay: str) -> None:
    """An account that makes Jobs beside the pipeline's account may run a pod as that."""
    manifests = render(K8S / "overlays" / overlay)
    makers: set[str] = set()
    for role in manifests:
        for rule in role["rules"] if role["kind"] in ("Role", "ClusterRole") else ():
            if "secrets" in rule["resources"]:
                assert rule["verbs"] == ["get"], role
                assert rule["resourceNames"], role
            if "jobs" in rule["resources"] and "create" in rule["verbs"] and role["metadata"]["namespace"] == "llmops":
                makers.add(role["metadata"]["name"])
            assert not {"*", "pods/exec", "serviceaccounts/token"} & set(rule["resources"])
    assert makers == {"dagster"}
    holders = {name for name, spec in pod_specs(manifests) if spec.get("serviceAccountName") == "dagster"}
    assert len(holders) == 1
    assert "daemon" in holders.pop()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_pod_that_no_policy_names_reaches_nothing(overlay: str) -> None:
    policies = {
        (manifest["metadata"]["namespace"], manifest["metadata"]["name"]): manifest["spec"]
        for manifest in render(K8S / "overlays" / overlay)
        if manifest["kind"] == "NetworkPolicy"
    }
    for namespace in ("llmops", "llm-serving"):
        assert policies[namespace, "default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    measuring = policies["llm-serving", "evaluation"]
    assert measuring["policyTypes"] == ["Ingress", "Egress"]
    blocks = [peer["ipBlock"]["cidr"] for rule in measuring["egress"] for peer in rule["to"] if "ipBlock" in peer]
    assert blocks == ["169.254.20.10/32"]
    assert all(rule["ports"] for rule in measuring["egress"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_account_may_write_namespaces_unless_the_component_for_tenants_is_added(
    overlay: str, tmp_path: Path
) -> None:
    """An account that may patch a namespace may remove Pod Security from it."""
    manifests = render(K8S / "overlays" / overlay)
    assert not namespace_writers(manifests)
    roles = {manifest["metadata"]["name"] for manifest in manifests if manifest["kind"] in ("Role", "ClusterRole")}
    bound = {
        manifest["roleRef"]["name"]
        for manifest in manifests
        if manifest["kind"] in ("RoleBinding", "ClusterRoleBinding")
    }
    # No built-in role of the cluster: this test cannot read their rules.
    assert bound <= roles
    shutil.copytree(K8S, tmp_path / "k8s")
    added = tmp_path / "k8s" / "overlays" / overlay / "kustomization.yaml"
    added.write_text(f"{added.read_text()}components:\n  - ../../tenants\n")
    with_tenants = render(added.parent)
    assert namespace_writers(with_tenants) == {"llmops-tenants"}
    bound = [obj["spec"] for obj in with_tenants if obj["kind"] == "ValidatingAdmissionPolicyBinding"]
    assert {spec["policyName"] for spec in bound} == {"llmops-tenants", "llmops-tenants-objects"}
    assert all(spec["validationActions"] == ["Deny"] for spec in bound)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_api_server_takes_it_under_the_restricted_standard(
    overlay: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Slow: it starts a control plane. The API server warns on a Deployment whose pods it would refuse."""
    plane = ControlPlane(tmp_path_factory.mktemp("plane"), find_or_build())
    kubectl = [str(find_or_build_kubectl()), "--kubeconfig", str(plane.kubeconfig)]
    try:
        plane.up()
        for options in (["--filename", str(K8S / "base" / "namespaces.yaml")], ["-k", str(K8S / "overlays" / overlay)]):
            done = subprocess.run([*kubectl, "apply", "--server-side", *options], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            assert "would violate" not in done.stderr
    finally:
        plane.down()


@pytest.mark.parametrize("instance", [INSTANCE, without_containers(INSTANCE)], ids=["cluster", "sandbox"])
def test_dagster_accepts_its_configuration(instance: Object, tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text(json.dumps(instance))
    config, _ = dagster_instance_config(str(tmp_path))
    assert config["telemetry"] == {"enabled": False}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_on_a_cluster_runs_start_with_the_account_of_their_pod(overlay: str) -> None:
    """With either overlay: what a machine without containers needs is the sandbox's alone."""
    instances = [
        yaml.safe_load(manifest["data"]["dagster.yaml"])
        for manifest in render(K8S / "overlays" / overlay)
        if manifest["kind"] == "ConfigMap" and "dagster.yaml" in manifest["data"]
    ]
    assert [instance["run_launcher"]["config"].get("load_incluster_config", True) for instance in instances] == [True]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_home_is_a_folder_that_can_be_written(overlay: str) -> None:
    """The images' user has no entry in /etc/passwd, so that without HOME it is the root of a read-only file system."""
    runs = INSTANCE["run_launcher"]["config"]["run_k8s_config"]["container_config"]
    run: dict[str, Any] = {
        "image": "ghcr.io/llmops-dev/orchestrator",
        "volumeMounts": runs["volume_mounts"],
        "env": runs["env"],
    }
    containers = [
        container for _, spec in pod_specs(render(K8S / "overlays" / overlay)) for container in spec["containers"]
    ]
    ours = [container for container in [run, *containers] if "llmops-dev" in container["image"]]
    assert len(ours) == 5
    for container in ours:
        home = next(variable["value"] for variable in container["env"] if variable["name"] == "HOME")
        (mounted,) = (mount for mount in container["volumeMounts"] if mount["mountPath"] == home)
        assert not mounted.get("readOnly"), container


def test_a_run_that_is_cancelled_has_time_to_clean_up() -> None:
    """A run's pod gets its whole grace period before Dagster takes the run for dead."""
    instance = INSTANCE
    grace = instance["run_launcher"]["config"]["run_k8s_config"]["pod_spec_config"]["termination_grace_period_seconds"]
    assert grace >= 300
    assert instance["run_monitoring"]["cancel_timeout_seconds"] > grace


def test_the_settings_of_an_overlay_are_settings(tmp_path: Path) -> None:
    for path in (K8S / "base" / "settings.yaml", K8S / "overlays" / "production" / "settings.yaml"):
        assert load_settings(path).namespace == "llm-serving"


def test_runs_use_the_image_of_their_code_location(tmp_path: Path) -> None:
    shutil.copytree(K8S, tmp_path / "k8s")
    overlay = tmp_path / "k8s" / "overlays" / "production"
    kustomization = overlay / "kustomization.yaml"
    changed = kustomization.read_text().replace("newTag: 0.1.0", f"digest: sha256:{'a' * 64}")
    kustomization.write_text(changed.replace("newName: ghcr.io/llmops-dev/", "newName: registry.example/ours/"))
    image = f"registry.example/ours/orchestrator@sha256:{'a' * 64}"
    specs = dict(pod_specs(render(overlay)))
    assert {spec["containers"][0]["image"] for spec in specs.values()} == {image}
    environment = {
        variable["name"]: variable.get("value") for variable in specs["code-location"]["containers"][0]["env"]
    }
    assert environment["DAGSTER_CURRENT_IMAGE"] == image


def pins(path: Path) -> dict[str, str]:
    pins = re.findall(r"^([\w.-]+)(?:\[[^\]]*\])?==([^\s;]+)", path.read_text(), re.MULTILINE)
    return {name.lower(): version for name, version in pins}


def test_the_image_has_the_projects_own_pins_and_each_by_hash() -> None:
    path = K8S / "orchestrator" / "requirements.txt"
    image, project = pins(path), pins(ROOT / "requirements.txt")
    assert image.items() <= project.items()
    assert {"dagster", "dagster-k8s", "dagster-postgres", "dagster-webserver", "kubernetes", "openai"} <= image.keys()
    assert not {"pytest", "ruff", "hypothesis", "pyright"} & image.keys()
    for block in re.split(r"^(?=[\w.-]+(?:\[[^\]]*\])?==)", path.read_text(), flags=re.MULTILINE)[1:]:
        assert "--hash=sha256:" in block, block.splitlines()[0]
