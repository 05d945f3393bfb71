"""The component for tenants, on a real API server: its rights reach namespaces of tenants, and no others."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from llmops_sandbox.cluster.controlplane import ControlPlane

from llmops.clients.kubernetes.client import Cluster
from llmops.config.settings import Settings
from llmops.config.tenants import Tenant
from llmops.manifests import tenants as homes
from tests.support.fixtures import settings_for

K8S = Path(__file__).parents[3] / "k8s"
PIPELINE = "system:serviceaccount:llmops:llmops"
ENFORCE = "pod-security.kubernetes.io/enforce"
Object = dict[str, Any]


def tenant(name: str) -> Tenant:
    return Tenant.model_validate({"name": name, "models": ["m"], "key": {"name": f"key-{name}", "key": "k"}})


class Pipeline:
    """The pipeline's account."""

    def __init__(self, plane: ControlPlane) -> None:
        self._client = config.new_client_from_config(str(plane.kubeconfig))
        self._client.set_default_header("Impersonate-User", PIPELINE)
        self.core: Any = client.CoreV1Api(self._client)
        self.network: Any = client.NetworkingV1Api(self._client)

    def refused(self, ask: Callable[[], Any]) -> str:
        """The reason why a request is refused; empty if it is not."""
        try:
            ask()
        except ApiException as error:
            if error.status not in (403, 422):
                raise
            return str(json.loads(error.body or "{}")["message"])
        return ""

    def label(self, namespace: str, **labels: str | None) -> str:
        named = {name.replace("__", "/").replace("_", "-"): value for name, value in labels.items()}
        return self.refused(lambda: self.core.patch_namespace(namespace, {"metadata": {"labels": named}}))

    def make(self, namespace: str, **labels: str) -> str:
        body = {"metadata": {"name": namespace, "labels": labels}}
        return self.refused(lambda: self.core.create_namespace(body))

    def quota(self, namespace: str) -> str:
        body = {"metadata": {"name": "llmops"}, "spec": {"hard": {"pods": "1"}}}
        return self.refused(lambda: self.core.create_namespaced_resource_quota(namespace, body, dry_run="All"))

    def policy(self, namespace: str) -> str:
        body = {"metadata": {"name": "open"}, "spec": {"podSelector": {}, "ingress": [{}]}}
        return self.refused(lambda: self.network.create_namespaced_network_policy(namespace, body, dry_run="All"))


@pytest.fixture(scope="module")
def pipeline(plane: ControlPlane) -> Iterator[Pipeline]:
    admin = Cluster.connect(settings_for(plane.kubeconfig, "llm-serving"))
    rights = list(yaml.safe_load_all((K8S / "tenants" / "rights.yaml").read_text()))
    # The right to delete, and policies in llm-serving: the component gives neither, but the rules hold for them, too.
    rights[0]["rules"] += [
        {"apiGroups": [""], "resources": ["namespaces", "namespaces/finalize"], "verbs": ["delete", "update"]},
        {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": ["create"]},
    ]
    admission = list(yaml.safe_load_all((K8S / "tenants" / "admission.yaml").read_text()))
    names = ("llm-serving", "bystander", "llmops-system")
    spaces = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in names]
    api = client.ApiClient(configuration=config.new_client_from_config(str(plane.kubeconfig)).configuration)
    for obj in [*spaces, *rights, *admission]:
        _apply(api, obj)
    pipeline = Pipeline(plane)
    # The API server takes new policies up a moment later.
    deadline = time.monotonic() + 60
    while not (pipeline.label("bystander", x="y") and pipeline.quota("bystander")) and time.monotonic() < deadline:
        time.sleep(0.5)
    yield pipeline
    assert admin.get("Namespace", "llm-serving") is not None
    for kind in ("validatingadmissionpolicybindings", "validatingadmissionpolicies"):
        for name in ("llmops-tenants", "llmops-tenants-objects"):
            api.call_api(f"/apis/admissionregistration.k8s.io/v1/{kind}/{name}", "DELETE", response_types_map={})


