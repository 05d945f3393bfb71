"""Exposure of engines and router outside of the cluster, and the installation's ingress, gateway and issuer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from llmops.config.kinds import Namespace
from llmops.config.schema import Consistent, Problem, Strict

HOST = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+$"
# The characters that ingress-nginx allows, without any that could end the nginx directive around the URL.
AUTH_URL = r"^https?://[A-Za-z0-9$][A-Za-z0-9_.:/$%?&=~-]*$"
OBJECT_NAME = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"


class Exposure(Consistent):
    """Access from outside of the cluster. Not part of the release: it does not change the answers."""

    kind: Literal["none", "ingress", "gateway"] = Field(
        default="none", description="none: only inside the cluster; ingress: an Ingress; gateway: Gateway API."
    )
    host: Annotated[str, Field(pattern=HOST, max_length=253)] | None = Field(
        default=None, description="Host name in lower case; required unless kind is none."
    )
    tls_secret: Annotated[str, Field(pattern=OBJECT_NAME)] | None = Field(
        default=None,
        description="Secret with the certificate; none: NAME-tls, which cert-manager fills if the settings have an "
        "issuer.",
    )
    insecure_http: bool = Field(default=False, description="No TLS: the network can read keys and prompts.")
    auth_url: Annotated[str, Field(pattern=AUTH_URL)] | None = Field(
        default=None,
        description="Service that ingress-nginx asks about each request, such as oauth2-proxy's /oauth2/auth; it "
        "answers 2xx or 401.",
    )
    auth_response_headers: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")], ...] = Field(
        default=(), description="Headers of that answer to add to the request, such as X-Tenant-Id."
    )
    idle_seconds: Annotated[int, Field(ge=10, le=4000)] = Field(
        default=300,
        description="Silence after which the proxy cuts an answer; a long prompt is silent before its first token.",
    )
    request_seconds: Annotated[int, Field(ge=10, le=86400)] = Field(
        default=3600, description="Longest answer, for proxies without an idle timeout."
    )
    max_body_mb: Annotated[int, Field(ge=1, le=1024)] = Field(
        default=32,
        description="Largest request at ingress-nginx, whose own default of 1 refuses images, and at the router; MB.",
    )

    def problems(self) -> Iterator[Problem]:
        """See `Consistent`."""
        if self.kind != "none" and self.host is None:
            yield ("host",), f"is required with kind {self.kind}"
        if self.insecure_http and self.tls_secret:
            yield ("tls_secret",), "is given, but insecure_http means no TLS"
        if self.auth_response_headers and not self.auth_url:
            yield ("auth_response_headers",), "are given without auth_url, whose answer has them"
        if self.auth_url and self.kind == "gateway":
            # The ExternalAuth filter is experimental: a gateway without it would let everybody in.
            yield ("auth_url",), "is for kind ingress: not every gateway supports external authentication"
        if self.request_seconds < self.idle_seconds:
            yield ("request_seconds",), f"is {self.request_seconds}, less than idle_seconds of {self.idle_seconds}"


class IngressSettings(Strict):
    """The ingress controller."""

    controller: Literal["nginx", "alb"] = Field(
        default="nginx", description="nginx: ingress-nginx; alb: the AWS Load Balancer Controller's ALBs."
    )
    class_name: str = Field(default="nginx", description="Ingress class.")
    annotations: dict[str, str] = Field(
        default_factory=dict[str, str], description="Further annotations of each Ingress, such as an ALB's scheme."
    )


class GatewaySettings(Strict):
    """The Gateway of the routes."""

    name: Annotated[str, Field(pattern=OBJECT_NAME)] = Field(default="gateway", description="Name of your Gateway.")
    namespace: Namespace | None = Field(default=None, description="Its namespace; none: the engines' namespace.")
    listener: str = Field(default="https", description="Its listener for TLS; routes attach to no other.")
    insecure_listener: str = Field(default="http", description="Its listener for routes with insecure_http.")
    class_name: str | None = Field(
        default=None, description="GatewayClass; if set, llmops creates a Gateway for each exposure instead."
    )
    load_balancer: Literal["none", "aws-nlb", "gke"] = Field(
        default="none",
        description="Load balancer of the gateway: aws-nlb gets the idle timeout on Gateways that llmops creates; gke "
        "gets timeouts and health checks by GKE's policies.",
    )


class AccessSettings(Strict):
    """The installation's ingress controller, gateway and certificate issuer."""

    ingress: IngressSettings = IngressSettings()
    gateway: GatewaySettings = GatewaySettings()
    issuer: str | None = Field(default=None, description="Name of cert-manager's issuer.")
    issuer_kind: Literal["ClusterIssuer", "Issuer"] = Field(default="ClusterIssuer", description="Kind of the issuer.")
