"""Whether requests from outside reach an engine or the router, and no load balancer cuts long silences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from llmops.config.settings.access import Exposure
from llmops.manifests.companions.exposure import AWS_LISTENER
from llmops.preflight.checks.case import Case, Check, LooksAtT, names_of, some
from llmops.preflight.finding import Finding
from llmops.preflight.snapshot import Object, Snapshot

CERTIFICATES = "cert-manager.io/v1"
GATEWAY_API = "gateway.networking.k8s.io/v1"
AWS_TYPE = "service.beta.kubernetes.io/aws-load-balancer-type"
AWS_NLB_TYPE = "service.beta.kubernetes.io/aws-load-balancer-nlb-target-type"
CLASSIC_IDLE = "service.beta.kubernetes.io/aws-load-balancer-connection-idle-timeout"
CLASSIC_SECONDS, NLB_SECONDS, GKE_SECONDS = 60, 350, 30
"""Default idle timeouts of a Classic Load Balancer, a Network Load Balancer and GKE's Gateways."""


@dataclass(frozen=True)
class Way:
    """One exposure on a cluster: a model's or the router's."""

    exposure: Exposure
    snapshot: Snapshot


def _ingress_class(way: Way) -> Iterator[Finding]:
    """Whether the ingress class exists."""
    snapshot, name = way.snapshot, way.snapshot.settings.access.ingress.class_name
    subject = f"ingress class {name}"
    if any(ingress_class["metadata"]["name"] == name for ingress_class in snapshot.ingress_classes):
        yield Finding("ok", subject, "exists")
    else:
        yield Finding(
            "error",
            subject,
            f"does not exist: no controller serves {way.exposure.host}",
            "Install the controller, or correct access.ingress.class_name: the cluster has "
            f"{names_of(snapshot.ingress_classes)}.",
        )


def _issuer(way: Way) -> Iterator[Finding]:
    """Whether cert-manager can issue the certificate."""
    access = way.snapshot.settings.access
    subject = f"{access.issuer_kind} {access.issuer}"
    if not way.snapshot.apis.get(CERTIFICATES):
        yield Finding(
            "error",
            subject,
            "access.issuer names it, but the cluster has no cert-manager",
            "Install cert-manager, or remove access.issuer and create the certificate's Secret yourself.",
        )
        return
    issuers = [issuer for issuer in way.snapshot.issuers if issuer["kind"] == access.issuer_kind]
    issuer = next((issuer for issuer in issuers if issuer["metadata"]["name"] == access.issuer), None)
    if issuer is None:
        remedy = f"Create it, or correct access.issuer: the cluster has {names_of(issuers)}."
        yield Finding("error", subject, "does not exist", remedy)
    elif _condition(issuer, "Ready") == "False":
        remedy = f"See why: kubectl describe {access.issuer_kind.lower()} {access.issuer}"
        yield Finding("error", subject, "is not ready, and issues nothing", remedy)
    else:
        yield Finding("ok", subject, "issues the certificate")


def _gateway(way: Way) -> Iterator[Finding]:
    """Whether a controller accepted the Gateway, or the class of the Gateway that llmops creates."""
    snapshot, gateway = way.snapshot, way.snapshot.settings.access.gateway
    if "httproutes" not in snapshot.apis.get(GATEWAY_API, frozenset()):
        yield Finding(
            "error",
            "Gateway API",
            f"exposure.kind is gateway, but the cluster knows no httproutes of {GATEWAY_API}",
            "Install the Gateway API's definitions and a controller, or set exposure.kind to ingress.",
        )
    elif gateway.class_name:
        yield _named("GatewayClass", gateway.class_name, snapshot.gateway_classes, "access.gateway.class_name")
    else:
        namespace = gateway.namespace or snapshot.settings.namespace
        gateways = [obj for obj in snapshot.gateways if obj["metadata"]["namespace"] == namespace]
        finding = _named("Gateway", gateway.name, gateways, "access.gateway.name")
        yield finding
        if finding.severity == "ok":
            yield from _listener(way, next(obj for obj in gateways if obj["metadata"]["name"] == gateway.name))


