"""The way in from outside: the objects for each controller, which open only the API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from hypothesis import given
from hypothesis import settings as trials
from hypothesis import strategies as st
from llmops_sandbox.cluster.controlplane import ControlPlane
from llmops_sandbox.cluster.crds import definitions, schema
from pydantic import ValidationError

from llmops.clients.kubernetes.client import Cluster
from llmops.config.catalog.load import load_model
from llmops.config.catalog.spec import ModelSpec
from llmops.config.settings import Settings
from llmops.config.settings.access import Exposure
from llmops.errors import BadInput
from llmops.manifests.companions import exposure
from llmops.manifests.companions.exposure import Backend, WayIn, load_balancer_annotations, way_in
from llmops.manifests.volume import namespace
from llmops.releases.release import Release

PAGE = Path(__file__).parents[3] / "docs" / "guides" / "access.md"
NGINX = "nginx.ingress.kubernetes.io/"
ENTRY = """\
name: tiny
weights: {repo: acme/tiny}
engine:
  version: 0.32.0
"""
SCHEMAS = {
    definition["spec"]["names"]["kind"]: schema(definition, "v1")
    for definition in definitions()
    if "gateway" in definition["spec"]["group"]
}
KEY = "access: {api_key: {name: key, key: api-key}}\n"


def entry(**fields: Any) -> ModelSpec:
    content = yaml.safe_load(ENTRY + KEY)
    return ModelSpec.model_validate({**content, "exposure": {"kind": "ingress", "host": "llm.example.com", **fields}})


def rendered(
    release: Release, settings: Settings, access: dict[str, Any] | None = None, percent: int = 0, **fields: Any
) -> list[dict[str, Any]]:
    at = Settings.model_validate({**settings.model_dump(), "access": access or {}})
    return exposure.objects(entry(**fields), release, at, canary_percent=percent)


def test_nothing_is_exposed_unless_it_is_asked_for(release: Release, settings: Settings) -> None:
    spec = ModelSpec.model_validate(yaml.safe_load(ENTRY))
    assert exposure.objects(spec, release, settings, canary_percent=50) == []


def test_the_ingress_is_the_articles_and_streams(release: Release, settings: Settings) -> None:
    """It has the article's timeouts of 300 s, auth-url with its header, issuer, TLS, class and path /v1."""
    (ingress,) = rendered(
        release,
        settings,
        {"issuer": "letsencrypt-prod"},
        auth_url="http://auth-proxy.llm-serving.svc.cluster.local/verify",
        auth_response_headers=["X-Tenant-Id", "X-User"],
    )
    kubernetes_validate.validate(ingress, "1.37", strict=True)
    assert ingress["metadata"]["annotations"] == {
        NGINX + "proxy-read-timeout": "300",
        NGINX + "proxy-send-timeout": "300",
        NGINX + "proxy-buffering": "off",
        NGINX + "proxy-body-size": "32m",
        NGINX + "ssl-redirect": "true",
        NGINX + "force-ssl-redirect": "true",
        NGINX + "auth-url": "http://auth-proxy.llm-serving.svc.cluster.local/verify",
        NGINX + "auth-response-headers": "X-Tenant-Id,X-User",
        "cert-manager.io/cluster-issuer": "letsencrypt-prod",
    }
    assert ingress["spec"]["tls"] == [{"hosts": ["llm.example.com"], "secretName": "tiny-tls"}]
    assert ingress["spec"]["ingressClassName"] == "nginx"
    backend = {"service": {"name": "tiny", "port": {"number": 8000}}}
    paths = [{"path": "/v1", "pathType": "Prefix", "backend": backend}]
    assert ingress["spec"]["rules"] == [{"host": "llm.example.com", "http": {"paths": paths}}]


def test_an_issuer_of_the_namespace_and_a_certificate_of_ones_own(release: Release, settings: Settings) -> None:
    (ingress,) = rendered(release, settings, {"issuer": "ca", "issuer_kind": "Issuer"})
    assert ingress["metadata"]["annotations"]["cert-manager.io/issuer"] == "ca"
    (own,) = rendered(release, settings, {"issuer": "ca"}, tls_secret="wildcard")
    assert own["spec"]["tls"][0]["secretName"] == "wildcard"
    assert not any("cert-manager" in annotation for annotation in own["metadata"]["annotations"])


