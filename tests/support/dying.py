"""Runs of `llmops` that a test kills at a chosen point, and watchers of the cluster meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp

from llmops.config import names
from llmops.config.settings import SETTINGS_VARIABLE
from llmops.config.steps import STEP_EVENT, WRITE_EVENT, Step
from tests.support.world import MANY_GPUS, Model

# A fork server imports everything once and forks each run: imports cost seconds of CPU.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        "anyio._backends._asyncio",
        "dagster._core.storage.event_log",
        "dagster._daemon.controller",
        "huggingface_hub.hf_api",
        "kubernetes.client",
        "llmops.cli.app",
        "llmops.cli.rollouts",
        "llmops.definitions",
        "llmops.evaluation.evaluate",
        "matplotlib.backends.backend_agg",
        "openai.resources.chat",
        "scipy.stats",
        "sqlalchemy.dialects.sqlite",
    ]
)
# Starting a process polls all others. If two threads poll an ended process, one of them gets no exit code.
_POLLING = threading.Lock()


@dataclass(frozen=True)
class Write:
    """A write to the cluster. `{model}` in the name is the model's name.

    Args:
        kind: Kind of the object.
        name: Its name; None is any.
        verb: create, apply, patch or delete; None is any.
        data: A key of a ConfigMap's data that the write sets.
    """

    kind: str
    name: str | None = None
    verb: str | None = None
    data: str | None = None

    def matches(self, model: str, verb: str, kind: str, name: str | None, body: Any) -> bool:
        wanted = self.name.replace("{model}", model) if self.name else None
        return (
            kind == self.kind
            and wanted in (None, name)
            and self.verb in (None, verb)
            and (self.data is None or bool(((body or {}).get("data") or {}).get(self.data)))
        )


@dataclass(frozen=True)
class Point:
    """Where a run gets a signal.

    Args:
        name: Name of the point.
        step: Signal the run right after this step.
        about: The details that the step must come with.
        before: Signal the run instead of this write.
        nth: The first, second, ... such step or write.
        world: Signal the run as soon as this is true; the test's process asks while the run goes on.
        also: Call this after the signal.
        signal: Number of the signal.
    """

    name: str
    step: Step | None = None
    about: tuple[str | int, ...] = ()
    before: Write | None = None
    nth: int = 1
    world: Callable[[Model], bool] | None = None
    also: Callable[[Model], None] | None = None
    signal: signal.Signals = signal.SIGKILL


@dataclass(frozen=True)
class Reached:
    """A step that a run has reached.

    Args:
        at: Time on the monotonic clock.
        step: The step.
        about: Its details.
    """

    at: float
    step: Step
    about: tuple[str | int, ...]


class Run:
    """One run of `llmops rollout`, or of another command, in its own process and process group."""

    def __init__(
        self, model: Model, log: Path, point: Point | None = None, *options: str, command: str = "rollout"
    ) -> None:
        self.model = model
        self.log = log
        self.point = point
        self._steps_file = log.with_name(f"{log.name}.steps")
        # Without fields that only this process needs: a test's functions cannot be pickled.
        armed = replace(point, world=None, also=None) if point else None
        order = (str(model.settings_file), str(log), str(self._steps_file), command, model.name, options, armed)
        self._process = _FORKS.Process(target=_run, args=order)
        with _POLLING:
            self._process.start()

    @property
    def text(self) -> str:
        """Its log so far."""
        return self.log.read_text() if self.log.exists() else ""

    @property
    def steps(self) -> list[Reached]:
        """The steps that it has reached so far."""
        lines = self._steps_file.read_text().splitlines() if self._steps_file.exists() else []
        entries = [json.loads(line) for line in lines]
        return [Reached(at, Step(step), tuple(about)) for at, step, *about in entries]

    def reached(self, step: Step) -> bool:
        """Whether it has reached the step."""
        return any(entry.step == step for entry in self.steps)

    @property
    def ended(self) -> bool:
        """Whether the process has ended."""
        return self._exit_code() is not None

    def send(self, number: signal.Signals) -> None:
        """Signal the process."""
        assert self._process.pid is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, number)

    def wait(self, timeout: float = 300) -> int:
        """Wait for its end; its exit code, or the signal's number, negative."""
        deadline = time.monotonic() + timeout
        point = self.point
        world = point.world if point is not None else None
        while (code := self._exit_code()) is None and time.monotonic() < deadline:
            if point is not None and world is not None and world(self.model):
                self.send(point.signal)
                world = None
            time.sleep(0.005 if world is not None else 0.05)
        if code is None:
            self._process.kill()
            raise AssertionError(f"the run did not end within {timeout:.0f} s:\n{self.text}")
        if point is not None and point.also is not None:
            point.also(self.model)
        return code

    def _exit_code(self) -> int | None:
        with _POLLING:
            return self._process.exitcode

    def waited_for_lease(self) -> float:
        """Seconds that it waited for the lease of another run."""
        return max(
            (
                after.at - before.at
                for before, after in pairwise(self.steps)
                if before.step == Step.LEASE_AWAITED and after.step == Step.LEASE_ACQUIRED
            ),
            default=0,
        )


def _run(
    settings: str, log: str, steps: str, command: str, model: str, options: tuple[str, ...], point: Point | None
) -> None:
    """In the process of a run."""
    os.setpgid(0, 0)
    # The fork server ignores SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ[SETTINGS_VARIABLE] = settings
    os.environ.pop("DAGSTER_HOME", None)
    sys.addaudithook(_Listener(model, steps, point))
    from llmops.cli import main

    main([command, model, *options])


