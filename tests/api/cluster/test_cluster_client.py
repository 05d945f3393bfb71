"""The client against a real API server: calls, and the codes of refusals."""

from __future__ import annotations

import base64
import json
import time
import traceback
from pathlib import Path

import pytest
from llmops_sandbox.cluster.controlplane import ControlPlane

from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.problems import (
    AlreadyExists,
    Conflict,
    Forbidden,
    Invalid,
    NotEntitled,
    NotFound,
    TimedOut,
)
from llmops.config.settings import Settings
from llmops.errors import BadInput, ClusterCannot, Unavailable
from tests.api.cluster.conftest import config_map, eventually, kubectl, write_kubeconfig
from tests.support.fixtures import settings_for

DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web"},
    "spec": {
        "replicas": 1,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "engine", "image": "example.com/x:1"}]},
        },
    },
}


def test_an_object_is_applied_read_listed_and_deleted(cluster: Cluster) -> None:
    cluster.apply(config_map("one", a="1") | {"metadata": {"name": "one", "labels": {"color": "red"}}})
    cluster.create(config_map("two"))
    stored = cluster.get("ConfigMap", "one")
    assert stored is not None
    assert stored["data"] == {"a": "1"}
    [listed] = cluster.list("ConfigMap", labels={"color": "red"})
    assert (listed["kind"], listed["apiVersion"], listed["metadata"]["name"]) == ("ConfigMap", "v1", "one")
    assert [item["metadata"]["name"] for item in cluster.list("ConfigMap", fields={"metadata.name": "two"})] == ["two"]
    assert cluster.get("ConfigMap", "one", namespace="default") is None
    assert {item["metadata"]["name"] for item in cluster.list("ConfigMap", namespace="")} > {"one", "two"}
    assert cluster.delete("ConfigMap", "one") is True
    assert cluster.delete("ConfigMap", "one") is False
    assert cluster.get("ConfigMap", "one") is None


def test_characters_of_every_script_are_applied_as_they_are(cluster: Cluster) -> None:
    text = "<|👩‍🚀|> é 漢 \\ud83d \u007f \u2028 \U0010ffff"
    assert cluster.apply(config_map("one", a=text))["data"] == {"a": text}
    assert cluster.create(config_map("two", a=text))["data"] == {"a": text}


def test_an_apply_removes_own_fields_and_keeps_those_of_others(cluster: Cluster) -> None:
    cluster.apply(config_map("one", a="1", b="2"))
    kubectl(cluster, "patch", "configmap", "one", "--type=merge", '-p={"data":{"theirs":"3"}}')
    assert cluster.apply(config_map("one", a="1"))["data"] == {"a": "1", "theirs": "3"}


def test_a_dry_run_shows_the_defaults_and_stores_nothing(cluster: Cluster) -> None:
    assert cluster.apply(DEPLOYMENT, dry_run=True)["spec"]["strategy"]["type"] == "RollingUpdate"
    assert cluster.get("Deployment", "web") is None


def test_a_conflict_names_the_other_manager_and_the_field(cluster: Cluster) -> None:
    cluster.apply(DEPLOYMENT)
    kubectl(cluster, "patch", "deployment", "web", "--type=merge", '-p={"spec":{"replicas":3}}')
    with pytest.raises(Conflict) as refused:
        cluster.apply(DEPLOYMENT)
    assert refused.value.managers == ("kubectl-patch",)
    assert refused.value.fields == (".spec.replicas",)
    assert (refused.value.code, refused.value.about) == ("FieldsOwned", "Deployment web")
    assert "'kubectl-patch' owns .spec.replicas" in str(refused.value)
    assert cluster.apply(DEPLOYMENT, force=True)["spec"]["replicas"] == 1


def test_our_own_scale_is_no_conflict_with_our_apply(cluster: Cluster) -> None:
    cluster.apply(DEPLOYMENT)
    cluster.patch("Deployment", "web", {"spec": {"replicas": 3}}, subresource="scale")
    assert cluster.apply(DEPLOYMENT)["spec"]["replicas"] == 1


def test_a_second_create_already_exists(cluster: Cluster) -> None:
    cluster.create(config_map("one"))
    with pytest.raises(AlreadyExists) as refused:
        cluster.create(config_map("one"))
    assert refused.value.about == "ConfigMap one"


def test_a_patch_bound_to_an_old_version_is_refused(cluster: Cluster) -> None:
    version = cluster.create(config_map("one", a="1"))["metadata"]["resourceVersion"]
    bound = {"metadata": {"resourceVersion": version}, "data": {"a": "2"}}
    assert cluster.patch("ConfigMap", "one", bound)["data"] == {"a": "2"}
    with pytest.raises(Conflict) as refused:
        cluster.patch("ConfigMap", "one", bound)
    assert refused.value.managers == ()
    assert (refused.value.code, refused.value.about) == ("Conflict", "ConfigMap one")


