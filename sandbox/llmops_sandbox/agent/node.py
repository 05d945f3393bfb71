"""Nodes as the API knows them: registered from their declarations, kept alive by Leases."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import platform
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from llmops.errors import LlmopsError
from llmops_sandbox.agent.api import MERGE, Api, ApiError, Object, until_answered
from llmops_sandbox.agent.pods.environment import HOST_IP
from llmops_sandbox.agent.pods.status import rfc3339
from llmops_sandbox.cluster.nodes import Node

LEASE_SECONDS = 40
RENEW_SECONDS = 10
STATUS_SECONDS = 300
MANAGED_LABEL = "llmops.dev/sandbox-node"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"

log = logging.getLogger(__name__)


class Nodes:
    """The sandbox's nodes. A deleted node is a lost machine until the agent starts again.

    Args:
        api: The client.
        declared: The declared nodes.
        port: Port of the agent's endpoint for logs.
        version: The API server's version, which the nodes report as theirs.
    """

    def __init__(self, api: Api, declared: Sequence[Node], port: int, version: str) -> None:
        self.alive = {node.name: node for node in declared}
        self._api = api
        self._port = port
        self._version = version
        self._uids: dict[str, str] = {}
        self._doubted = asyncio.Event()

    async def register(self) -> None:
        """Create or correct all nodes; remove the sandbox's nodes that are no longer declared."""
        known = await until_answered(lambda: self._api.get("/api/v1/nodes", {"labelSelector": MANAGED_LABEL}))
        for node in known["items"]:
            name = node["metadata"]["name"]
            if name not in self.alive:
                await until_answered(lambda name=name: self._api.delete(f"/api/v1/nodes/{name}"))
        for node in self.alive.values():
            await until_answered(lambda node=node: self._register(node))
            await until_answered(lambda node=node: self._renew(node.name))

    def lost(self, name: str, uid: str) -> bool:
        """Take the deletion of a node; True if it was alive."""
        return self._uids.get(name) == uid and self.alive.pop(name, None) is not None

    def changed(self, node: Object) -> None:
        """Take a change of a node; if another client marks a live one as not ready, report it as ready at once."""
        ready = [
            condition["status"] for condition in node["status"].get("conditions", []) if condition["type"] == "Ready"
        ]
        if node["metadata"]["name"] in self.alive and ready != ["True"]:
            self._doubted.set()

    async def run(self) -> None:
        """Renew Leases and statuses until cancelled."""
        reported = time.monotonic()
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._doubted.wait(), RENEW_SECONDS)
            fresh = time.monotonic() - reported < STATUS_SECONDS and not self._doubted.is_set()
            self._doubted.clear()
            for node in [*self.alive.values()]:
                try:
                    await self._renew(node.name)
                    if not fresh:
                        await self._report(node)
                except LlmopsError as error:
                    log.warning("node %s: %s", node.name, error)
            if not fresh:
                reported = time.monotonic()

    async def _register(self, node: Node) -> None:
        labels = {
            "kubernetes.io/hostname": node.name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "arm64" if platform.machine() == "aarch64" else "amd64",
            MANAGED_LABEL: "",
            **node.labels,
        }
        spec: Object = {"taints": [taint.model_dump() for taint in node.taints]}
        content: Object = {"metadata": {"name": node.name, "labels": labels}, "spec": spec}
        try:
            registered = await self._api.create("/api/v1/nodes", content)
        except ApiError as error:
            if error.code != "AlreadyExists":
                raise
            # The merge replaces the whole list of taints. A controller sets its own (cordon, lost contact) again.
            registered = await self._api.patch(f"/api/v1/nodes/{node.name}", content, MERGE)
        self._uids[node.name] = registered["metadata"]["uid"]
        # Null removes resources that the declaration no longer has.
        dropped = dict.fromkeys(registered.get("status", {}).get("capacity", {}).keys() - node.capacity.keys())
        await self._report(node, dropped)

    async def _report(self, node: Node, dropped: Mapping[str, None] = MappingProxyType({})) -> None:
        now = rfc3339(time.time())
        good = [
            ("MemoryPressure", "False", "KubeletHasSufficientMemory"),
            ("DiskPressure", "False", "KubeletHasNoDiskPressure"),
            ("PIDPressure", "False", "KubeletHasSufficientPID"),
            ("Ready", "True", "KubeletReady"),
        ]
        status: Object = {
            "capacity": {**node.capacity, **dropped},
            "allocatable": {**node.capacity, **dropped},
            "conditions": [
                {"type": kind, "status": value, "reason": reason, "message": "the sandbox's agent runs",
                 "lastHeartbeatTime": now, "lastTransitionTime": now}
                for kind, value, reason in good
            ],
            "addresses": [
                {"type": "InternalIP", "address": HOST_IP},
                {"type": "Hostname", "address": node.name},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._port}},
            "nodeInfo": {
                "machineID": node.name,
                "systemUUID": node.name,
                "bootID": platform.node(),
                "kernelVersion": platform.release(),
                "osImage": "llmops sandbox",
                "containerRuntimeVersion": "sandbox://1",
                "kubeletVersion": self._version,
                "kubeProxyVersion": "",
                "operatingSystem": "linux",
                "architecture": "arm64" if platform.machine() == "aarch64" else "amd64",
            },
        }  # fmt: skip
        await self._api.patch(f"/api/v1/nodes/{node.name}/status", {"status": status})

    async def _renew(self, name: str) -> None:
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec: Object = {"holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now}
        try:
            await self._api.patch(f"{LEASES}/{name}", {"spec": spec}, MERGE)
        except ApiError as error:
            if error.status != 404:
                raise
            owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": self._uids[name]}
            await self._api.create(LEASES, {"metadata": {"name": name, "ownerReferences": [owner]}, "spec": spec})
