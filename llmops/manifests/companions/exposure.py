"""The way in from outside the cluster, to an engine or to the router: an Ingress or an HTTPRoute.

It opens one path, the API. An engine's other paths (metrics, health, administration) ask for no key, so they stay
inside the cluster.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from llmops.config import names
from llmops.config.catalog.spec import ModelSpec
from llmops.config.settings import Settings
from llmops.config.settings.access import AccessSettings, Exposure
from llmops.errors import BadInput
from llmops.manifests.pods import Manifest
from llmops.releases.release import Release

PATH = "/v1"
HEALTH_PATH = "/health"
NGINX = "nginx.ingress.kubernetes.io"
ALB = "alb.ingress.kubernetes.io"
AWS_LISTENER = "service.beta.kubernetes.io/aws-load-balancer-listener-attributes"
WEIGHTED = "weighted"


@dataclass(frozen=True)
class Backend:
    """A Service behind a way in, and its port."""

    service: str
    port: int = names.ENGINE_PORT


@dataclass(frozen=True)
class WayIn:
    """An exposed model or router, with its backends.

    Attributes:
        name: Name of the main object; other names begin with it.
        labels: Labels of its objects.
        exposure: The declared exposure.
        stable: Backend of all requests that the canary does not get.
        canary: Backend of the canary's share.
        canary_percent: Percentage of requests that the canary gets.
        health_path: Path at which a load balancer checks the health of a pod.
    """

    name: str
    labels: dict[str, str]
    exposure: Exposure
    stable: Backend
    canary: Backend | None = None
    canary_percent: int = 0
    health_path: str = HEALTH_PATH

    @property
    def backends(self) -> list[tuple[Backend, int]]:
        """Each backend with its percentage of requests."""
        if self.canary is None or self.canary_percent == 0:
            return [(self.stable, 100)]
        return [(self.stable, 100 - self.canary_percent), (self.canary, self.canary_percent)]

    @property
    def certificate(self) -> str:
        """Name of the Secret with the certificate."""
        return self.exposure.tls_secret or f"{self.name}-tls"


def objects(spec: ModelSpec, release: Release, settings: Settings, *, canary_percent: int = 0) -> list[Manifest]:
    """The way in to a model's engines, if its entry declares one.

    Args:
        spec: The model's entry in the catalog.
        release: The release that serves.
        settings: The installation.
        canary_percent: Percentage of users' requests that the canary gets now.

    Raises:
        BadInput: The installation's ingress controller lacks a feature that the entry declares.
    """
    return way_in(
        WayIn(
            name=spec.name,
            labels=names.labels(spec.name, release.id, "exposure"),
            exposure=spec.exposure,
            stable=Backend(names.engine_name(spec.name, "stable")),
            canary=Backend(names.engine_name(spec.name, "canary")),
            canary_percent=canary_percent,
        ),
        settings,
    )


def way_in(way: WayIn, settings: Settings) -> list[Manifest]:
    """The objects of a way in, in the order to apply them; none if its exposure is of kind none.

    Raises:
        BadInput: The installation's ingress controller lacks a feature that the exposure declares.
    """
    match way.exposure.kind:
        case "none":
            return []
        case "ingress" if settings.access.ingress.controller == "alb":
            return [_alb(way, settings)]
        case "ingress":
            return _nginx(way, settings)
        case "gateway":
            return _gateway(way, settings)


def load_balancer_annotations(idle_seconds: int) -> dict[str, str]:
    """Annotations of a Service with which an AWS Network Load Balancer keeps connections that are silent this long.

    By default it drops them after 350 s and tells neither end.
    """
    return {f"{AWS_LISTENER}.TCP-{port}": f"tcp.idle_timeout.seconds={max(60, idle_seconds)}" for port in (80, 443)}


def _nginx(way: WayIn, settings: Settings) -> list[Manifest]:
    exposure = way.exposure
    annotations = {
        # The time between two reads or two writes, not of a whole answer.
        f"{NGINX}/proxy-read-timeout": str(exposure.idle_seconds),
        f"{NGINX}/proxy-send-timeout": str(exposure.idle_seconds),
        # nginx passes on each token at once.
        f"{NGINX}/proxy-buffering": "off",
        f"{NGINX}/proxy-body-size": f"{exposure.max_body_mb}m",
        # nginx redirects plain HTTP to TLS, also behind a load balancer that ends TLS.
        f"{NGINX}/force-ssl-redirect": "false" if exposure.insecure_http else "true",
        f"{NGINX}/ssl-redirect": "false" if exposure.insecure_http else "true",
    }
    if exposure.auth_url:
        annotations[f"{NGINX}/auth-url"] = exposure.auth_url
    if exposure.auth_response_headers:
        annotations[f"{NGINX}/auth-response-headers"] = ",".join(exposure.auth_response_headers)
    main = _ingress(way, settings, annotations | _issuer(exposure, settings.access), way.stable.service)
    ingresses = [_certified(main, way)]
    for backend, percent in way.backends[1:]:
        # nginx takes the certificate, timeouts and authentication of a canary from the main Ingress.
        weight = {f"{NGINX}/canary": "true", f"{NGINX}/canary-weight": str(percent)}
        canary = _ingress(way, settings, weight, backend.service)
        canary["metadata"]["name"] = f"{way.name}-canary"
        ingresses.append(canary)
    return ingresses


def _alb(way: WayIn, settings: Settings) -> Manifest:
    exposure = way.exposure
    if exposure.auth_url:
        raise BadInput(
            f"{way.name}: exposure.auth_url is {exposure.auth_url}, but an ALB does not support it",
            code="AuthUrlUnsupported",
            about=f"Ingress {way.name}",
            remedy="Set access.api_key in the model's entry and remove auth_url, or use ingress-nginx.",
        )
    annotations = {
        f"{ALB}/target-type": "ip",
        f"{ALB}/healthcheck-path": way.health_path,
        f"{ALB}/listen-ports": json.dumps([{"HTTP": 80} if exposure.insecure_http else {"HTTPS": 443}]),
        f"{ALB}/load-balancer-attributes": f"idle_timeout.timeout_seconds={exposure.idle_seconds}",
    }
    if len(way.backends) == 1:
        return _certified(_ingress(way, settings, annotations, way.stable.service), way)
    targets = [
        {"serviceName": backend.service, "servicePort": backend.port, "weight": share}
        for backend, share in way.backends
    ]
    action = {"type": "forward", "forwardConfig": {"targetGroups": targets}}
    annotations[f"{ALB}/actions.{WEIGHTED}"] = json.dumps(action)
    return _certified(_ingress(way, settings, annotations, WEIGHTED, port={"name": "use-annotation"}), way)


def _ingress(
    way: WayIn, settings: Settings, annotations: dict[str, str], service: str, port: Manifest | None = None
) -> Manifest:
    ingress = settings.access.ingress
    backend = {"service": {"name": service, "port": port or {"number": way.stable.port}}}
    paths = [{"path": PATH, "pathType": "Prefix", "backend": backend}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": _metadata(way, settings, way.name) | {"annotations": ingress.annotations | annotations},
        "spec": {
            "ingressClassName": ingress.class_name,
            "rules": [{"host": way.exposure.host, "http": {"paths": paths}}],
        },
    }


def _certified(ingress: Manifest, way: WayIn) -> Manifest:
    """The Ingress, with TLS unless the exposure declares plain HTTP."""
    if not way.exposure.insecure_http:
        ingress["spec"]["tls"] = [{"hosts": [way.exposure.host], "secretName": way.certificate}]
    return ingress


def _gateway(way: WayIn, settings: Settings) -> list[Manifest]:
    gateway = settings.access.gateway
    manifests: list[Manifest] = []
    parent = {"name": way.name if gateway.class_name else gateway.name}
    if gateway.class_name:
        manifests.append(_own_gateway(way, settings))
    elif gateway.namespace:
        parent["namespace"] = gateway.namespace
    parent["sectionName"] = _listener(way, settings)
    whole = f"{way.exposure.request_seconds}s"
    manifests.append({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": _metadata(way, settings, way.name),
        "spec": {
            "parentRefs": [parent],
            "hostnames": [way.exposure.host],
            "rules": [
                {
                    "matches": [{"path": {"type": "PathPrefix", "value": PATH}}],
                    "timeouts": {"request": whole, "backendRequest": whole},
                    "backendRefs": [
                        {"name": backend.service, "port": backend.port, "weight": share}
                        for backend, share in way.backends
                    ],
                }
            ],
        },
    })  # fmt: skip
    if gateway.load_balancer == "gke":
        manifests += [policy for backend, _ in way.backends for policy in _gke_policies(way, settings, backend)]
    return manifests


def _own_gateway(way: WayIn, settings: Settings) -> Manifest:
    gateway, exposure = settings.access.gateway, way.exposure
    listener: Manifest = {
        "name": _listener(way, settings),
        "hostname": exposure.host,
        # Routes of other namespaces may not claim this host.
        "allowedRoutes": {"namespaces": {"from": "Same"}},
    }
    if exposure.insecure_http:
        listener |= {"protocol": "HTTP", "port": 80}
    else:
        certificates = [{"kind": "Secret", "name": way.certificate}]
        listener |= {
            "protocol": "HTTPS",
            "port": 443,
            "tls": {"mode": "Terminate", "certificateRefs": certificates},
        }
    spec: Manifest = {"gatewayClassName": gateway.class_name, "listeners": [listener]}
    if gateway.load_balancer == "aws-nlb":
        # The controller copies these annotations to the Service of the load balancer.
        spec["infrastructure"] = {"annotations": load_balancer_annotations(exposure.idle_seconds)}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": _metadata(way, settings, way.name) | {"annotations": _issuer(exposure, settings.access)},
        "spec": spec,
    }


def _gke_policies(way: WayIn, settings: Settings, backend: Backend) -> list[Manifest]:
    """Policies of a backend. Without them GKE's load balancer cuts answers after 30 s, and checks health at `/`."""
    target = {"group": "", "kind": "Service", "name": backend.service}
    health = {"type": "HTTP", "httpHealthCheck": {"requestPath": way.health_path, "port": backend.port}}
    policies = {
        "GCPBackendPolicy": {"timeoutSec": way.exposure.request_seconds},
        "HealthCheckPolicy": {"config": health},
    }
    return [
        {
            "apiVersion": "networking.gke.io/v1",
            "kind": kind,
            "metadata": _metadata(way, settings, backend.service),
            "spec": {"default": default, "targetRef": target},
        }
        for kind, default in policies.items()
    ]


def _listener(way: WayIn, settings: Settings) -> str:
    gateway = settings.access.gateway
    return gateway.insecure_listener if way.exposure.insecure_http else gateway.listener


def _issuer(exposure: Exposure, access: AccessSettings) -> dict[str, str]:
    """Annotation for cert-manager, which then fills the Secret with the certificate."""
    if exposure.insecure_http or access.issuer is None or exposure.tls_secret:
        return {}
    return {f"cert-manager.io/{'cluster-issuer' if access.issuer_kind == 'ClusterIssuer' else 'issuer'}": access.issuer}


def _metadata(way: WayIn, settings: Settings, name: str) -> Manifest:
    return {"name": name, "namespace": settings.namespace, "labels": dict(way.labels)}
