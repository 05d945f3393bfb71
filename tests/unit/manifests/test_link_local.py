"""No NetworkPolicy opens link-local addresses, at which a cloud gives out the credentials of a node."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmops.config.catalog.spec import ModelSpec
from llmops.config.settings import Settings
from tests.support.everything import beside, everything

NETWORK = Path(__file__).parents[3] / "k8s" / "base" / "network.yaml"
# The metadata service of AWS has a private address in IPv6.
CLOSED = (IPv4Network("169.254.0.0/16"), IPv6Network("fe80::/10"), IPv6Network("fd00:ec2::254/128"))
DNS_CACHE = "169.254.20.10/32"
SPEC = ModelSpec.model_validate(
    {
        "name": "tiny",
        "weights": {"repo": "acme/tiny", "strategy": "init"},
        "engine": {"version": "0.32.0"},
        "routing": {"managed": [{"model": "fireworks_ai/x", "api_key": {"name": "k", "key": "k"}}]},
    }
)
SETTINGS = Settings.model_validate({"router": {"enabled": True}})


def policies() -> Iterator[Any]:
    """Those of the installation, of a model that its pods download, and of a router with a provider."""
    manifests = [*yaml.safe_load_all(NETWORK.read_text()), *everything(SPEC, SETTINGS), *beside(SPEC, {}, SETTINGS)]
    yield from (manifest for manifest in manifests if manifest["kind"] == "NetworkPolicy")


def blocks(policy: Any) -> list[dict[str, Any]]:
    rules = policy["spec"].get("egress", ())
    return [peer["ipBlock"] for rule in rules for peer in rule.get("to", ()) if "ipBlock" in peer]


@pytest.mark.parametrize("policy", list(policies()), ids=lambda policy: str(policy["metadata"]["name"]))
def test_no_policy_opens_link_local_addresses(policy: Any) -> None:
    for block in blocks(policy):
        opened, excepted = ip_network(block["cidr"]), [ip_network(cidr) for cidr in block.get("except", ())]
        for closed in CLOSED:
            if opened.version == closed.version and opened.overlaps(closed) and block["cidr"] != DNS_CACHE:
                assert closed in excepted, block


def test_there_are_wide_rules_to_look_at() -> None:
    wide = {block["cidr"] for policy in policies() for block in blocks(policy)}
    assert wide == {"0.0.0.0/0", "::/0", DNS_CACHE}
