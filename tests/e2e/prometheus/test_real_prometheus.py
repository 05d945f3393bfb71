"""A real Prometheus scrapes the test's page, and answers a rollout's queries: by release, from a time on."""

from __future__ import annotations

import json
import math
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from llmops_sandbox.programs.prometheus import find_or_unpack

from llmops.clients.prometheus import Prometheus
from llmops.errors import MeasurementFailed
from llmops.evaluation.gates.live.queries import Subject
from llmops.evaluation.gates.live.samples import Samples
from llmops.rollout.ops.routing.scrapes import SETTLE_SECONDS, Scrapes

LABELS = 'namespace="llm",model="tiny",track="canary",release="{release}",pod="{pod}"'
ROUTE = 'handler="/v1/chat/completions",method="POST"'


@dataclass
class Page:
    """The scraped page: lines of metrics."""

    lines: dict[str, float] = field(default_factory=dict[str, float])

    def put(self, name: str, value: float, release: str = "new", pod: str = "a", more: str = "") -> None:
        labels = LABELS.format(release=release, pod=pod) + (f",{more}" if more else "")
        self.lines[f"{name}{{{labels}}}"] = value

    def answered(self, good: float, bad: float | None = None, *, release: str = "new", pod: str = "a") -> None:
        """The counts of an engine's HTTP server; the series of its failures begins with the first of them."""
        self.put("vllm:num_requests_running", 0, release, pod)
        self.put("http_requests_total", good, release, pod, f'{ROUTE},status="2xx"')
        if bad is not None:
            self.put("http_requests_total", bad, release, pod, f'{ROUTE},status="5xx"')


@dataclass
class World:
    """Prometheus and its page."""

    client: Prometheus
    page: Page

    def begun(self, release: str = "new") -> Scrapes:
        """A step that has had its first look, and whose counters have been scraped since."""
        scrapes = Scrapes(self.client, Subject("llm", "tiny", release, "canary"), None)
        time.sleep(SETTLE_SECONDS + 0.5)
        scrapes.look()
        time.sleep(0.5)
        self.seen(scrapes)
        return scrapes

    def seen(self, scrapes: Scrapes) -> Samples:
        """The growth by the last look, at a time when all is scraped."""
        time.sleep(SETTLE_SECONDS + 0.5)
        scrapes.look()
        return scrapes.samples.canary

    def scraped(self) -> None:
        """Wait until Prometheus has scraped the present page."""
        now = round(time.time(), 3)
        self.page.lines["marker"] = now
        until(lambda: any(sample.value == now for sample in self.client.query("marker")))


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Unpacked from Debian's package on first use; scrapes five times a second."""
    page = Page()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = "".join(f"{series} {value!r}\n" for series, value in dict(page.lines).items()).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    folder = tmp_path_factory.mktemp("prometheus")
    target = {"targets": [f"127.0.0.1:{server.server_port}"]}
    scrape = {"job_name": "page", "honor_labels": True, "static_configs": [target]}
    every = {"scrape_interval": "200ms", "scrape_timeout": "200ms"}
    (folder / "prometheus.yml").write_text(json.dumps({"global": every, "scrape_configs": [scrape]}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        str(find_or_unpack() / "prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stderr=log) as running:
        try:
            with Prometheus(f"http://127.0.0.1:{port}") as client:
                yield World(client, page)
        finally:
            running.terminate()
            running.wait(20)
            server.shutdown()
            server.server_close()
            thread.join()


def test_counts_are_of_this_release_alone_and_since_the_step_began(world: World) -> None:
    world.page.answered(1000, 500, release="old")
    world.page.answered(300)
    world.scraped()
    step, unknown = world.begun(), world.begun(release="unknown")
    world.page.answered(9000, 4000, release="old")
    world.page.answered(340)
    world.scraped()
    seen = world.seen(step)
    assert seen.scraped.keys() == {"a"}
    assert (seen.together.requests, seen.together.errors) == (40, 0)
    assert world.seen(unknown) == Samples()


def test_each_request_counts_once_however_often_one_looks(world: World) -> None:
    """`increase` extrapolates: in the first seconds of a step it counts requests that nobody sent."""
    world.page.answered(10, release="often")
    world.scraped()
    step = world.begun("often")
    for count in range(11, 16):
        world.page.answered(count, release="often")
        world.scraped()
        step.look()
    assert world.seen(step).together.requests == 5


def test_the_first_errors_of_all_count_though_their_series_begins_with_them(world: World) -> None:
    world.page.answered(100, release="first")
    world.scraped()
    step = world.begun("first")
    world.page.answered(100, 25, release="first")
    world.scraped()
    assert world.seen(step).together.errors == 25


def test_a_pod_that_comes_later_counts_from_zero(world: World) -> None:
    world.page.answered(100, release="grows")
    world.scraped()
    step = world.begun("grows")
    world.page.answered(7, 2, release="grows", pod="b")
    world.scraped()
    together = world.seen(step).together
    assert (together.requests, together.errors) == (9, 2)


def test_a_counter_that_starts_again_loses_nothing_and_gains_nothing(world: World) -> None:
    world.page.answered(5000, 10, release="reset")
    world.scraped()
    step = world.begun("reset")
    world.page.answered(7, 1, release="reset")
    world.scraped()
    together = world.seen(step).together
    assert (together.requests, together.errors) == (8, 1)


def test_a_gates_own_query_is_about_one_release(world: World) -> None:
    world.page.put("queue", 3, release="own")
    world.page.put("queue", 4, release="own", pod="b")
    world.page.put("queue", 9, release="old")
    world.page.answered(10, release="own")
    world.scraped()
    subject = Subject("llm", "tiny", "own", "canary")
    own = {"sum": "sum(queue{ {{ labels }} })", "each": "queue{ {{ labels }} }", "none": "nothing{ {{ labels }} }"}
    scrapes = Scrapes(world.client, subject, None, own)
    time.sleep(SETTLE_SECONDS + 0.5)
    scrapes.look()
    world.seen(scrapes)
    asked = scrapes.samples.asked
    assert (asked["sum"], sorted(asked["each"]), asked["none"]) == ((7,), [3, 4], ())
    refused = Scrapes(world.client, subject, None, {"wrong": "sum(queue{ {{ labels }} }) by by"})
    refused.look()
    with pytest.raises(MeasurementFailed, match="parse error"):
        world.seen(refused)


def test_no_number_and_no_promql_are_told_apart_from_no_data(world: World) -> None:
    [nothing] = world.client.query("0 / vector(0)")
    assert math.isnan(nothing.value)
    assert world.client.query("no_such_series") == []
    with pytest.raises(MeasurementFailed, match="parse error"):
        world.client.query("sum(")
    [series] = world.client.query_range("vector(2)", 1700000000, 1700000002, 1)
    assert series.points == ((1700000000.0, 2.0), (1700000001.0, 2.0), (1700000002.0, 2.0))
