"""How an engine's pod drains before it ends: a module in the engine's process, and the preStop hook that calls it.

A ConfigMap brings the module into any image of vLLM. It is named by the hash of its content: the module of a running
engine never changes, and another version of llmops has a ConfigMap of another name.
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
    """The ConfigMap with the module, for all engines of a namespace."""
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
    """The mount of the module in the engine's container."""
    return mount(VOLUME, MOUNT, read_only=True)


def search_path() -> Manifest:
    """The variable by which the engine's Python finds the module."""
    return variable("PYTHONPATH", MOUNT)


def hook(release: Release, port: str) -> Manifest:
    """The preStop hook of a release's engines; see `hook_within`."""
    return hook_within(release.rollout.unroute_seconds, release.rollout.drain_seconds, port)


def hook_within(unroute_seconds: int, drain_seconds: int, port: str, *, path: str = PATH) -> Manifest:
    """The preStop hook. It answers when routers send no more requests and those in flight have ended.

    The kubelet waits for the answer, within the pod's grace period, before it sends SIGTERM.
    """
    return {"httpGet": {"path": f"{path}?seconds={unroute_seconds}&idle={drain_seconds}", "port": port}}