def test_rejected_content_names_its_field(cluster: Cluster) -> None:
    broken = json.loads(json.dumps(DEPLOYMENT))
    broken["spec"]["replicas"] = -1
    with pytest.raises(Invalid, match=r"spec\.replicas") as refused:
        cluster.apply(broken)
    assert (refused.value.code, refused.value.about) == ("Invalid", "Deployment web")


def test_an_unknown_field_is_refused_at_once(cluster: Cluster) -> None:
    with pytest.raises(Invalid, match="dato"):
        cluster.apply(config_map("one") | {"dato": {}})
    with pytest.raises(Invalid, match="dato"):
        cluster.create(config_map("one") | {"dato": {}})


def test_a_missing_object_namespace_and_kind_have_different_codes(cluster: Cluster) -> None:
    with pytest.raises(NotFound) as missing:
        cluster.patch("ConfigMap", "none", {"data": {"a": "1"}})
    assert (missing.value.code, missing.value.about) == ("NotFound", "ConfigMap none")
    assert missing.value.object_absent
    elsewhere = config_map("one")
    elsewhere["metadata"]["namespace"] = "nowhere"
    with pytest.raises(NotFound) as missing:
        cluster.apply(elsewhere)
    assert (missing.value.code, missing.value.about) == ("NamespaceNotFound", "Namespace nowhere")
    with pytest.raises(NotFound) as missing:
        cluster.get("GCPBackendPolicy", "none")
    assert (missing.value.code, missing.value.about) == ("KindNotServed", "GCPBackendPolicy")
    with pytest.raises(BadInput) as unknown:
        cluster.get("Gadget", "none")
    assert (unknown.value.code, unknown.value.about) == ("UnknownKind", "Gadget")


def test_the_remedy_for_a_missing_right_is_the_rule_to_add(
    cluster: Cluster, plane: ControlPlane, tmp_path: Path
) -> None:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "poor"}}
    cluster.apply(account)
    token = kubectl(cluster, "create", "token", "poor").strip()
    path = write_kubeconfig(tmp_path, plane, {"token": token})
    poor = Cluster.connect(settings_for(path, cluster.namespace))
    with pytest.raises(NotEntitled) as refused:
        poor.apply(DEPLOYMENT)
    assert refused.value.about == "Deployment web"
    assert refused.value.remedy == (
        f"Give system:serviceaccount:{cluster.namespace}:poor the rule"
        ' {apiGroups: ["apps"], resources: ["deployments"], verbs: ["patch"]}'
        f" through a Role in namespace {cluster.namespace}."
    )
    with pytest.raises(NotEntitled, match="through a ClusterRole") as refused:
        poor.list("Node")
    assert refused.value.about == "Node"


def test_a_quota_is_not_a_missing_right(cluster: Cluster) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}}
    cluster.apply({**quota, "spec": {"hard": {"count/configmaps": "0"}}})
    eventually(lambda: (cluster.get("ResourceQuota", "none") or {}).get("status", {}).get("hard"))
    with pytest.raises(Forbidden) as refused:
        cluster.create(config_map("one"))
    assert (refused.value.code, refused.value.about) == ("QuotaExceeded", "ConfigMap one")


def test_a_hanging_deletion_names_the_finalizers(cluster: Cluster) -> None:
    held = config_map("one")
    held["metadata"]["finalizers"] = ["example.com/hold"]
    cluster.create(held)
    with pytest.raises(TimedOut, match=r"finalizers: example.com/hold") as raised:
        cluster.delete("ConfigMap", "one", wait=1)
    assert raised.value.about == "ConfigMap one"
    cluster.patch("ConfigMap", "one", {"metadata": {"finalizers": None}})
    assert cluster.get("ConfigMap", "one") is None


def test_a_deletion_waits_until_the_object_is_gone(cluster: Cluster) -> None:
    cluster.create(config_map("one"))
    assert cluster.delete("ConfigMap", "one", wait=10) is True
    assert cluster.get("ConfigMap", "one") is None
    assert cluster.delete("ConfigMap", "one", wait=10) is False


def test_a_deletion_by_uid_spares_a_successor(cluster: Cluster) -> None:
    cluster.create(config_map("one"))
    assert cluster.delete("ConfigMap", "one", uid="00000000-0000-0000-0000-000000000000") is False
    assert cluster.get("ConfigMap", "one") is not None


def test_secrets_are_read_by_key(cluster: Cluster) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"token": "ünsafe"}}
    cluster.create(secret)
    assert cluster.secret_text("s", "token") == "ünsafe"
    assert cluster.secret_value("s", "other") is None
    assert cluster.secret_value("none", "token") is None