def test_plain_http_is_there_only_when_it_is_allowed(release: Release, settings: Settings) -> None:
    (ingress,) = rendered(release, settings, {"issuer": "ca"}, insecure_http=True)
    assert "tls" not in ingress["spec"]
    assert ingress["metadata"]["annotations"][NGINX + "ssl-redirect"] == "false"
    assert "cert-manager.io/cluster-issuer" not in ingress["metadata"]["annotations"]


def test_an_ingress_canary_has_its_weight_and_nothing_else(release: Release, settings: Settings) -> None:
    main, canary = rendered(release, settings, {"issuer": "ca"}, percent=25)
    assert canary["metadata"]["name"] == "tiny-canary"
    assert canary["metadata"]["annotations"] == {NGINX + "canary": "true", NGINX + "canary-weight": "25"}
    assert "tls" not in canary["spec"], "two Ingresses would ask cert-manager for one certificate"
    (path,), (canary_path,) = (ingress["spec"]["rules"][0]["http"]["paths"] for ingress in (main, canary))
    assert canary_path.pop("backend") == {"service": {"name": "tiny-canary", "port": {"number": 8000}}}
    path.pop("backend")
    assert canary_path == path
    assert canary["spec"]["rules"][0]["host"] == main["spec"]["rules"][0]["host"]


def test_an_alb_is_told_of_silence_and_of_weights(release: Release, settings: Settings) -> None:
    access = {
        "ingress": {
            "controller": "alb",
            "class_name": "alb",
            "annotations": {"alb.ingress.kubernetes.io/scheme": "internal"},
        }
    }
    (ingress,) = rendered(release, settings, access, percent=5, idle_seconds=900)
    kubernetes_validate.validate(ingress, "1.37", strict=True)
    annotations = {name.rpartition("/")[2]: text for name, text in ingress["metadata"]["annotations"].items()}
    assert annotations["load-balancer-attributes"] == "idle_timeout.timeout_seconds=900"
    assert annotations["scheme"] == "internal"
    assert json.loads(annotations["listen-ports"]) == [{"HTTPS": 443}]
    assert annotations["healthcheck-path"] == "/health"
    groups = json.loads(annotations["actions.weighted"])["forwardConfig"]["targetGroups"]
    assert [(group["serviceName"], group["weight"]) for group in groups] == [("tiny", 95), ("tiny-canary", 5)]
    path = ingress["spec"]["rules"][0]["http"]["paths"][0]
    assert path["backend"] == {"service": {"name": "weighted", "port": {"name": "use-annotation"}}}
    (plain,) = rendered(release, settings, access)
    assert plain["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"] == "tiny"


def test_an_alb_refuses_auth_url(release: Release, settings: Settings) -> None:
    access = {"ingress": {"controller": "alb"}}
    with pytest.raises(BadInput) as raised:
        rendered(release, settings, access, auth_url="http://auth.example/verify")
    assert raised.value.code == "AuthUrlUnsupported"


def test_a_route_has_weights_and_timeouts_and_hangs_on_the_listener_with_tls(
    release: Release, settings: Settings
) -> None:
    access = {"gateway": {"name": "shared", "namespace": "gateways"}}
    (route,) = rendered(release, settings, access, percent=5, kind="gateway", request_seconds=1800)
    assert route["kind"] == "HTTPRoute"
    assert route["spec"]["parentRefs"] == [{"name": "shared", "namespace": "gateways", "sectionName": "https"}]
    assert route["spec"]["hostnames"] == ["llm.example.com"]
    (rule,) = route["spec"]["rules"]
    assert rule["matches"] == [{"path": {"type": "PathPrefix", "value": "/v1"}}]
    assert rule["timeouts"] == {"request": "1800s", "backendRequest": "1800s"}
    assert [(backend["name"], backend["port"], backend["weight"]) for backend in rule["backendRefs"]] == [
        ("tiny", 8000, 95),
        ("tiny-canary", 8000, 5),
    ]
    (open_one,) = rendered(release, settings, access, kind="gateway", insecure_http=True)
    assert open_one["spec"]["parentRefs"][0]["sectionName"] == "http"