def _apply(api: client.ApiClient, obj: Object) -> None:
    plural = {"ValidatingAdmissionPolicy": "validatingadmissionpolicies"}.get(obj["kind"], obj["kind"].lower() + "s")
    group = "/api/v1" if obj["apiVersion"] == "v1" else f"/apis/{obj['apiVersion']}"
    api.call_api(
        f"{group}/{plural}/{obj['metadata']['name']}",
        "PATCH",
        query_params=[("fieldManager", "test"), ("force", "true")],
        header_params={"Content-Type": "application/apply-patch+yaml"},
        body=obj,
        response_types_map={},
    )


def test_the_pipeline_applies_its_tenants(pipeline: Pipeline, settings: Settings) -> None:
    manifests = homes.objects(tenant("acme"), settings)
    space = manifests[0]
    assert pipeline.make(space["metadata"]["name"], **space["metadata"]["labels"]) == ""
    assert pipeline.label("tenant-acme", **{ENFORCE.replace("/", "__"): "baseline"}) == ""
    assert pipeline.quota("tenant-acme") == ""
    assert pipeline.policy("tenant-acme") == ""
    assert pipeline.policy("llm-serving") == ""


@pytest.mark.parametrize("namespace", ["kube-system", "bystander", "llmops-system", "llm-serving", "default"])
def test_it_changes_no_other_namespace(pipeline: Pipeline, namespace: str) -> None:
    for labels in ({ENFORCE: "privileged"}, {ENFORCE: None}, {"llmops.dev/tenant": "acme", ENFORCE: "baseline"}):
        body = {"metadata": {"labels": labels}}
        assert pipeline.refused(lambda body=body: pipeline.core.patch_namespace(namespace, body))
    assert "only in namespaces of tenants" in pipeline.quota(namespace)
    if namespace != "llm-serving":
        assert "only in namespaces of tenants" in pipeline.policy(namespace)


def test_it_lifts_no_pod_security_and_hands_no_namespace_on(pipeline: Pipeline) -> None:
    good = {"llmops.dev/tenant": "globex", ENFORCE: "restricted"}
    assert pipeline.make("tenant-globex", **good) == ""
    for change in (
        {ENFORCE: "privileged"},
        {ENFORCE: None},
        {ENFORCE: "none"},
        {"pod-security.kubernetes.io/enforce-version": "v1.0"},
        {"llmops.dev/tenant": None},
        {"llmops.dev/tenant": "acme"},
        {"llmops.dev/tenant": ""},
    ):
        body = {"metadata": {"labels": change}}
        assert pipeline.refused(lambda body=body: pipeline.core.patch_namespace("tenant-globex", body)), change
    assert pipeline.refused(lambda: pipeline.core.delete_namespace("tenant-globex"))


def test_it_makes_no_namespace_of_another_kind(pipeline: Pipeline) -> None:
    assert pipeline.make("plain")
    assert pipeline.make("plain", **{ENFORCE: "restricted"})
    assert pipeline.make("tenant-free", **{"llmops.dev/tenant": "free"})
    assert pipeline.make("tenant-free", **{"llmops.dev/tenant": "free", ENFORCE: "privileged"})
    assert pipeline.make("kube-node-lease-2", **{"llmops.dev/tenant": "free", ENFORCE: "restricted"})


def test_everybody_else_is_untouched(pipeline: Pipeline, plane: ControlPlane) -> None:
    admin = client.CoreV1Api(config.new_client_from_config(str(plane.kubeconfig)))
    admin.patch_namespace("bystander", {"metadata": {"labels": {ENFORCE: "privileged"}}})
    admin.patch_namespace("bystander", {"metadata": {"labels": {ENFORCE: None}}})
    assert pipeline.label("bystander", x="y")
