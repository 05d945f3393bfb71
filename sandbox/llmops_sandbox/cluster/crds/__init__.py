"""CustomResourceDefinitions of operators, with their published schemas, for a cluster without these operators.

The sandbox and the tests install them, so that a real API server validates objects of these kinds. No operator acts on
the objects. README.md beside them names their sources.
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
    """Apply all definitions, and wait until the API server serves each kind.

    Equal definitions stay as they are. A definition that an operator's installation owns is a conflict, and stays.

    Args:
        cluster: Its account needs rights on CustomResourceDefinitions.
        timeout: Seconds for all of them.

    Returns:
        Names of the definitions.

    Raises:
        Conflict: Another manager owns a definition.
        TimedOut: The API server does not serve a kind in time.
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
    """Wait until the API server answers for the kind: it does so a moment after the condition Established."""
    asking = retry(
        retry=retry_if_exception_type(NotFound), stop=stop_after_delay(seconds), wait=wait_fixed(0.05), reraise=True
    )
    asking(cluster.list)(kind)
