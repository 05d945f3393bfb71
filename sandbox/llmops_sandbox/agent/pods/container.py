"""The life of one container: pull, start, probe, restart, stop."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import aiohttp

from llmops.clients.kubernetes.quantity import quantity
from llmops_sandbox.agent.api import Api, Object, until_answered
from llmops_sandbox.agent.events import Recorder
from llmops_sandbox.agent.pods.ending import terminated
from llmops_sandbox.agent.pods.environment import AddressOf, ConfigError, Mount, Translator
from llmops_sandbox.agent.pods.launch import Owner, build_order
from llmops_sandbox.agent.pods.probes import Kind, Prober, Target, run_hook
from llmops_sandbox.agent.pods.process import Order, Process, kill_strays, read_exit, run_command
from llmops_sandbox.agent.pods.status import back_off, rfc3339, should_restart
from llmops_sandbox.agent.pods.temporary import make_temporary_folder
from llmops_sandbox.agent.pods.volumes import image_references
from llmops_sandbox.agent.state import ContainerState
from llmops_sandbox.standins.images import Image, ImageStore

# A kubelet gives a container this long after SIGTERM, even if a preStop hook has used up the grace period.
LEAST_GRACE_SECONDS = 2.0
CONFIG_RETRY_SECONDS = 10.0


@dataclass(frozen=True)
class Tools:
    """What all containers share.

    Args:
        api: The API server.
        images: The images and their programs.
        events: Records events.
        http: The session of probes.
        back_off_base: Seconds of the first back-off.
        back_off_limit: Seconds of the longest back-off.
        variables: Variables of every container: the address of the API server.
        address_of: Gives the address of a Service.
    """

    api: Api
    images: ImageStore
    events: Recorder
    http: aiohttp.ClientSession
    back_off_base: float
    back_off_limit: float
    variables: Mapping[str, str]
    address_of: AddressOf


class Container:
    """Runs one container until it ends for good or `stop` is called.

    Args:
        owner: Its pod.
        spec: Its declaration in the pod.
        state: Its state; changed in place.
        policy: Its restart policy.
        folder: The folder with its attempts.
        field_path: Its place in the pod, for events.
        tools: What all containers share.
    """

    def __init__(
        self,
        owner: Owner,
        spec: Object,
        state: ContainerState,
        policy: Literal["Always", "OnFailure", "Never"],
        folder: Path,
        field_path: str,
        tools: Tools,
    ) -> None:
        self.spec = spec
        self.state = state
        self.name: str = spec["name"]
        self.started = asyncio.Event()
        self._owner = owner
        self._policy = policy
        self._folder = folder
        self._field_path = field_path
        self._tools = tools
        self._process: Process | None = None
        self._stopping = asyncio.Event()
        self._failed = asyncio.Event()
        self._failed_probe: Object = {}
        self._kill_at = float("inf")
        self._kill_at_changed = asyncio.Event()
        self._wake = asyncio.Event()
        limit = spec.get("resources", {}).get("limits", {}).get("memory")
        self._memory_limit = int(quantity(limit)) if limit else None

    def stop(self, kill_at: float) -> None:
        """End it, with SIGKILL at `kill_at` seconds since 1970 at the latest; a later call can only shorten that."""
        self._kill_at = min(self._kill_at, kill_at)
        self._kill_at_changed.set()
        self._stopping.set()
        self._wake.set()

    def wake(self) -> None:
        """Try again at once: an object that it may wait for has changed."""
        self._wake.set()

    def attempt_folder(self, attempt: int) -> Path:
        """The folder of its nth process."""
        return self._folder / str(attempt)

    def check_memory(self) -> None:
        """Kill it if its memory is above its limit."""
        if self._process is None or self._memory_limit is None or self._process.exited.is_set():
            return
        if self._process.exceeds(self._memory_limit):
            (self._process.folder / "oom").write_text("oom")
            self._process.kill()

    async def run(self) -> None:
        """Start and restart it until it has ended for good."""
        state = self.state
        if state.started:
            self.started.set()
        if "running" in state.current:
            await self._resume()
        while not self._stopping.is_set():
            if (end := state.terminated) is not None:
                if not should_restart(self._policy, end["exitCode"]):
                    return
                await self._back_off()
            elif state.attempt:
                await self._back_off()
            if self._stopping.is_set() or (image := await self._pull()) is None:
                return
            if (order := await self._configure(image)) is None:
                return
            await self._start(order)

    async def _resume(self) -> None:
        """Adopt the process that an earlier agent started, or record its end."""
        folder = self.attempt_folder(self.state.attempt)
        process = Process.adopt(folder)
        if process is None:
            # Its shim may have been killed too, and left processes.
            kill_strays(folder)
            if (folder / "exit.json").exists() or (folder / "process.json").exists():
                self._ended(None)
            else:
                # The agent was killed before the program began: the attempt doesn't count.
                self.state.attempt -= 1
                self.state.restarts = max(0, self.state.attempt - 1)
                self.state.current = {"waiting": {"reason": "ContainerCreating"}}
        else:
            await self._supervise(process)

    async def _back_off(self) -> None:
        """Wait out the back-off for the number of ends in a row."""
        state = self.state
        delay = back_off(state.failures, self._tools.back_off_base, self._tools.back_off_limit)
        until = state.ended_at + delay
        if until <= time.time():
            return
        metadata = self._owner.pod["metadata"]
        where = f"{metadata['name']}_{metadata['namespace']}({metadata['uid']})"
        message = f"back-off {_duration(delay)} restarting failed container={self.name} pod={where}"
        self._show_waiting("CrashLoopBackOff", message)
        self._event("Warning", "BackOff", f"Back-off restarting failed container {self.name} in pod {where}")
        await self._pause(until - time.time())

    async def _pull(self) -> Image | None:
        """Wait for the container's image and those of its volumes; None if the pod is stopped before."""
        for reference in image_references(self._owner.pod, self.spec):
            if await self._present(reference) is None:
                return None
        reference: str = self.spec["image"]
        if (image := await self._present(reference)) is not None:
            self.state.image, self.state.image_id = reference, image.reference
        return image

    async def _present(self, reference: str) -> Image | None:
        """Wait for an image; None if the pod is stopped before."""
        failures = 0
        while not self._stopping.is_set():
            if (image := self._tools.images.resolve(reference)) is not None:
                if failures:
                    self._event("Normal", "Pulled", f'Successfully pulled image "{reference}"')
                else:
                    self._event("Normal", "Pulled", f'Container image "{reference}" already present on machine')
                return image
            failures += 1
            if self.spec.get("imagePullPolicy") == "Never":
                cause = f'Container image "{reference}" is not present with pull policy of Never'
                await self._refuse("ErrImageNeverPull", "ErrImageNeverPull", cause)
                continue
            if (repository := _repository(reference)) != repository.lower():
                cause = f'Failed to apply default image tag "{reference}": couldn\'t parse image name "{reference}": '
                cause += f"invalid reference format: repository name ({repository}) must be lowercase"
                await self._refuse("InspectFailed", "InvalidImageName", cause)
                continue
            cause = (
                f'failed to pull and unpack image "{reference}": failed to resolve reference "{reference}": not found'
            )
            cause = f"rpc error: code = NotFound desc = {cause}"
            self._event("Normal", "Pulling", f'Pulling image "{reference}"')
            if absent := await self._absent_pull_secrets():
                listed = f"Unable to retrieve some image pull secrets ({', '.join(absent)})"
                cause_of_secret = f"{listed}; attempting to pull the image may not succeed."
                self._event("Warning", "FailedToRetrieveImagePullSecret", cause_of_secret)
            self._event("Warning", "Failed", f'Failed to pull image "{reference}": {cause}')
            self._event("Warning", "Failed", "Error: ErrImagePull")
            delay = back_off(failures + 1, self._tools.back_off_base, self._tools.back_off_limit)
            shown = min(1.0, delay / 2)
            self._show_waiting("ErrImagePull", cause)
            await self._pause(shown)
            if self._stopping.is_set():
                return None
            self._event("Normal", "BackOff", f'Back-off pulling image "{reference}"')
            self._event("Warning", "Failed", "Error: ImagePullBackOff")
            explained = f'Back-off pulling image "{reference}": ErrImagePull: {cause}'
            self._show_waiting("ImagePullBackOff", explained)
            await self._pause(delay - shown)
        return None

    async def _refuse(self, event: str, reason: str, cause: str) -> None:
        """Show why the image is not asked for, until the next try."""
        self._event("Warning", event, cause)
        self._event("Warning", "Failed", f"Error: {reason}")
        self._show_waiting(reason, cause)
        await self._pause(CONFIG_RETRY_SECONDS)

    async def _absent_pull_secrets(self) -> list[str]:
        pod = self._owner.pod
        folder = f"/api/v1/namespaces/{pod['metadata']['namespace']}/secrets"
        absent: list[str] = []
        for secret in pod["spec"].get("imagePullSecrets", []):
            path = f"{folder}/{secret['name']}"
            if await until_answered(lambda path=path: self._tools.api.find(path)) is None:
                absent.append(secret["name"])
        return absent

    async def _configure(self, image: Image) -> Order | None:
        """Build the order, and wait for the objects that it refers to; None if the pod is stopped before."""
        tools, folder = self._tools, self.attempt_folder(self.state.attempt + 1)
        while not self._stopping.is_set():
            # Cleared before reading: a later change triggers another try.
            self._wake.clear()
            try:
                return await until_answered(lambda: build_order(self._owner, self.spec, image, folder, tools))
            except ConfigError as error:
                self._event("Warning", "Failed", f"Error: {error}")
                self._show_waiting("CreateContainerConfigError", str(error))
                await first(self._wake.wait(), asyncio.sleep(CONFIG_RETRY_SECONDS))
        return None

    async def _start(self, order: Order) -> None:
        state = self.state
        attempt = state.attempt + 1
        folder = self.attempt_folder(attempt)
        # An agent killed before it kept the attempt leaves a folder. Of older attempts the last stays, for its log.
        for old in (folder, self.attempt_folder(attempt - 2)):
            await asyncio.to_thread(shutil.rmtree, old, ignore_errors=True)
        self._failed.clear()
        (folder / "home").mkdir(parents=True)
        make_temporary_folder(folder)
        (folder / "termination").touch()
        self._event("Normal", "Created", "Container created")
        # All fields change together, so that no status shows half of them. They are kept before the process starts, so
        # that a later agent looks for it.
        state.attempt = attempt
        state.restarts = attempt - 1
        state.started = state.ready = False
        state.move(running={"startedAt": rfc3339(time.time())})
        self._owner.keep()
        process = await Process.start(folder, order)
        if process.error:
            await process.exited.wait()
            self._ended(process)
            return
        self._event("Normal", "Started", "Container started")
        if hook := self.spec.get("lifecycle", {}).get("postStart"):
            await first(process.exited.wait(), self._stopping.wait(), self._run_hook("PostStart", hook, process))
        await self._supervise(process)

    async def _supervise(self, process: Process) -> None:
        """Probe a process until it ends or has to end, and record its end."""
        state = self.state
        self._process = process
        self._kill_at = float("inf") if not self._stopping.is_set() else self._kill_at
        self._owner.changed()
        prober = Prober(self._target(process), self, began=process.began, started=state.started, ready=state.ready)
        probing = asyncio.create_task(prober.run())
        try:
            await first(process.exited.wait(), self._stopping.wait(), self._failed.wait())
        finally:
            probing.cancel()
        if not process.exited.is_set():
            await self._end(process)
        with contextlib.suppress(asyncio.CancelledError):
            await probing
        self._process = None
        self._ended(process)

    async def _end(self, process: Process) -> None:
        """Run preStop, send SIGTERM, then SIGKILL, within the grace period."""
        if self._failed.is_set() and not self._stopping.is_set():
            grace = self._failed_probe.get(
                "terminationGracePeriodSeconds", self._owner.pod["spec"].get("terminationGracePeriodSeconds", 30)
            )
            self._kill_at = time.time() + max(grace, LEAST_GRACE_SECONDS)
        else:
            self._event("Normal", "Killing", f"Stopping container {self.name}")
        hook = self.spec.get("lifecycle", {}).get("preStop")
        if hook and self._kill_at > time.time():
            await first(process.exited.wait(), self._kill_time(), self._run_hook("PreStop", hook, process))
            # Zero means no grace; otherwise the program gets a moment after its hook.
            if self._kill_at > 0:
                self._kill_at = max(self._kill_at, time.time() + LEAST_GRACE_SECONDS)
        if self._kill_at > time.time():
            process.signal(signal.SIGTERM)
            await first(process.exited.wait(), self._kill_time())
        process.kill()
        await process.exited.wait()

    async def _kill_time(self) -> None:
        while (left := self._kill_at - time.time()) > 0:
            self._kill_at_changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._kill_at_changed.wait(), None if left == float("inf") else left)

    async def _run_hook(self, kind: Literal["PostStart", "PreStop"], hook: Object, process: Process) -> None:
        if await run_hook(hook, self._target(process)):
            return
        self._event("Warning", f"Failed{kind}Hook", f"{kind}Hook failed")
        if kind == "PostStart":
            self._event("Normal", "Killing", "FailedPostStartHook")
            self._failed_probe = {}
            self._failed.set()

    def _ended(self, process: Process | None) -> None:
        """Note how the last attempt ended; None if a later agent finds nothing of it."""
        state = self.state
        folder = self.attempt_folder(state.attempt)
        end = read_exit(folder)
        ended = terminated(folder, self.spec, end, state.current.get("running", {}).get("startedAt", ""))
        ended["containerID"] = f"sandbox://{self._owner.pod['metadata']['uid']}/{self.name}/{state.attempt}"
        if end.error:
            self._event("Warning", "Failed", f"Error: {ended['message']}")
        ran = end.finished - (process.began if process else end.finished)
        # A kubelet forgets earlier ends of a container that ran for twice the longest back-off.
        state.failures = 1 if ran > 2 * self._tools.back_off_limit else state.failures + 1
        state.ended_at = end.finished
        state.started = state.ready = False
        state.move(terminated=ended)
        self._owner.changed()

    def on_started(self) -> None:
        """See `probes.Listener`."""
        self.state.started = True
        self.started.set()
        self._owner.changed()

    def on_ready(self, ready: bool) -> None:
        """See `probes.Listener`."""
        self.state.ready = ready
        self._owner.changed()

    def on_unhealthy(self, kind: Kind, message: str) -> None:
        """See `probes.Listener`."""
        self._event("Warning", "Unhealthy", message)

    def on_failed(self, kind: Kind, probe: Object) -> None:
        """See `probes.Listener`."""
        self._event("Normal", "Killing", f"Container {self.name} failed {kind.lower()} probe, will be restarted")
        self._failed_probe = probe
        self._failed.set()

    def _target(self, process: Process) -> Target:
        async def run(argv: Sequence[str], timeout: float | None) -> tuple[int | None, str]:  # noqa: ASYNC109 - passed on
            order = Order.load(process.folder)
            mounts = [Mount(path, host) for path, host in order.mounts]
            translate = Translator(mounts, self._owner.ip, self._tools.address_of)
            return await run_command(order, [translate(part) for part in argv], timeout)

        return Target(self.spec, self._owner.ip, run, self._tools.http)

    def _show_waiting(self, reason: str, message: str) -> None:
        self.state.move(waiting={"reason": reason, "message": message})
        self._owner.changed()

    async def _pause(self, seconds: float) -> None:
        """Wait, until it is stopped at the latest."""
        await first(self._stopping.wait(), asyncio.sleep(seconds))

    def _event(self, kind: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        self._tools.events.record(self._owner.pod, kind, reason, message, self._field_path)


async def first(*waits: Coroutine[Any, Any, object]) -> None:
    """Wait for the first of several coroutines, and cancel the others.

    Raises:
        Exception: The error of the first one.
    """
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


def _duration(seconds: float) -> str:
    """A duration as Go writes it: 10s, 2m40s, 500ms."""
    if seconds < 1:
        return f"{seconds * 1000:g}ms"
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}m{rest:g}s" if minutes else f"{rest:g}s"


def _repository(reference: str) -> str:
    """The repository of an image, without its host."""
    host, slash, rest = (name := reference.partition("@")[0]).partition("/")
    path = rest if slash and ("." in host or ":" in host or host == "localhost") else name
    *above, last = path.split("/")
    return "/".join((*above, last.partition(":")[0]))
