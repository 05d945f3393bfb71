"""Checks of single topics: their findings, and unknown for every part of the cluster that they could not read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.clients.hub import RateLimited
from llmops.clients.kubernetes.problems import Forbidden
from llmops.errors import BadInput, LlmopsError, Unavailable
from llmops.preflight.checks import INSTALLATION, MODEL, preflight
from llmops.preflight.checks.case import Case, HubAnswer, ImageAnswer, Start
from llmops.preflight.finding import SEVERITIES, Finding, worst
from llmops.preflight.snapshot import APIS, Snapshot

Make = Callable[..., Any]

EXPOSED: dict[str, Any] = {
    "access": {"api_key": {"name": "key", "key": "k"}},
    "exposure": {"kind": "ingress", "host": "llm.example.com"},
}
GATEWAY: dict[str, Any] = EXPOSED | {"exposure": {"kind": "gateway", "host": "llm.example.com"}}
SECRETS = {"key": frozenset({"k"})}
DENIED = Forbidden("list Node: 403 Forbidden", remedy="Give it the rule.")
IMAGE = ImageAnswer("v0.32.0", f"sha256:{'2' * 64}", "a/b", frozenset({"amd64"}))


@pytest.fixture
def case(spec: Make, snapshot: Make, release: Make) -> Callable[..., Case]:
    def make(entry: dict[str, Any] | None = None, size: int = 10**9, **changes: Any) -> Case:
        own = {key: changes.pop(key) for key in ("hub", "image", "starts") if key in changes}
        answers: dict[str, Any] = {"hub": HubAnswer("http://hub", "acme/tiny"), "image": IMAGE} | own
        return Case(spec(**(entry or {})), snapshot(**changes), release(size), **answers)

    return make


def of(at: Case, check: str) -> list[Finding]:
    return [finding for finding in preflight(at) if finding.check == check]


def one(at: Case, check: str) -> Finding:
    (finding,) = of(at, check)
    return finding


PARTS = sorted({part for check in (*INSTALLATION, *MODEL) for part in check.parts})


@pytest.mark.parametrize("part", PARTS)
def test_an_unseen_part_is_unknown_with_the_errors_remedy_and_never_ok(case: Make, part: str) -> None:
    every = EXPOSED | {"autoscaling": {"kind": "queue", "max": 4}}
    settings = {"monitoring": {"monitor": "pod-monitor"}, "access": {"issuer": "le"}, "registry_secret": "r"}
    for entry in (every, GATEWAY, every | {"autoscaling": {"kind": "keda", "max": 4}}):
        findings = preflight(case(entry, settings=settings, unseen={part: DENIED}))
        blind = {check.id for check in (*INSTALLATION, *MODEL) if part in check.parts}
        unseen = [finding for finding in findings if finding.check in blind]
        assert {finding.severity for finding in unseen} <= {"unknown"}
        assert all(finding.remedy == "Give it the rule." for finding in unseen)
    assert any(finding.severity == "unknown" for finding in findings) or part not in ("nodes", "claim", "services")


def test_the_message_has_the_device_plugins_state(case: Make, node: Make) -> None:
    dark = node("gpu-9", 0, labels={"cloud.google.com/gke-accelerator": "nvidia-l4"})
    assert one(case(nodes=(dark,)), "gpus.device-plugin").severity == "error"
    template = {"spec": {"containers": [{"image": "nvcr.io/nvidia/k8s-device-plugin:v0.17.0"}]}}
    plugin = {
        "metadata": {"name": "nvidia-device-plugin-daemonset"},
        "spec": {"template": template},
        "status": {"desiredNumberScheduled": 3, "numberReady": 1},
    }
    finding = one(case(nodes=(dark,), daemon_sets=(plugin,)), "gpus.device-plugin")
    assert finding.severity == "error"
    assert "nvidia-device-plugin-daemonset is ready on 1 of 3 nodes" in finding.message


def test_pods_without_a_gpu_on_an_open_gpu_node_are_counted(case: Make, node: Make, pod: Make) -> None:
    logger = pod("gpu-0", 0)
    agent = pod("gpu-0", 0, metadata={"ownerReferences": [{"kind": "DaemonSet"}]})
    finding = one(case(nodes=(node(taints=[]),), pods=(logger, agent, pod("gpu-0", 1))), "gpus.taint")
    assert finding.severity == "warning"
    assert "1 pod" in finding.message


@pytest.mark.parametrize(
    ("provisioner", "annotations", "severity"),
    [
        ("efs.csi.aws.com", {}, "ok"),
        ("ebs.csi.aws.com", {}, "error"),
        ("pd.csi.storage.gke.io", {}, "error"),
        ("example.com/new", {}, "warning"),
        ("example.com/new", {"llmops.dev/read-write-many": "true"}, "ok"),
        ("example.com/new", {"llmops.dev/read-write-many": "false"}, "error"),
    ],
)
@pytest.mark.parametrize("pending", [False, True])
def test_classes_that_can_be_shared(
    case: Make, provisioner: str, annotations: dict[str, str], severity: str, pending: bool
) -> None:
    storage_class = {"metadata": {"name": "c", "annotations": annotations}, "provisioner": provisioner}
    asked = {"accessModes": ["ReadWriteMany"], "storageClassName": "c", "resources": {"requests": {"storage": "1Ti"}}}
    claim = {"spec": asked, "status": {"phase": "Pending"}} if pending else None
    finding = one(case(claim=claim, storage_classes=(storage_class,), settings={"storage_class": "c"}), "volume.shared")
    # An unbound claim is a warning, whatever its class supports.
    assert finding.severity == ("error" if severity == "error" else "warning" if pending else severity)


def load_balancer(**annotations: str) -> dict[str, Any]:
    return {
        "metadata": {"name": "ingress", "namespace": "n", "annotations": annotations},
        "spec": {"type": "LoadBalancer"},
    }


AWS = "service.beta.kubernetes.io/aws-load-balancer-"


@pytest.mark.parametrize(
    ("annotations", "wanted", "severity"),
    [
        ({}, 300, "warning"),  # a Classic Load Balancer: 60 s
        ({}, 60, "ok"),
        ({f"{AWS}connection-idle-timeout": "400"}, 300, "ok"),
        ({f"{AWS}type": "nlb"}, 300, "ok"),  # a Network Load Balancer: 350 s
        ({f"{AWS}type": "external"}, 600, "warning"),
        ({f"{AWS}type": "external", f"{AWS}listener-attributes.TCP-443": "tcp.idle_timeout.seconds=600"}, 600, "ok"),
    ],
)
def test_load_balancers_of_aws(case: Make, node: Make, annotations: dict[str, str], wanted: int, severity: str) -> None:
    entry = EXPOSED | {"exposure": EXPOSED["exposure"] | {"idle_seconds": wanted}}
    on_aws = node() | {"spec": {"providerID": "aws:///eu-central-1a/i-0"}}
    at = case(entry, nodes=(on_aws,), services=(load_balancer(**annotations),), secrets=SECRETS)
    finding = one(at, "access.idle-timeout")
    assert finding.severity == severity
    assert severity == "ok" or "annotate service ingress" in finding.remedy
    # Other clouds have no such limit.
    assert of(case(entry, services=(load_balancer(),), secrets=SECRETS), "access.idle-timeout") == []


def test_a_gateway_has_to_exist_be_accepted_and_have_its_listener(case: Make) -> None:
    apis = {"gateway.networking.k8s.io/v1": frozenset({"httproutes"})}
    gateway: dict[str, Any] = {
        "metadata": {"name": "gateway", "namespace": "llm-serving"},
        "spec": {"listeners": [{"name": "https"}]},
        "status": {"conditions": [{"type": "Accepted", "status": "True"}]},
    }
    assert one(case(GATEWAY), "access.gateway").subject == "Gateway API"
    assert one(case(GATEWAY, apis=apis), "access.gateway").severity == "error"
    unaccepted = gateway | {"status": {}}
    assert one(case(GATEWAY, apis=apis, gateways=(unaccepted,)), "access.gateway").severity == "error"
    assert one(case(GATEWAY, apis=apis, gateways=(gateway,)), "access.gateway").severity == "ok"
    other = gateway | {"spec": {"listeners": [{"name": "web"}]}}
    findings = of(case(GATEWAY, apis=apis, gateways=(other,)), "access.gateway")
    assert [finding.subject for finding in findings if finding.severity == "error"] == ["Gateway gateway"]


def test_an_issuer_has_to_be_ready(case: Make) -> None:
    settings = {"access": {"issuer": "le"}}
    apis = {"cert-manager.io/v1": frozenset({"clusterissuers"})}
    issuer: dict[str, Any] = {"kind": "ClusterIssuer", "metadata": {"name": "le"}}
    ready = issuer | {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    failing = issuer | {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}
    for there, severity in (((), "error"), ((failing,), "error"), ((ready,), "ok")):
        assert one(case(EXPOSED, settings=settings, apis=apis, issuers=there), "access.issuer").severity == severity
    plain = EXPOSED | {"exposure": EXPOSED["exposure"] | {"tls_secret": "own"}}
    assert of(case(plain, settings=settings), "access.issuer") == []


@pytest.mark.parametrize(
    ("url", "severity"),
    [
        ("http://auth.tools.svc.cluster.local/verify", "ok"),
        ("http://auth.other.svc/verify", "error"),
        ("https://login.example.com/oauth2/auth", "ok"),
    ],
)
def test_the_service_behind_auth_url(case: Make, url: str, severity: str) -> None:
    entry = EXPOSED | {"exposure": EXPOSED["exposure"] | {"auth_url": url}}
    service = {"metadata": {"name": "auth", "namespace": "tools"}, "spec": {}}
    assert one(case(entry, services=(service,)), "access.auth-service").severity == severity


@pytest.mark.parametrize(
    ("answer", "severity"),
    [
        (HubAnswer("http://hub", "acme/tiny", "ada"), "ok"),
        (BadInput("acme/tiny is gated", remedy="Ask for access."), "error"),
        (RateLimited("Too many requests", remedy="Wait."), "warning"),
        (Unavailable("no answer", remedy="Check it."), "unknown"),
    ],
)
def test_the_hub(case: Make, answer: HubAnswer | LlmopsError, severity: str) -> None:
    assert one(case(hub=answer), "sources.hub").severity == severity
    assert of(case(hub=None), "sources.hub") == []


def test_an_image_has_to_support_the_processor_of_every_fitting_node(case: Make, node: Make) -> None:
    nodes = (node("gpu-0"), node("gpu-1", labels={"kubernetes.io/arch": "arm64"}))
    finding = one(case(nodes=nodes), "sources.image")
    assert finding.severity == "error"
    assert "arm64" in finding.message
    both = ImageAnswer("v0.32.0", IMAGE.digest, "a/b", frozenset({"amd64", "arm64"}))
    assert one(case(nodes=nodes, image=both), "sources.image").severity == "ok"
    assert one(case(image=Unavailable("no answer")), "sources.image").severity == "unknown"


@pytest.mark.parametrize(
    ("seconds", "bytes_then", "size", "severity"),
    [
        (100, 10**9, 10**9, "ok"),
        (290, 10**9, 10**9, "warning"),  # within a budget of 310 s
        (400, 10**9, 10**9, "warning"),
        (100, 10**10, 10**11, "ok"),  # ten times the weights have ten times the budget for loading
        (150, 10**9, 10**10, "warning"),
        (100, 10**11, 10**9, "ok"),  # a start of larger weights is not scaled down
    ],
)
def test_the_startup_probe_waits_as_long_as_starts_took(
    case: Make, seconds: float, bytes_then: int, size: int, severity: str
) -> None:
    finding = one(
        case(size=size, starts=(Start("r", bytes_then, seconds), Start("s", bytes_then, 1))), "startup.budget"
    )
    assert finding.severity == severity


@pytest.mark.parametrize(
    ("tag", "args", "severity", "words"),
    [
        ("v0.32.0", ("--seed=1", "--kv-cache-dtype=fp8"), "ok", "vLLM 0.32.0 takes 2 arguments"),
        ("v0.32.0-cu130", ("--seed=1",), "ok", "takes 1 argument"),
        ("v0.31.0", ("--grpc-port=1",), "error", "vLLM 0.31.0 has no flag --grpc-port"),
        ("v0.32.0", ("--quick-start",), "error", "vLLM 0.32.0 has no flag --quick-start"),
        ("v0.32.0", ("--kv-cache-dtype=fp7",), "error", "invalid choice: 'fp7'"),
        ("v0.32.0", ("--scheduling-pol=fcfs",), "error", "is short for --scheduling-policy"),
        ("v0.33.1", ("--quick-start",), "warning", "llmops does not know the flags of v0.33.1"),
        ("nightly", ("--quick-start",), "warning", "llmops does not know the flags of nightly"),
    ],
)
def test_the_engine_takes_its_arguments(case: Make, tag: str, args: tuple[str, ...], severity: str, words: str) -> None:
    at = case()
    engine = at.release.engine.model_copy(update={"args": args, "tag": tag})
    finding = one(replace(at, release=at.release.model_copy(update={"engine": engine})), "engine.arguments")
    assert (finding.severity, words in finding.message) == (severity, True)


def test_arguments_of_a_version_that_nobody_knows_and_repeated_ones_are_told(case: Make) -> None:
    at = case({"engine": {"version": ">=0.1", "args": ["--quick-start"], "allow": ["flags"]}})

    def severities(tag: str, *args: str) -> list[str]:
        engine = at.release.engine.model_copy(update={"args": args, "tag": tag})
        release = at.release.model_copy(update={"engine": engine})
        return [finding.severity for finding in of(replace(at, release=release), "engine.arguments")]

    assert severities("v0.32.0", "--quick-start") == []
    assert severities("v0.99.0", "--seed=1") == []
    assert severities("v0.32.0", "--seed=1", "--seed=2") == ["warning", "ok"]
    assert severities("v0.32.0", "--middleware=a.B", "--middleware=c.D") == ["ok"]


def test_traffic_steps_need_a_router_or_exposure_and_prometheus(case: Make) -> None:
    entry = {"traffic": {"steps": [{"percent": 5}]}}
    assert len(of(case(entry), "monitoring.traffic")) == 2
    monitored = {"monitoring": {"prometheus_url": "http://p"}}
    assert len(of(case(entry, settings=monitored), "monitoring.traffic")) == 1
    routed = monitored | {"router": {"enabled": True}}
    assert one(case(entry, settings=routed), "monitoring.traffic").severity == "ok"


@given(st.lists(st.sampled_from(SEVERITIES)))
def test_the_worst_is_at_least_as_bad_as_each(severities: list[Any]) -> None:
    severest = worst(Finding(severity, "", "") for severity in severities)
    assert all(SEVERITIES.index(severest) <= SEVERITIES.index(severity) for severity in severities)
    assert severest in severities or (severest == "ok" and not severities)


def test_ids_are_unique_and_parts_are_fields_of_a_snapshot() -> None:
    for checks in (INSTALLATION, MODEL):
        ids = [check.id for check in checks]
        assert len(set(ids)) == len(ids)
    assert set(PARTS) - set(Snapshot.__dataclass_fields__) <= set(APIS)


def test_the_routers_exposure_and_keys_are_checked_with_the_installation(case: Make) -> None:
    router = {"enabled": True, "exposure": {"kind": "ingress", "host": "llm.example.com"}}
    managed = {"tail": {"model": "together_ai/x", "api_key": {"name": "together", "key": "k"}}}
    at = case(settings={"router": router | {"managed": managed}}, secrets={"llmops-router": frozenset({"master-key"})})
    assert [finding.severity for finding in of(at, "secrets.installation")] == ["ok", "error"]
    assert (one(at, "access.ingress-class").model, one(at, "access.ingress-class").severity) == ("", "error")


def test_the_largest_step_of_traffic_needs_room_beside_stable(case: Make, node: Make, pod: Make) -> None:
    steps = {"traffic": {"steps": [{"percent": 5}, {"percent": 50}]}, "replicas": 4}
    serving = {"metadata": {}, "spec": {"replicas": 4}}
    pods = [pod(f"gpu-{index}", model="tiny") for index in range(4)]
    assert of(case(steps), "nodes.steps") == []
    tight = [node(f"gpu-{index}") for index in range(5)]
    finding = one(case(steps, nodes=tight, pods=pods, stable=serving), "nodes.steps")
    assert finding.severity == "error"
    assert "50%" in finding.message
    wide = [*tight, node("gpu-5")]
    assert one(case(steps, nodes=wide, pods=pods, stable=serving), "nodes.steps").severity == "ok"
    # The place of an existing canary counts as room.
    canary = pod("gpu-5", model="tiny", track="canary")
    assert one(case(steps, nodes=wide, pods=[*pods, canary], stable=serving), "nodes.steps").severity == "ok"


def test_a_named_priority_class_has_to_exist(case: Make) -> None:
    classes = [{"metadata": {"name": name}, "value": 1000} for name in ("batch", "system-node-critical")]
    assert of(case(priority_classes=classes), "nodes.priority") == []
    named: dict[str, Any] = {"resources": {"priority_class": "serving"}}
    finding = one(case(named, priority_classes=classes), "nodes.priority")
    assert (finding.severity, finding.subject) == ("error", "priority class serving")
    assert "batch" in finding.remedy
    classes.append({"metadata": {"name": "serving"}, "value": 5000})
    assert one(case(named, priority_classes=classes), "nodes.priority").message == "has the value 5000"
    assert one(case(named, unseen={"priority_classes": DENIED}), "nodes.priority").severity == "unknown"
    # Without a priority class in the entry the check needs no right to read.
    assert of(case(unseen={"priority_classes": DENIED}), "nodes.priority") == []


def test_an_adapter_without_the_metric_is_no_missing_adapter(case: Make) -> None:
    entry = {"autoscaling": {"kind": "queue", "max": 4}}
    api, metric = "custom.metrics.k8s.io/v1beta1", "pods/vllm_num_requests_waiting"
    serving = {"spec": {"replicas": 1}, "metadata": {}}
    for changes, severity in (
        ({"apis": {}}, "error"),
        ({"apis": {api: frozenset[str]()}, "stable": None}, "warning"),
        ({"apis": {api: frozenset[str]()}, "stable": serving}, "error"),
        ({"apis": {api: frozenset({metric})}, "stable": serving}, "ok"),
    ):
        assert one(case(entry, **changes), "monitoring.adapter").severity == severity, changes
