"""CustomResourceDefinitions of what a cluster's operators bring: their published schemas, for a cluster without them.

The sandbox and the tests install them, so that objects of these kinds meet a real API server. No operator acts on
them there. README.md beside them says where they come from.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.problems import NotFound
from llmops.clients.kubernetes.wait import wait_until

FOLDER = Path(__file__).parent
Definition = dict[str, Any]


def definitions() -> list[Definition]:
    """All definitions, by file name."""
    return [yaml.load(path.read_bytes(), yaml.CSafeLoader) for path in sorted(FOLDER.glob("*.yaml"))]


def schema(definition: Mapping[str, Any], version: str) -> dict[str, Any]:
    """The `openAPIV3Schema` of one version of a definition.

    Raises:
        KeyError: It has no such version.
    """
    for declared in definition["spec"]["versions"]:
        if declared["name"] == version:
            return declared["schema"]["openAPIV3Schema"]
    raise KeyError(f"{definition['metadata']['name']} has no version {version}")


def install_crds(cluster: Cluster, *, timeout: float = 60) -> list[str]:
    """Have the cluster know all of these kinds: apply them, and wait until it takes objects of each.

    What is there already stays as it is where it is equal; a definition that an operator's own installation owns is a
    conflict, and is not taken over.

    Args:
        cluster: Where; the account needs rights on CustomResourceDefinitions.
        timeout: Seconds for all of them.

    Returns:
        Names of the definitions.

    Raises:
        Conflict: Somebody else installed another version.
        TimedOut: One is not served in time.
    """
    deadline = time.monotonic() + timeout
    crds = definitions()
    for definition in crds:
        cluster.apply(definition)
    for definition in crds:
        name = definition["metadata"]["name"]
        wait_until(
            cluster,
            "CustomResourceDefinition",
            name,
            lambda crd: _established(crd) or None,
            timeout=max(0.1, deadline - time.monotonic()),
            describe=f"CustomResourceDefinition {name} is established",
        )
        _served(cluster, definition["spec"]["names"]["kind"], max(0.1, deadline - time.monotonic()))
    return [definition["metadata"]["name"] for definition in crds]


def _established(crd: Mapping[str, Any] | None) -> bool:
    conditions = ((crd or {}).get("status") or {}).get("conditions") or []
    return any(condition["type"] == "Established" and condition["status"] == "True" for condition in conditions)


def _served(cluster: Cluster, kind: str, seconds: float) -> None:
    """Wait for the moment between a condition that says so and a path that answers."""
    asking = retry(
        retry=retry_if_exception_type(NotFound), stop=stop_after_delay(seconds), wait=wait_fixed(0.05), reraise=True
    )
    asking(cluster.list)(kind)
