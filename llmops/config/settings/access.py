"""The way in from outside the cluster: what is declared of each one, and what this installation has for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, model_validator

from llmops.config.schema import Problem, Strict, raise_inconsistent

HOST = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+$"
# What ingress-nginx takes for a URL; nothing that could end the directive of nginx that it is written into.
AUTH_URL = r"^https?://[A-Za-z0-9$][A-Za-z0-9_.:/$%?&=~-]*$"
OBJECT_NAME = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"


class Exposure(Strict):
    """A way in from outside the cluster. Not part of the release: it says how to reach it, and not what answers."""

    kind: Literal["none", "ingress", "gateway"] = Field(
        default="none", description="none: inside the cluster alone; ingress: an Ingress; gateway: Gateway API."
    )
    host: Annotated[str, Field(pattern=HOST, max_length=253)] | None = Field(
        default=None, description="Host name in lower case; required unless kind is none."
    )
    tls_secret: Annotated[str, Field(pattern=OBJECT_NAME)] | None = Field(
        default=None,
        description="Secret with the certificate; none: NAME-tls, which cert-manager fills where the settings name an "
        "issuer.",
    )
    insecure_http: bool = Field(
        default=False, description="Without TLS: keys and prompts can be read on the way. Off for a reason."
    )
    auth_url: Annotated[str, Field(pattern=AUTH_URL)] | None = Field(
        default=None,
        description="Service that ingress-nginx asks about each request, such as oauth2-proxy's /oauth2/auth; it "
        "answers 2xx or 401.",
    )
    auth_response_headers: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")], ...] = Field(
        default=(), description="Headers of its answer that the request goes on with, such as X-Tenant-Id."
    )
    idle_seconds: Annotated[int, Field(ge=10, le=4000)] = Field(
        default=300,
        description="Silence within an answer after which it is cut: before its first token a long prompt is silent.",
    )
    request_seconds: Annotated[int, Field(ge=10, le=86400)] = Field(
        default=3600, description="An answer is cut after this, however lively; only where no idle time can be set."
    )
    max_body_mb: Annotated[int, Field(ge=1, le=1024)] = Field(
        default=32, description="Largest request that ingress-nginx takes, MB: its own default of 1 refuses images."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Exposure:
        raise_inconsistent(self._problems())
        return self

    def _problems(self) -> Iterator[Problem]:
        if self.kind != "none" and self.host is None:
            yield ("host",), f"is required with kind {self.kind}"
        if self.insecure_http and self.tls_secret:
            yield ("tls_secret",), "is given, but insecure_http leaves TLS out"
        if self.auth_response_headers and not self.auth_url:
            yield ("auth_response_headers",), "are of the answer of auth_url, which is not given"
        if self.auth_url and self.kind == "gateway":
            # Its ExternalAuth filter is experimental: a gateway that doesn't know it would let everybody in.
            yield ("auth_url",), "is for kind ingress: Gateway API has no such field that every gateway keeps to"
        if self.request_seconds < self.idle_seconds:
            yield ("request_seconds",), f"is {self.request_seconds}, less than idle_seconds of {self.idle_seconds}"


class IngressSettings(Strict):
    """The ingress controller."""

    controller: Literal["nginx", "alb"] = Field(
        default="nginx", description="nginx: ingress-nginx; alb: the AWS Load Balancer Controller's ALBs."
    )
    class_name: str = Field(default="nginx", description="Of the Ingresses.")
    annotations: dict[str, str] = Field(
        default_factory=dict[str, str], description="Further annotations of each Ingress, such as an ALB's scheme."
    )


class GatewaySettings(Strict):
    """The gateway that routes are attached to."""

    name: Annotated[str, Field(pattern=OBJECT_NAME)] = Field(default="gateway", description="Of a Gateway of yours.")
    namespace: str | None = Field(default=None, description="Of that Gateway; none: the engines'.")
    listener: str = Field(default="https", description="Its listener for TLS, so that no route is open on port 80.")
    insecure_listener: str = Field(default="http", description="Its listener for routes with insecure_http.")
    class_name: str | None = Field(
        default=None, description="GatewayClass: given, each way in gets a Gateway of its own instead."
    )
    load_balancer: Literal["none", "aws-nlb", "gke"] = Field(
        default="none",
        description="What stands in front: aws-nlb gets the idle time with a Gateway of our own; gke gets timeouts "
        "and health checks by GKE's policies.",
    )


class AccessSettings(Strict):
    """What this installation has for the ways in."""

    ingress: IngressSettings = IngressSettings()
    gateway: GatewaySettings = GatewaySettings()
    issuer: str | None = Field(default=None, description="cert-manager's issuer of certificates.")
    issuer_kind: Literal["ClusterIssuer", "Issuer"] = Field(default="ClusterIssuer", description="Of the issuer.")