class _Listener:
    """Notes each step of the run, and signals the run at its point."""

    def __init__(self, model: str, steps: str, point: Point | None) -> None:
        self._model = model
        self._steps = os.open(steps, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._point = point
        self._left = point.nth if point else 0

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        point = self._point
        if event == STEP_EVENT:
            step, *about = args
            os.write(self._steps, f"{json.dumps([time.monotonic(), step, *about])}\n".encode())
            if point and point.step == step and point.about == tuple(about[: len(point.about)]):
                self._hit(point)
        elif event == WRITE_EVENT and point and point.before and point.before.matches(self._model, *args):
            self._hit(point)

    def _hit(self, point: Point) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), point.signal)


@dataclass
class Seen:
    """Every object of the models that ever existed: uids by kind and name; of pods, by model, track and release."""

    uids: dict[tuple[str, str], set[str]] = field(default_factory=lambda: defaultdict[tuple[str, str], set[str]](set))

    def of(self, kind: str, name: str) -> set[str]:
        return self.uids[kind, name]

    def names(self, kind: str, model: str) -> set[str]:
        return {name for its_kind, name in self.uids if its_kind == kind and name.startswith(model)}


@contextmanager
def every_object(model: Model) -> Generator[Seen]:
    """Watch the uids of all Jobs and Deployments in the model's namespace, and of the engines' pods."""
    seen = Seen()
    cluster = model.cluster
    watches = {kind: cluster.open_watch(kind, timeout=600) for kind in ("Job", "Deployment", "Pod")}

    def look(kind: str) -> None:
        for event in watches[kind]:
            if event.type == "SYNCED":
                continue
            meta: dict[str, Any] = event.object["metadata"]
            labels: dict[str, str] = meta.get("labels") or {}
            name = str(meta["name"])
            if kind == "Pod":
                if names.TRACK_LABEL not in labels:
                    continue
                name = f"{labels[names.MODEL_LABEL]}/{labels[names.TRACK_LABEL]}/{labels[names.RELEASE_LABEL]}"
            seen.uids[kind, name].add(str(meta["uid"]))

    threads = [threading.Thread(target=look, args=(kind,), daemon=True) for kind in watches]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        for watch in watches.values():
            watch.close()
        for thread in threads:
            thread.join(10)


class Users:
    """Users who request completions from the main Services of models, again and again.

    Args:
        every: Seconds between two requests to a model.
    """

    def __init__(self, every: float = 0.2) -> None:
        self.answered: dict[str, int] = defaultdict(int)
        self.failed: dict[str, list[str]] = defaultdict(list)
        self._every = every
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._tasks: list[Any] = []

    def __enter__(self) -> Users:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        # The cancelled tasks end in one more turn of the loop.
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0.1), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def ask(self, model: Model) -> None:
        """Start a user of a model."""
        url = model.cluster.endpoint(names.engine_name(model.name, "stable"), names.ENGINE_PORT)
        self._tasks.append(asyncio.run_coroutine_threadsafe(self._ask(model.name, url), self._loop))

    async def _ask(self, model: str, url: str) -> None:
        body = {"model": model, "prompt": "What is 1 + 10?", "max_tokens": 8, "temperature": 0}
        # A connection for each request, as from new users.
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(30)) as session:
            while True:
                began = time.time()
                try:
                    async with session.post(f"{url}/v1/completions", json=body) as answer:
                        content = await answer.json()
                        if answer.status == 200 and content["choices"][0]["text"].strip():
                            self.answered[model] += 1
                        else:
                            self.failed[model].append(f"{began:.2f}: HTTP {answer.status}: {content}")
                except (aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError) as error:
                    self.failed[model].append(f"{began:.2f}: after {time.time() - began:.2f} s: {error!r}")
                await asyncio.sleep(self._every)


def workers_of(model: Model) -> list[int]:
    """Processes of the model's Jobs."""
    return [
        pid
        for pid, command in _processes()
        if "llmops.worker" in command and f"/{model.name}/" in command and "shim.py" not in command
    ]


def kill_workers(model: Model) -> None:
    for pid in workers_of(model):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def maps(pids: Iterable[int], file: str) -> bool:
    """Whether one of the processes has a file of this name mapped or open."""
    for pid in pids:
        with contextlib.suppress(OSError):
            if file in Path(f"/proc/{pid}/maps").read_text():
                return True
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    if descriptor.readlink().name == file:
                        return True
    return False


def _processes() -> Generator[tuple[int, str]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                yield int(entry.name), (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")


def few_cases(model: Model, **changes: Any) -> None:
    """Declare the model with a dozen cases and no load, for tests that are not about measurements."""
    cases = (model.evals / "sums.jsonl").read_text().splitlines()[:12]
    (model.evals / "sums.jsonl").write_text("".join(f"{case}\n" for case in cases))
    gates = [{"metric": "sums/score", "min": 0.5}, {"metric": "sums/score", "max_drop": 0.9}]
    model.declare(
        **{"gpu": {"product": MANY_GPUS, "count": 1}, "evaluation": {"suites": ["sums"], "gates": gates}, **changes}
    )


def log_names(folder: Path) -> Callable[[], Path]:
    """Paths for the logs of consecutive runs."""
    count = iter(range(1, 1000))
    return lambda: folder / f"run-{next(count)}.log"
