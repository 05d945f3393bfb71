"""Runs of `llmops` that are killed at a chosen point, and what is seen of a cluster meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, TextIO

import aiohttp

from llmops.config import names
from llmops.config.settings import SETTINGS_VARIABLE
from tests.support.world import MANY_GPUS, Model

# Each run is a process of its own, forked from one that has imported everything: imports cost seconds of CPU.
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


@dataclass(frozen=True)
class Point:
    """Where a run is hit.

    `before` is a pattern for a request to the API server, `METHOD /path body`: the signal comes instead of it. `line`
    is one for a line of the run's log: the signal comes right after it. `{model}` in either is the model's name.
    `world` is asked by the test, on and on while the run goes on: the signal comes when it is true, whereupon `also`
    is done to the world.
    """

    name: str
    before: str = ""
    line: str = ""
    nth: int = 1
    world: Callable[[Model], bool] | None = None
    also: Callable[[Model], None] | None = None
    signal: signal.Signals = signal.SIGKILL


class Run:
    """One run of `llmops rollout` in a process, and a process group, of its own."""

    def __init__(self, model: Model, log: Path, point: Point | None = None, *options: str) -> None:
        self.model = model
        self.log = log
        self.point = point
        hit = ""
        if point is not None:
            hit = (point.before or point.line).replace("{model}", re.escape(model.name))
        order = (str(model.settings_file), str(log), ["rollout", model.name, *options])
        armed = (hit, bool(point and point.before), point.nth, point.signal) if point and hit else None
        self._process = _FORKS.Process(target=_run, args=(*order, armed))
        self._process.start()

    @property
    def text(self) -> str:
        """What it wrote so far."""
        return self.log.read_text() if self.log.exists() else ""

    def send(self, number: signal.Signals) -> None:
        """Signal the process."""
        assert self._process.pid is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, number)

    def wait(self, timeout: float = 300) -> int:
        """How it ended: its exit code, or the signal's number, negative."""
        deadline = time.monotonic() + timeout
        point = self.point
        if point is not None and point.world is not None:
            while self._process.is_alive() and time.monotonic() < deadline:
                if point.world(self.model):
                    self.send(point.signal)
                    break
                time.sleep(0.005)
        self._process.join(max(0.0, deadline - time.monotonic()))
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
            raise AssertionError(f"the run did not end within {timeout:.0f} s:\n{self.text}")
        if point is not None and point.also is not None:
            point.also(self.model)
        return self._process.exitcode

    def waited_for_lease(self) -> float:
        """Seconds for which it waited for the lease of a run before it."""
        stamps = [
            (float(found[1]), "holds the lease" in line)
            for line in self.text.splitlines()
            if (found := re.match(r" *([\d.]+)s ", line))
        ]
        return max((then - now for (now, waits), (then, _) in pairwise(stamps) if waits), default=0)


def _run(settings: str, log: str, arguments: list[str], armed: tuple[str, bool, int, signal.Signals] | None) -> None:
    """In the process of a run."""
    os.setpgid(0, 0)
    # The process that it is forked from ignores it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ[SETTINGS_VARIABLE] = settings
    os.environ.pop("DAGSTER_HOME", None)
    if armed is not None:
        pattern, requests, nth, number = armed
        hit = _Hit(re.compile(pattern), nth, number)
        if requests:
            sys.addaudithook(_Requests(hit))
        else:
            sys.stderr = _Lines(sys.stderr, hit)
    from llmops.cli import main

    main(arguments)


class _Hit:
    def __init__(self, pattern: re.Pattern[str], nth: int, number: signal.Signals) -> None:
        self._pattern, self._left, self._number = pattern, nth, number

    def see(self, text: str) -> None:
        if self._pattern.search(text):
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), self._number)


class _Requests:
    """Python tells of each piece of an HTTP request before it is sent: the head, and then the body."""

    def __init__(self, hit: _Hit) -> None:
        self._hit = hit
        self._heads: dict[int, str] = {}

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if event != "http.client.send":
            return
        connection, data = args
        text = bytes(data).decode(errors="replace")
        head = re.match(r"([A-Z]+ \S+) HTTP/1.1\r\n", text)
        if head:
            self._heads[id(connection)] = head[1]
            if not re.search(r"\r\nContent-Length: [1-9]", text, re.IGNORECASE):
                self._hit.see(head[1])
        else:
            self._hit.see(f"{self._heads.get(id(connection), '')} {text}")


class _Lines:
    def __init__(self, stream: TextIO, hit: _Hit) -> None:
        self._stream, self._hit = stream, hit

    def write(self, text: str) -> int:
        written = self._stream.write(text)
        self._stream.flush()
        self._hit.see(text)
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@dataclass
class Seen:
    """Every object of the models that was there at any time: uids by kind and name; of pods, by what owns them."""

    uids: dict[tuple[str, str], set[str]] = field(default_factory=lambda: defaultdict[tuple[str, str], set[str]](set))

    def of(self, kind: str, name: str) -> set[str]:
        return self.uids[kind, name]

    def names(self, kind: str, model: str) -> set[str]:
        return {name for found, name in self.uids if found == kind and name.startswith(model)}


@contextmanager
def every_object(model: Model) -> Generator[Seen]:
    """Note the uid of every Job and Deployment in the model's namespace, and of the engines' pods."""
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
    """Asks the main Services of models for completions, all the time, and notes what fails.

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
        # What was cancelled comes to its end in one more turn of the loop.
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0.1), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def ask(self, model: Model) -> None:
        """Begin to ask a model."""
        url = model.cluster.endpoint(names.engine_name(model.name, "stable"), names.ENGINE_PORT)
        self._tasks.append(asyncio.run_coroutine_threadsafe(self._ask(model.name, url), self._loop))

    async def _ask(self, model: str, url: str) -> None:
        body = {"model": model, "prompt": "What is 1 + 10?", "max_tokens": 8, "temperature": 0}
        # As new users come: a connection each.
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
            for each in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    if each.readlink().name == file:
                        return True
    return False


def _processes() -> Generator[tuple[int, str]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                yield int(entry.name), (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")


def few_cases(model: Model, **changes: Any) -> None:
    """Declare the model with a dozen cases and no load, where measuring is not what a test is about."""
    cases = (model.evals / "sums.jsonl").read_text().splitlines()[:12]
    (model.evals / "sums.jsonl").write_text("".join(f"{case}\n" for case in cases))
    gates = [{"metric": "sums/score", "min": 0.5}, {"metric": "sums/score", "max_drop": 0.9}]
    model.declare(
        **{"gpu": {"product": MANY_GPUS, "count": 1}, "evaluation": {"suites": ["sums"], "gates": gates}, **changes}
    )


def log_names(folder: Path) -> Callable[[], Path]:
    """Paths for the logs of runs, one after the other."""
    count = iter(range(1, 1000))
    return lambda: folder / f"run-{next(count)}.log"
