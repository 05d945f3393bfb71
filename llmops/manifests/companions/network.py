"""The NetworkPolicy of a model's engines: they reach, and are reached by, only the peers that the settings name."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from llmops.config import names
from llmops.config.catalog.spec import ModelSpec
from llmops.config.settings import Settings
from llmops.config.settings.network import Peer
from llmops.manifests import evaluation
from llmops.manifests.pods import Manifest
from llmops.releases.release import Release

COMPONENT = "network"
METADATA_SERVICE = "169.254.169.254/32"
"""Gives out the credentials of a node in a cloud."""
ROUTER_COMPONENT = "router"
"""Value of the component label of the router's pods, which are in the engines' namespace."""


def objects(spec: ModelSpec, release: Release, settings: Settings) -> list[Manifest]:
    """The policy of a model's engines, stable and canary alike.

    It belongs to the model: a trial, a rejection or a rollback of a release does not change it.

    Args:
        spec: The model's entry in the catalog.
        release: The release that serves.
        settings: The installation.
    """
    network = settings.network
    if not network.enforce:
        return []
    labels = names.labels(spec.name, release.id, COMPONENT)
    del labels[names.RELEASE_LABEL]
    own = [
        # Jobs that measure this model, and the router.
        {names.MODEL_LABEL: spec.name, names.COMPONENT_LABEL: evaluation.COMPONENT},
        {"app.kubernetes.io/part-of": "llmops", names.COMPONENT_LABEL: ROUTER_COMPONENT},
    ]
    allowed = [*network.pipeline, *network.prometheus, *network.clients]
    if spec.exposure.kind != "none":
        allowed += network.entrances
    return [
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": f"{spec.name}-engine", "namespace": settings.namespace, "labels": labels},
            "spec": {
                "podSelector": {"matchLabels": {names.MODEL_LABEL: spec.name, names.COMPONENT_LABEL: "engine"}},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [
                    {
                        "from": [*({"podSelector": {"matchLabels": labels}} for labels in own), *peers(allowed)],
                        "ports": [{"port": names.ENGINE_PORT, "protocol": "TCP"}],
                    }
                ],
                "egress": [*_names(settings), *(_hub(settings) if _asks_hub(spec, release) else ())],
            },
        }
    ]


def _names(settings: Settings) -> list[Manifest]:
    if not settings.network.dns:
        # An empty list of peers would allow everybody.
        return []
    ports = [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]
    return [{"to": peers(settings.network.dns), "ports": ports}]


def _asks_hub(spec: ModelSpec, release: Release) -> bool:
    return "init" in (spec.weights.strategy, release.weights.strategy)


def _hub(settings: Settings) -> list[Manifest]:
    """The hub, whose addresses no selector matches: its port everywhere except at the cloud's metadata service."""
    url = urlsplit(settings.hub_endpoint)
    port = url.port or (80 if url.scheme == "http" else 443)
    anywhere = {"ipBlock": {"cidr": "0.0.0.0/0", "except": [METADATA_SERVICE]}}
    return [{"to": [anywhere], "ports": [{"port": port, "protocol": "TCP"}]}]


def peers(allowed: Iterable[Peer]) -> list[Manifest]:
    """Peers as a rule of a NetworkPolicy names them."""
    return [_peer(peer) for peer in allowed]


def _peer(peer: Peer) -> Manifest:
    if peer.cidr:
        return {"ipBlock": {"cidr": peer.cidr}}
    selector: Manifest = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": peer.namespace}}}
    return selector | ({"podSelector": {"matchLabels": dict(peer.labels)}} if peer.labels else {})
