"""How an engine's pod is emptied before it ends: a module in the engine's process, and the hook that asks it.

The module comes out of a ConfigMap, so that any image of vLLM has it. The ConfigMap is named by its content: what an
engine that runs has mounted never changes, and one of another version of llmops has its own.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files

from llmops.config.settings import Settings
from llmops.manifests.pods import Manifest, mount, variable
from llmops.releases.release import Release

FILE = "llmops_drain.py"
MOUNT = "/opt/llmops"
ARGUMENT = "--middleware=llmops_drain.Drain"
PATH = "/llmops/drain"
VOLUME = "drain"

SOURCE = files(__name__).joinpath(FILE).read_text()
CONFIG_MAP = f"llmops-drain-{hashlib.sha256(SOURCE.encode()).hexdigest()[:10]}"


def config_map(settings: Settings) -> Manifest:
    """The module, for all engines of a namespace."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": CONFIG_MAP,
            "namespace": settings.namespace,
            "labels": {
                "app.kubernetes.io/component": "drain",
                "app.kubernetes.io/part-of": "llmops",
                "app.kubernetes.io/managed-by": "llmops",
            },
        },
        "immutable": True,
        "data": {FILE: SOURCE},
    }


def volume() -> Manifest:
    """The ConfigMap as a volume of the pod."""
    return {"name": VOLUME, "configMap": {"name": CONFIG_MAP}}


def module_mount() -> Manifest:
    """Where the engine has the module."""
    return mount(VOLUME, MOUNT, read_only=True)


def search_path() -> Manifest:
    """The variable by which the engine's Python finds the module."""
    return variable("PYTHONPATH", MOUNT)


def hook(release: Release, port: str) -> Manifest:
    """The preStop hook of a release's engines; see `hook_within`."""
    return hook_within(release.rollout.unroute_seconds, release.rollout.drain_seconds, port)


def hook_within(unroute_seconds: int, drain_seconds: int, port: str) -> Manifest:
    """The preStop hook: SIGTERM comes when no router sends more and what was in flight has ended.

    A kubelet waits for the answer, within the pod's grace period.
    """
    return {"httpGet": {"path": f"{PATH}?seconds={unroute_seconds}&idle={drain_seconds}", "port": port}}