@pytest.mark.parametrize("value", [b"hf_SECRET\nhf_OTHER", b"hf_\xc3\xa4SECRET", b"hf_SECRET\xff", b" \n"])
def test_a_token_unfit_for_a_header_is_named_and_not_shown(cluster: Cluster, value: bytes) -> None:
    metadata = {"name": "s"}
    data = {"good": base64.b64encode(b"hf_SECRET\n").decode(), "bad": base64.b64encode(value).decode()}
    cluster.create({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})
    assert cluster.secret_value("s", "good") == "hf_SECRET"
    with pytest.raises(BadInput, match=f"^key bad of Secret s in namespace {cluster.namespace} ") as refused:
        cluster.secret_value("s", "bad")
    assert "SECRET" not in "".join(traceback.format_exception(refused.value))


def test_an_event_is_created_on_its_object(cluster: Cluster) -> None:
    regarding = cluster.create(config_map("one"))
    cluster.event(regarding, "Promoted", "release abc serves", type="Normal")
    assert "Promoted" in kubectl(cluster, "describe", "configmap", "one") + kubectl(cluster, "get", "events")
    [event] = cluster.list("Event", fields={"involvedObject.uid": regarding["metadata"]["uid"]})
    assert (event["reason"], event["message"], event["type"]) == ("Promoted", "release abc serves", "Normal")


def test_a_service_has_an_endpoint(cluster: Cluster) -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}}
    made = cluster.apply({**service, "spec": {"ports": [{"port": 80}]}})
    assert cluster.endpoint("web", 80) == f"http://{made['spec']['clusterIP']}:80"
    with pytest.raises(NotFound) as missing:
        cluster.endpoint("none", 80)
    assert missing.value.about == "Service none"
    cluster.apply({**service, "metadata": {"name": "headless"}, "spec": {"clusterIP": "None", "ports": [{"port": 80}]}})
    with pytest.raises(ClusterCannot) as refused:
        cluster.endpoint("headless", 80)
    assert (refused.value.code, refused.value.about) == ("NoClusterIP", "Service headless")


def test_a_wrong_context_or_kubeconfig_is_bad_input(plane: ControlPlane, tmp_path: Path) -> None:
    (tmp_path / "torn.yaml").write_text("clusters: [")
    for settings, named in (
        (settings_for(plane.kubeconfig, context="nowhere"), "context nowhere of"),
        (settings_for(tmp_path / "missing.yaml"), "missing.yaml"),
        (settings_for(tmp_path / "torn.yaml"), "torn.yaml"),
    ):
        with pytest.raises(BadInput) as refused:
            Cluster.connect(settings)
        assert refused.value.code == "KubeconfigUnusable"
        assert named in refused.value.about


def test_a_certificate_of_another_authority_is_bad_input_at_once(plane: ControlPlane, tmp_path: Path) -> None:
    path = write_kubeconfig(tmp_path, plane, {}, authority=plane.folder / "pki" / "admin.crt")
    with pytest.raises(BadInput) as refused:
        Cluster.connect(settings_for(path))
    assert refused.value.code == "CertificateNotTrusted"


def test_an_api_server_that_does_not_answer_is_unavailable(settings: Settings, tmp_path: Path, free_port: int) -> None:
    content = json.loads(Path(str(settings.kubeconfig)).read_text())
    content["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{free_port}"
    path = tmp_path / "away.yaml"
    path.write_text(json.dumps(content))
    started = time.monotonic()
    with pytest.raises(Unavailable, match=r"context current of .*away\.yaml") as raised:
        Cluster.connect(settings_for(path), patience=1)
    assert (raised.value.code, raised.value.about) == ("ApiServerUnreachable", f"https://127.0.0.1:{free_port}")
    assert time.monotonic() - started > 0.4


def test_expired_credentials_are_loaded_again(cluster: Cluster, plane: ControlPlane, tmp_path: Path) -> None:
    """The API server remembers for 10 s that a token was good."""

    def token(account: str) -> str:
        cluster.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}})
        credential = {"token": kubectl(cluster, "create", "token", account).strip()}
        return json.dumps({"apiVersion": api, "kind": "ExecCredential", "status": credential})

    api = "client.authentication.k8s.io/v1"
    given = tmp_path / "credential.json"
    given.write_text(token("first"))
    plugin = {"apiVersion": api, "command": "cat", "args": [str(given)], "interactiveMode": "Never"}
    path = write_kubeconfig(tmp_path, plane, {"exec": plugin})
    plugged = Cluster.connect(settings_for(path, cluster.namespace))
    with pytest.raises(Forbidden, match=":first"):
        plugged.list("ConfigMap")
    given.write_text(token("second"))
    cluster.delete("ServiceAccount", "first")

    def refused() -> bool | None:
        with pytest.raises(Forbidden) as error:
            plugged.list("ConfigMap")
        return True if ":second" in str(error.value) else None

    assert eventually(refused)