def _named(kind: str, name: str, objects: tuple[Object, ...] | list[Object], field: str) -> Finding:
    subject = f"{kind} {name}"
    named = next((obj for obj in objects if obj["metadata"]["name"] == name), None)
    if named is None:
        remedy = f"Create it, or correct {field}: the cluster has {names_of(objects)}."
        return Finding("error", subject, "does not exist", remedy)
    if _condition(named, "Accepted") != "True":
        remedy = f"See why, and whether its controller runs: kubectl describe {kind.lower()} {name}"
        return Finding("error", subject, "no controller accepts it", remedy)
    return Finding("ok", subject, "is accepted")


def _listener(way: Way, gateway: Object) -> Iterator[Finding]:
    settings = way.snapshot.settings.access.gateway
    wanted = settings.insecure_listener if way.exposure.insecure_http else settings.listener
    listeners = [str(listener["name"]) for listener in gateway["spec"].get("listeners") or ()]
    if wanted not in listeners:
        field = "insecure_listener" if way.exposure.insecure_http else "listener"
        yield Finding(
            "error",
            f"Gateway {settings.name}",
            f"has no listener {wanted}",
            f"Add it, or correct access.gateway.{field}: the Gateway has {some(listeners) or 'none'}.",
        )


def _auth_service(way: Way) -> Iterator[Finding]:
    """Whether the Service behind exposure.auth_url exists."""
    url = way.exposure.auth_url or ""
    host = urlsplit(url).hostname or ""
    parts = host.split(".")
    inside = host.endswith(".svc") or ".svc." in host
    if not inside:
        yield Finding("ok", "auth_url", f"{url} is outside of the cluster: llmops does not check it")
        return
    name, namespace = parts[0], parts[1]
    exists = any(
        service["metadata"]["name"] == name and service["metadata"].get("namespace") == namespace
        for service in way.snapshot.services
    )
    subject = f"Service {namespace}/{name}"
    if exists:
        yield Finding("ok", subject, "exists, for exposure.auth_url")
    else:
        message = "does not exist; exposure.auth_url names it, and the proxy refuses all requests"
        yield Finding("error", subject, message, "Install it (oauth2-proxy, for one), or correct exposure.auth_url.")


def _idle(way: Way) -> Iterator[Finding]:
    """Whether a cloud's load balancer cuts an answer that is silent before its first token."""
    wanted, snapshot = way.exposure.idle_seconds, way.snapshot
    if _cloud(snapshot) == "gce" and way.exposure.kind == "gateway":
        gateway = snapshot.settings.access.gateway
        gke = (gateway.class_name or "").startswith("gke-") or any(
            str(obj["spec"].get("gatewayClassName", "")).startswith("gke-")
            for obj in snapshot.gateways
            if obj["metadata"]["name"] == gateway.name
        )
        if gke and gateway.load_balancer != "gke":
            yield Finding(
                "warning",
                "load balancer",
                f"GKE cuts every answer after {GKE_SECONDS} s, and exposure.idle_seconds is {wanted}",
                "Set access.gateway.load_balancer to gke: a GCPBackendPolicy then raises the timeout.",
            )
    if _cloud(snapshot) != "aws" or _alb(way):
        return
    for service in snapshot.services:
        if service["spec"].get("type") != "LoadBalancer":
            continue
        meta: Mapping[str, Any] = service["metadata"]
        annotations: Mapping[str, str] = meta.get("annotations") or {}
        seconds, remedy = _aws_idle(annotations, wanted)
        subject = f"load balancer of {meta.get('namespace')}/{meta['name']}"
        if seconds >= wanted:
            yield Finding("ok", subject, f"allows {seconds} s of silence")
        else:
            command = f"kubectl -n {meta.get('namespace')} annotate service {meta['name']} {remedy}"
            message = f"cuts a connection after {seconds} s of silence, and exposure.idle_seconds is {wanted}"
            yield Finding("warning", subject, message, command)


