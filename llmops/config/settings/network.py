"""Who may reach the engines inside the cluster."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network
from typing import Annotated

from pydantic import AfterValidator, Field

from llmops.config.kinds import Namespace
from llmops.config.schema import Consistent, Problem, Strict


def _cidr(value: str) -> str:
    try:
        ip_network(value)
    except ValueError as error:
        raise ValueError("must be a range of addresses, such as 10.0.0.0/16") from error
    return value


class Peer(Consistent):
    """Pods of a namespace, or addresses outside of the pods' network."""

    namespace: Namespace | None = Field(default=None, description="Namespace of the pods.")
    labels: dict[str, str] = Field(default_factory=dict[str, str], description="Labels of the pods; none: all pods.")
    cidr: Annotated[str, AfterValidator(_cidr)] | None = Field(
        default=None, description="Addresses of callers without a pod: nodes, a cloud's load balancer."
    )

    def problems(self) -> Iterator[Problem]:
        """See `Consistent`."""
        if (self.namespace is None) == (self.cidr is None):
            yield ("namespace",), "or cidr is required, but not both"
        elif self.labels and self.cidr:
            yield ("labels",), "select pods, but cidr names addresses"
        if self.cidr and ip_network(self.cidr).prefixlen == 0:
            yield ("cidr",), f"is {self.cidr}: engines are never open to the world"


class NetworkSettings(Strict):
    """NetworkPolicies of the engines, and the callers that they allow. The cluster's network must enforce policies."""

    enforce: bool = Field(default=True, description="Whether engines get NetworkPolicies.")
    pipeline: tuple[Peer, ...] = Field(
        default=(Peer(namespace="llmops"),), description="This pipeline, which measures engines."
    )
    prometheus: tuple[Peer, ...] = Field(
        default=(Peer(namespace="monitoring"),), description="Prometheus, which scrapes engines."
    )
    entrances: tuple[Peer, ...] = Field(
        default=(Peer(namespace="ingress-nginx"),),
        description="Ingress controllers and gateways; only engines with an exposure allow them.",
    )
    clients: tuple[Peer, ...] = Field(
        default=(), description="Applications that call engines directly, without the router or an entrance."
    )
    dns: tuple[Peer, ...] = Field(
        default=(Peer(namespace="kube-system", labels={"k8s-app": "kube-dns"}),),
        description="The cluster's DNS, the only destination of an engine.",
    )
