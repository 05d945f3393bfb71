"""The agent: watches the API server, and passes changes on to pods, routing and volumes."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import logging
import shutil
import time
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from llmops_sandbox.agent.api import Api, EventType, Object, Watcher, until_answered
from llmops_sandbox.agent.events import Recorder
from llmops_sandbox.agent.node import Nodes
from llmops_sandbox.agent.pods.container import Tools
from llmops_sandbox.agent.pods.environment import HOST_IP
from llmops_sandbox.agent.pods.pod import Pod
from llmops_sandbox.agent.pods.temporary import prune_links
from llmops_sandbox.agent.provisioner import Provisioner
from llmops_sandbox.agent.server import serve
from llmops_sandbox.agent.services import Endpoint, Router
from llmops_sandbox.agent.state import PodState, load, write_json
from llmops_sandbox.agent.teardown import kill_pod
from llmops_sandbox.cluster.nodes import load_nodes, write_default_nodes
from llmops_sandbox.standins.images import ImageStore

MEMORY_SECONDS = 0.5
FIRST_POD_ADDRESS = 10
RECOVER_SECONDS = 5.0

log = logging.getLogger(__name__)


class Agent:
    """Runs the pods of the nodes in a sandbox's `nodes.yaml`.

    Args:
        folder: The sandbox's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pods_folder = folder / "pods"
        self._pods: dict[str, Pod] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._addresses = ipaddress.ip_network(json.loads((folder / "network.json").read_text())["pods"])
        self._next_address = FIRST_POD_ADDRESS

    async def run(self) -> None:
        """Work until cancelled. The pods' processes run on; `stop_pods` ends them."""
        write_default_nodes(self.folder / "nodes.yaml")
        declaration = load_nodes(self.folder / "nodes.yaml")
        self._pods_folder.mkdir(mode=0o700, exist_ok=True)
        api = Api.from_kubeconfig(self.folder / "kubeconfig")
        http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True, limit=0))
        events = Recorder(api)
        runner, port = await serve(self._find, self.folder / "pki", HOST_IP)
        try:
            version = (await until_answered(lambda: api.get("/version")))["gitVersion"]
            self._capacities = {node.name: node.capacity for node in declaration.nodes}
            self._nodes = Nodes(api, declaration.nodes, port, version)
            await self._nodes.register()
            server = urlsplit(api.server)
            self._router = Router(
                self._endpoints, (server.hostname or HOST_IP, server.port or 443), declaration.route_seconds
            )
            provisioner = Provisioner(api, self.folder / "volumes")
            await provisioner.create_class()
            self._tools = Tools(
                api=api,
                images=ImageStore(self.folder / "images.json"),
                events=events,
                http=http,
                back_off_base=declaration.back_off_seconds,
                back_off_limit=declaration.back_off_limit_seconds,
                variables={
                    "KUBERNETES_SERVICE_HOST": server.hostname or HOST_IP,
                    "KUBERNETES_SERVICE_PORT": str(server.port or 443),
                },
                address_of=self._router.address_of,
            )

            def on_claim(kind: EventType, claim: Object) -> None:
                provisioner.on_claim(kind, claim)
                self._on_reference(kind, claim)

            pods = Watcher(api, "/api/v1/pods", self._on_pod, {"fieldSelector": "spec.nodeName!="})
            watchers = [
                pods,
                Watcher(api, "/api/v1/nodes", self._on_node),
                Watcher(api, "/api/v1/services", self._router.on_service),
                Watcher(api, "/api/v1/persistentvolumes", provisioner.on_volume),
                Watcher(api, "/api/v1/persistentvolumeclaims", on_claim),
                Watcher(api, "/api/v1/configmaps", self._on_reference),
                Watcher(api, "/api/v1/secrets", self._on_reference),
            ]
            async with asyncio.TaskGroup() as group:
                for coroutine in (
                    *(watcher.run() for watcher in watchers),
                    events.run(),
                    self._nodes.run(),
                    self._router.run(),
                    provisioner.run(),
                    self._watch_memory(),
                    self._forget_lost(pods),
                ):
                    group.create_task(coroutine)
                write_json(self.folder / "agent.json", {"port": port, "nodes": [*self._nodes.alive]})
                log.info("serving %d nodes", len(self._nodes.alive))
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
            await runner.cleanup()
            await http.close()
            await api.close()

    async def stop_pods(self, seconds: float) -> None:
        """End the processes of all pods within `seconds`; their objects stay, and the next agent starts them again."""
        at = time.time() + seconds
        for pod in self._pods.values():
            pod.suspend(at)
        await asyncio.gather(*(pod.vacated(at + 5) for pod in self._pods.values()))

    def _on_pod(self, kind: EventType, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        known = self._pods.get(uid)
        if kind == "DELETED":
            if known is not None:
                known.gone()
        elif known is not None:
            known.update(pod)
        elif pod["spec"].get("nodeName") in self._nodes.alive:
            self._begin(pod)

    def _begin(self, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        folder = self._pods_folder / uid
        folder.mkdir(mode=0o700, exist_ok=True)
        self._pods[uid] = self._load(pod, folder)
        self._tasks[uid] = asyncio.create_task(self._run(uid))

    def _load(self, pod: Object, folder: Path) -> Pod:
        """The pod with its state on disk, or a new one."""
        uid = pod["metadata"]["uid"]
        state = load(folder) or PodState(uid, self._free_address(), time.time())
        capacity = self._capacities[pod["spec"]["nodeName"]]
        return Pod(pod, state, folder, capacity, self._tools, self._router.pods_changed)

    async def _run(self, uid: str) -> None:
        while True:
            pod = self._pods[uid]
            try:
                await pod.run()
                break
            except Exception:
                # An error in one pod must not end the others. The pod starts again from its state on disk, as under a
                # new agent.
                log.exception("pod %s/%s", pod.pod["metadata"]["namespace"], pod.pod["metadata"]["name"])
            await asyncio.sleep(RECOVER_SECONDS)
            self._pods[uid] = self._load(pod.pod, pod.folder)
            if pod.lost:
                self._pods[uid].gone()
        del self._pods[uid], self._tasks[uid]
        self._router.pods_changed()
        await asyncio.to_thread(shutil.rmtree, pod.folder, ignore_errors=True)
        await asyncio.to_thread(prune_links, self._pods_folder.parent)

    def _on_node(self, kind: EventType, node: Object) -> None:
        name = node["metadata"]["name"]
        if kind != "DELETED":
            self._nodes.changed(node)
        elif self._nodes.lost(name, node["metadata"]["uid"]):
            log.warning("node %s was deleted: its pods end", name)
            for pod in [*self._pods.values()]:
                if pod.pod["spec"].get("nodeName") == name:
                    pod.gone()

    def _on_reference(self, _: EventType, referenced: Object) -> None:
        metadata = referenced["metadata"]
        for pod in self._pods.values():
            if pod.pod["metadata"]["namespace"] == metadata["namespace"]:
                pod.references_changed(metadata["name"])

    async def _forget_lost(self, pods: Watcher) -> None:
        """End the processes of pods that were deleted while no agent ran."""
        await pods.synced.wait()
        for folder in self._pods_folder.iterdir():
            if folder.name not in self._pods:
                log.info("pod %s is gone: its processes end", folder.name)
                await asyncio.to_thread(kill_pod, folder)
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _watch_memory(self) -> None:
        while True:
            await asyncio.sleep(MEMORY_SECONDS)
            for pod in self._pods.values():
                pod.check_memory()

    def _endpoints(self) -> list[Endpoint]:
        return [Endpoint(pod.pod, pod.ip, pod.ready, pod.running, pod.terminating) for pod in self._pods.values()]

    def _find(self, namespace: str, name: str) -> Pod | None:
        for pod in self._pods.values():
            metadata = pod.pod["metadata"]
            if metadata["namespace"] == namespace and metadata["name"] == name:
                return pod
        return None

    def _free_address(self) -> str:
        """The next free address; addresses of ended pods come last."""
        taken = {pod.ip for pod in self._pods.values()}
        for folder in self._pods_folder.iterdir():
            with contextlib.suppress(ValueError):
                if (state := load(folder)) is not None:
                    taken.add(state.ip)
        count = self._addresses.num_addresses - 1
        while True:
            address = str(self._addresses[self._next_address])
            self._next_address = max(FIRST_POD_ADDRESS, (self._next_address + 1) % count)
            if address not in taken:
                return address