def _aws_idle(annotations: Mapping[str, str], wanted: int) -> tuple[int, str]:
    """Idle timeout of AWS' load balancer for a Service, and the annotation that raises it."""
    if annotations.get(AWS_TYPE) in ("nlb", "nlb-ip", "external") or AWS_NLB_TYPE in annotations:
        attributes = annotations.get(f"{AWS_LISTENER}.TCP-443", "")
        attribute_values = dict(pair.split("=", 1) for pair in attributes.split(",") if "=" in pair)
        remedy = f"{AWS_LISTENER}.TCP-443=tcp.idle_timeout.seconds={wanted}"
        return _seconds(attribute_values.get("tcp.idle_timeout.seconds"), NLB_SECONDS), remedy
    return _seconds(annotations.get(CLASSIC_IDLE), CLASSIC_SECONDS), f"{CLASSIC_IDLE}={wanted}"


def _seconds(text: str | None, default: int) -> int:
    return int(text) if text is not None and text.isdigit() else default


def _cloud(snapshot: Snapshot) -> str:
    """The cloud of the nodes by their providerID (aws, gce, azure); empty outside of clouds."""
    providers = [str((node.get("spec") or {}).get("providerID", "")).partition("://") for node in snapshot.nodes]
    return next((scheme for scheme, separator, _ in providers if separator), "")


def _alb(way: Way) -> bool:
    """Whether an ALB serves the Ingress: llmops sets its idle timeout there."""
    return way.exposure.kind == "ingress" and way.snapshot.settings.access.ingress.controller == "alb"


def _condition(obj: Object, kind: str) -> str:
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return next((str(condition["status"]) for condition in conditions if condition["type"] == kind), "")


def _needs_issuer(way: Way) -> bool:
    exposure = way.exposure
    certified = exposure.kind != "none" and not exposure.insecure_http and exposure.tls_secret is None
    return certified and way.snapshot.settings.access.issuer is not None


FINDS: tuple[tuple[str, str, tuple[str, ...], Callable[[Way], Iterator[Finding]], Callable[[Way], bool]], ...] = (
    (
        "ingress-class",
        "ingress class",
        ("ingress_classes",),
        _ingress_class,
        lambda way: way.exposure.kind == "ingress",
    ),
    ("issuer", "issuer", (CERTIFICATES, "issuers"), _issuer, _needs_issuer),
    (
        "gateway",
        "Gateway",
        (GATEWAY_API, "gateways", "gateway_classes"),
        _gateway,
        lambda way: way.exposure.kind == "gateway",
    ),
    ("auth-service", "auth_url", ("services",), _auth_service, lambda way: way.exposure.auth_url is not None),
    (
        "idle-timeout",
        "load balancer",
        ("services", "nodes", "gateways"),
        _idle,
        lambda way: way.exposure.kind != "none",
    ),
)


def _checks(way_of: Callable[[LooksAtT], Way]) -> tuple[Check[LooksAtT], ...]:
    """The checks of one exposure: a model's or the router's."""

    def check(
        what: str,
        subject: str,
        parts: tuple[str, ...],
        find: Callable[[Way], Iterator[Finding]],
        used: Callable[[Way], bool],
    ) -> Check[LooksAtT]:
        return Check(f"access.{what}", subject, parts, lambda at: find(way_of(at)), used=lambda at: used(way_of(at)))

    return tuple(check(*row) for row in FINDS)


def _of_router(snapshot: Snapshot) -> Way:
    return Way(snapshot.settings.router.exposure, snapshot)


def _of_model(case: Case) -> Way:
    return Way(case.spec.exposure, case.snapshot)


CHECKS = _checks(_of_router)
MODEL_CHECKS = _checks(_of_model)