def test_a_gateway_of_its_own_ends_tls_and_tells_the_load_balancer(release: Release, settings: Settings) -> None:
    access = {"issuer": "ca", "gateway": {"class_name": "eg", "load_balancer": "aws-nlb"}}
    gateway, route = rendered(release, settings, access, kind="gateway")
    (listener,) = gateway["spec"]["listeners"]
    assert (listener["protocol"], listener["port"], listener["hostname"]) == ("HTTPS", 443, "llm.example.com")
    assert listener["tls"] == {"mode": "Terminate", "certificateRefs": [{"kind": "Secret", "name": "tiny-tls"}]}
    assert listener["allowedRoutes"] == {"namespaces": {"from": "Same"}}
    assert gateway["metadata"]["annotations"] == {"cert-manager.io/cluster-issuer": "ca"}
    assert gateway["spec"]["infrastructure"]["annotations"] == load_balancer_annotations(300)
    assert route["spec"]["parentRefs"] == [{"name": gateway["metadata"]["name"], "sectionName": listener["name"]}]


def test_gke_gets_its_timeout_and_its_health_check_for_each_service(release: Release, settings: Settings) -> None:
    access = {"gateway": {"load_balancer": "gke"}}
    _, *policies = rendered(release, settings, access, percent=50, kind="gateway")
    defaults = {(policy["kind"], policy["spec"]["targetRef"]["name"]): policy["spec"]["default"] for policy in policies}
    assert set(defaults) == {
        (kind, name) for kind in ("GCPBackendPolicy", "HealthCheckPolicy") for name in ("tiny", "tiny-canary")
    }
    assert defaults["GCPBackendPolicy", "tiny"] == {"timeoutSec": 3600}
    assert defaults["HealthCheckPolicy", "tiny"]["config"]["httpHealthCheck"]["requestPath"] == "/health"


def test_the_page_has_the_annotations_as_they_are() -> None:
    blocks = [text.split("```")[0] for text in PAGE.read_text().split("```yaml\n")[1:]]
    assert load_balancer_annotations(300) in [yaml.safe_load(block) for block in blocks]


def test_the_page_has_the_settings_as_they_are() -> None:
    blocks = [yaml.safe_load(text.split("```")[0]) for text in PAGE.read_text().split("```yaml\n")[1:]]
    settings = next(block for block in blocks if "issuer_kind" in block.get("access", {}))
    assert settings["access"] == Settings.model_validate({}).access.model_dump()


def test_the_entries_of_the_page_are_accepted() -> None:
    blocks = [yaml.safe_load(text.split("```")[0]) for text in PAGE.read_text().split("```yaml\n")[1:]]
    entries = [block for block in blocks if "exposure" in block]
    assert len(entries) == 2
    for declared in entries:
        ModelSpec.model_validate(yaml.safe_load(ENTRY) | declared)


@pytest.mark.parametrize(
    ("text", "line", "field", "words"),
    [
        ("exposure:\n  kind: ingress\n  host: a.example\n", 6, "exposure.kind", "access.api_key or exposure.auth_url"),
        ("exposure:\n  kind: gateway\n  host: a.example\n", 6, "exposure.kind", "set access.api_key"),
        (KEY + "exposure:\n  kind: ingress\n", 6, "exposure.host", "is required with kind ingress"),
        (
            KEY + "exposure:\n  kind: gateway\n  host: a.example\n  auth_url: http://a.example/x\n",
            9,
            "exposure.auth_url",
            "is for kind ingress",
        ),
        (KEY + "exposure:\n  kind: ingress\n  host: 'A B'\n", 8, "exposure.host", "Host name in lower case"),
        (
            KEY + "exposure:\n  kind: ingress\n  host: a.example\n  auth_url: 'http://a.example/x;return 200'\n",
            9,
            "exposure.auth_url",
            "must match",
        ),
        (
            "exposure:\n  kind: ingress\n  host: a.example\n  auth_response_headers: [X-User]\n" + KEY,
            8,
            "exposure.auth_response_headers",
            "auth_url",
        ),
        (
            KEY + "exposure:\n  kind: ingress\n  host: a.example\n  insecure_http: true\n  tls_secret: mine\n",
            10,
            "exposure.tls_secret",
            "insecure_http",
        ),
        (
            KEY + "exposure:\n  kind: ingress\n  host: a.example\n  idle_seconds: 600\n  request_seconds: 500\n",
            10,
            "exposure.request_seconds",
            "less than idle_seconds",
        ),
    ],
)
def test_an_open_exposure_is_refused_by_file_line_and_field(
    tmp_path: Path, text: str, line: int, field: str, words: str
) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(ENTRY + text)
    with pytest.raises(BadInput) as raised:
        load_model(path)
    (mistake,) = str(raised.value).splitlines()
    assert raised.value.about == f"{path}:{line}: {field}"
    assert words in mistake


