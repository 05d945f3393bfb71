"""The life of one pod: volumes, init containers, main containers, status, end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, cast

from llmops_sandbox.agent.api import ApiError, Object, until_answered
from llmops_sandbox.agent.pods.container import LEAST_GRACE_SECONDS, Container, Tools, first
from llmops_sandbox.agent.pods.environment import Mount
from llmops_sandbox.agent.pods.status import is_over, is_ready, is_sidecar, pod_status
from llmops_sandbox.agent.pods.volumes import VolumeError, Volumes
from llmops_sandbox.agent.state import ContainerState, PodState, save

VOLUME_RETRY_SECONDS = 10.0
DEFAULT_GRACE_SECONDS = 30

log = logging.getLogger(__name__)


class Pod:
    """Runs one pod; `run` ends when its object and its processes are gone.

    Args:
        pod: Its object.
        state: Its state; changed in place.
        folder: The folder with its files.
        allocatable: The resources of its node.
        tools: What all containers share.
        on_change: Called after each change of its state.
    """

    def __init__(
        self,
        pod: Object,
        state: PodState,
        folder: Path,
        allocatable: Mapping[str, str],
        tools: Tools,
        on_change: Callable[[], None],
    ) -> None:
        self.pod = pod
        self.state = state
        self.ip = state.ip
        self.folder = folder
        self.allocatable = allocatable
        self._tools = tools
        self._on_change = on_change
        self._volumes = Volumes(tools.api, tools.images, pod, state.ip, allocatable, folder / "volumes")
        self._stopping = asyncio.Event()
        self._gone = asyncio.Event()
        self._references_changed = asyncio.Event()
        self._dirty = asyncio.Event()
        self._vacated = asyncio.Event()
        self._published = asyncio.Event()
        self._written: Object = {}
        self._names = _strings(pod["spec"])
        spec = pod["spec"]
        self._inits = [self._container(container, "initContainers") for container in spec.get("initContainers", [])]
        self._mains = [self._container(container, "containers") for container in spec["containers"]]

    @property
    def containers(self) -> list[Container]:
        """All containers, init containers first."""
        return [*self._inits, *self._mains]

    @property
    def lost(self) -> bool:
        """Whether its object or its node is gone."""
        return self._gone.is_set()

    @property
    def terminating(self) -> bool:
        """Whether it is deleted and may still run."""
        return "deletionTimestamp" in self.pod["metadata"] or self._stopping.is_set()

    @property
    def ready(self) -> bool:
        """Whether its containers and readiness gates let it take requests."""
        return is_ready(self.pod, self.state)

    @property
    def running(self) -> bool:
        """Whether a main container has started and the pod has not ended."""
        return not is_over(self.pod, self.state) and any(container.state.attempt for container in self._mains)

    def update(self, pod: Object) -> None:
        """Take a newer version of the object; a deletion starts the end."""
        self.pod = pod
        if "deletionTimestamp" in pod["metadata"]:
            grace = pod["metadata"].get("deletionGracePeriodSeconds", DEFAULT_GRACE_SECONDS)
            at = time.time() + max(grace, LEAST_GRACE_SECONDS) if grace else 0.0
            # A deadline of an earlier agent still holds; a second deletion can only shorten it.
            at = min(at, self.state.stop_at) if self.state.stop_at is not None else at
            if at != self.state.stop_at:
                self.state.stop_at = at
                self.keep()
            self.stop(at)
        self._references_changed.set()
        self._dirty.set()
        self._on_change()

    def stop(self, kill_at: float) -> None:
        """End its containers, by SIGKILL at `kill_at` seconds since 1970 at the latest."""
        self._stopping.set()
        self._stop_containers(kill_at)

    def suspend(self, kill_at: float) -> None:
        """End its containers because the agent ends; the next agent starts the pod again."""
        for container in self.containers:
            container.stop(kill_at)

    async def vacated(self, deadline: float) -> None:
        """Wait until no process of it is alive, or for `deadline`, in seconds since 1970."""
        while any("running" in container.state.current for container in self.containers) and time.time() < deadline:
            self._vacated.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._vacated.wait(), max(0.0, deadline - time.time()))

    def gone(self) -> None:
        """Its object or its node is gone: kill its processes."""
        self._gone.set()
        self.stop(0.0)

    def references_changed(self, name: str) -> None:
        """A config map, secret or claim of its namespace has changed: try again if the pod names it."""
        if name in self._names:
            self._references_changed.set()
            for container in self.containers:
                container.wake()

    def check_memory(self) -> None:
        """Kill containers above their memory limit."""
        for container in self.containers:
            container.check_memory()

    def mounts(self, container: Object, values: Mapping[str, str]) -> list[Mount]:
        """The mounts of a container."""
        return self._volumes.mounts(container, values)

    def keep(self) -> None:
        """Write the state to disk."""
        save(self.folder, self.state)

    def changed(self) -> None:
        """Keep and publish the state."""
        self.keep()
        self._dirty.set()
        self._vacated.set()
        self._on_change()

    async def run(self) -> None:
        """Start it, keep it running, remove it."""
        self.update(self.pod)
        self.changed()
        writing = asyncio.create_task(self._publish())
        try:
            if not is_over(self.pod, self.state):
                await self._live()
                self.changed()
            await first(self._stopping.wait(), self._gone.wait())
            if not self._gone.is_set():
                await self._flush()
                await self._remove()
            await self._gone.wait()
        finally:
            writing.cancel()

    async def _live(self) -> None:
        """From the volumes to the last container's end."""
        if not await self._prepare():
            return
        refreshing = asyncio.create_task(self._refresh())
        limiting = asyncio.create_task(self._limit())
        sidecars: list[tuple[Container, asyncio.Task[None]]] = []
        try:
            if await self._initialize(sidecars):
                async with asyncio.TaskGroup() as group:
                    for container in self._mains:
                        group.create_task(container.run())
        finally:
            limiting.cancel()
            for container, task in reversed(sidecars):
                grace = self.pod["spec"].get("terminationGracePeriodSeconds", DEFAULT_GRACE_SECONDS)
                container.stop(time.time() + grace if self.state.stop_at is None else self.state.stop_at)
                await task
            refreshing.cancel()

    async def _prepare(self) -> bool:
        """Wait until all volumes are ready; False if the pod is stopped before."""
        while not self._stopping.is_set():
            self._references_changed.clear()
            try:
                await until_answered(self._volumes.prepare)
            except (VolumeError, ApiError) as error:
                self._tools.events.record(self.pod, "Warning", "FailedMount", str(error))
            else:
                return True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(VOLUME_RETRY_SECONDS):
                    await first(self._references_changed.wait(), self._stopping.wait())
        # Processes of an earlier agent may run: their containers have to end them.
        return any("running" in container.state.current for container in self.containers)

    async def _initialize(self, sidecars: list[tuple[Container, asyncio.Task[None]]]) -> bool:
        """Run the init containers one after the other; False if one failed for good or the pod is stopped."""
        for container in self._inits:
            if is_sidecar(container.spec):
                task = asyncio.create_task(container.run())
                sidecars.append((container, task))
                await first(container.started.wait(), self._stopping.wait(), wait_for(task))
            elif (container.state.terminated or {"exitCode": 1})["exitCode"] != 0:
                await container.run()
                if (container.state.terminated or {"exitCode": 1})["exitCode"] != 0:
                    return False
        return not self._stopping.is_set() or any("running" in main.state.current for main in self._mains)

    async def _limit(self) -> None:
        """Fail the pod at its active deadline."""
        seconds = self.pod["spec"].get("activeDeadlineSeconds")
        if seconds is None:
            return
        await asyncio.sleep(max(0.0, self.state.started + seconds - time.time()))
        self.state.reason = "DeadlineExceeded"
        self.state.message = "Pod was active on the node longer than the specified deadline"
        self._tools.events.record(self.pod, "Normal", "DeadlineExceeded", self.state.message)
        self.changed()
        grace = self.pod["spec"].get("terminationGracePeriodSeconds", DEFAULT_GRACE_SECONDS)
        self._stop_containers(time.time() + grace)

    async def _refresh(self) -> None:
        """Update mounted config maps and secrets when they change."""
        while True:
            await self._references_changed.wait()
            self._references_changed.clear()
            try:
                await until_answered(lambda: self._volumes.refresh(self.pod))
            except (VolumeError, ApiError) as error:
                # The mounted files stay as they are.
                self._tools.events.record(self.pod, "Warning", "FailedMount", str(error))

    def _stop_containers(self, kill_at: float) -> None:
        """Stop the main containers, and the sidecars too if there is no grace; else sidecars are stopped last."""
        for container in self.containers:
            if kill_at == 0.0 or not is_sidecar(container.spec):
                container.stop(kill_at)

    async def _publish(self) -> None:
        """Write each change of the status; a patch has only the fields that changed."""
        metadata = self.pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/status"
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            status = pod_status(self.pod, self.state, time.time())
            change = {key: value for key, value in status.items() if self._written.get(key) != value}
            if change and not self._gone.is_set():
                # With the uid the patch never applies to a later pod of the same name.
                patch = {"metadata": {"uid": metadata["uid"]}, "status": change}
                try:
                    await until_answered(lambda patch=patch: self._tools.api.patch(path, patch))
                    self._written = status
                except ApiError as error:
                    if error.status not in (404, 409):
                        log.warning("status of pod %s/%s: %s", metadata["namespace"], metadata["name"], error)
            if not self._dirty.is_set():
                self._published.set()

    async def _flush(self) -> None:
        """Wait until the API server has the present status."""
        self._published.clear()
        self._dirty.set()
        await first(self._published.wait(), self._gone.wait())

    async def _remove(self) -> None:
        """Delete the pod's object: its processes are gone."""
        metadata = self.pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        options: Object = {"gracePeriodSeconds": 0, "preconditions": {"uid": metadata["uid"]}}
        try:
            await until_answered(lambda: self._tools.api.delete(path, options))
        except ApiError as error:
            # 409: another pod has the name by now, so this one's object is gone.
            if error.status != 409:
                log.warning("pod %s/%s: %s", metadata["namespace"], metadata["name"], error)

    def _container(self, spec: Object, kind: Literal["initContainers", "containers"]) -> Container:
        name = spec["name"]
        if name not in self.state.containers:
            waiting = (
                "PodInitializing"
                if kind == "containers" and "initContainers" in self.pod["spec"]
                else "ContainerCreating"
            )
            self.state.containers[name] = ContainerState(current={"waiting": {"reason": waiting}})
        pod_policy = self.pod["spec"].get("restartPolicy", "Always")
        policy = pod_policy
        if kind == "initContainers":
            policy = "Always" if is_sidecar(spec) else ("Never" if pod_policy == "Never" else "OnFailure")
        return Container(
            self,
            spec,
            self.state.containers[name],
            policy,
            self.folder / "containers" / name,
            f"spec.{kind}{{{name}}}",
            self._tools,
        )


def _strings(content: object) -> set[str]:
    """Every string in JSON content."""
    if isinstance(content, str):
        return {content}
    if isinstance(content, dict):
        return set[str]().union(*(_strings(value) for value in cast("Object", content).values()))
    if isinstance(content, list):
        return set[str]().union(*(_strings(item) for item in cast("list[object]", content)))
    return set()


async def wait_for(task: asyncio.Task[None]) -> None:
    """A coroutine that waits for a task, for `first`."""
    await asyncio.wait([task])