def test_adapters_that_anybody_could_load_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(
        ENTRY
        + "  env: {VLLM_ALLOW_RUNTIME_LORA_UPDATING: '1'}\n"
        + KEY
        + "exposure: {kind: ingress, host: a.example}\n"
    )
    with pytest.raises(BadInput, match=r":5: engine.env.VLLM_ALLOW_RUNTIME_LORA_UPDATING: "):
        load_model(path)


exposures = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["ingress", "gateway"]),
        "host": st.just("llm.example.com"),
        "insecure_http": st.booleans(),
        "auth_url": st.none() | st.just("http://auth.example/verify"),
        "idle_seconds": st.integers(10, 4000),
        "request_seconds": st.integers(10, 86400),
    }
)
installations = st.fixed_dictionaries(
    {
        "issuer": st.none() | st.just("ca"),
        "ingress": st.fixed_dictionaries({"controller": st.sampled_from(["nginx", "alb"])}),
        "gateway": st.fixed_dictionaries(
            {
                "class_name": st.none() | st.just("eg"),
                "load_balancer": st.sampled_from(["none", "aws-nlb", "gke"]),
            }
        ),
    }
)


@trials(deadline=None)
@given(declared=exposures, access=installations, percent=st.integers(0, 100))
def test_whatever_is_accepted_opens_the_api_alone_and_shares_all_of_it(
    declared: dict[str, Any], access: dict[str, Any], percent: int
) -> None:
    try:
        accepted = Exposure.model_validate(declared)
    except ValidationError:
        return
    way = WayIn("llm", {"a": "b"}, accepted, Backend("one", 4000), Backend("two", 4000), percent)
    settings = Settings.model_validate({"access": access})
    try:
        manifests = way_in(way, settings)
    except BadInput:
        assert accepted.auth_url
        assert access["ingress"]["controller"] == "alb"
        return
    assert manifests == way_in(way, settings)
    paths: list[str] = []
    for manifest in manifests:
        for rule in manifest["spec"].get("rules", []):
            if manifest["kind"] == "HTTPRoute":
                paths += [match["path"]["value"] for match in rule["matches"]]
                assert sum(backend["weight"] for backend in rule["backendRefs"]) == 100
            else:
                paths += [path["path"] for path in rule["http"]["paths"]]
        if manifest["kind"] == "Ingress":
            kubernetes_validate.validate(manifest, "1.37", strict=True)
        elif manifest["kind"] in SCHEMAS:
            jsonschema.validate(manifest, SCHEMAS[manifest["kind"]])
    assert set(paths) == {"/v1"}


def test_an_api_server_takes_every_way_in_and_a_second_apply_changes_nothing(
    plane: ControlPlane, release: Release, settings: Settings
) -> None:
    """Without GKE's policies: Google publishes no definitions of them."""
    cluster = Cluster.connect(settings.model_copy(update={"kubeconfig": str(plane.kubeconfig)}))
    cluster.apply(namespace(settings))
    own = {"issuer": "ca", "gateway": {"class_name": "eg", "load_balancer": "aws-nlb"}}
    manifests = [
        *rendered(release, settings, own, percent=25, auth_url="https://$host/oauth2/auth"),
        *rendered(release, settings, {"ingress": {"controller": "alb", "class_name": "alb"}}, percent=25),
        *rendered(release, settings, own, percent=100, kind="gateway"),
        *rendered(release, settings, {"gateway": {"namespace": "gateways"}}, kind="gateway", insecure_http=True),
    ]
    assert [manifest["kind"] for manifest in manifests] == [
        "Ingress",
        "Ingress",
        "Ingress",
        "Gateway",
        "HTTPRoute",
        "HTTPRoute",
    ]
    for manifest in manifests:
        first, again = cluster.apply(manifest), cluster.apply(manifest)
        assert first["metadata"]["generation"] == again["metadata"]["generation"]
        assert again["spec"].keys() >= manifest["spec"].keys()
