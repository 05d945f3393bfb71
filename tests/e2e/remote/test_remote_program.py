"""The program of the evaluation Jobs, as a process, against engines that listen."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from llmops.config.catalog.spec import Evaluation, Gate
from llmops.evaluation.endpoint import Endpoint
from llmops.evaluation.evaluate import measure
from llmops.evaluation.reachability import serves, why_unreachable
from llmops.evaluation.remote.answer import Answer, read_answer
from llmops.evaluation.remote.ending import Ending
from llmops.evaluation.remote.order import Engine as Where
from llmops.evaluation.remote.order import Order, pack
from llmops.evaluation.suites import Case, LoadProfile, Suite
from tests.unit.evaluation.conftest import MODEL, Engine, serving

CASES = tuple(Case(id=f"c-{n}", prompt=f"say {n}", scorer="exact", expected=f"{n}", answer=f"{n}") for n in range(8))
SUMS = Suite(name="sums", kind="quality", cases=CASES, timeout_seconds=5)
LOAD = LoadProfile(name="load", kind="load", requests=4, concurrency=2, warmup_requests=0, timeout_seconds=5)


def command(folder: Path, order: Order) -> list[str | Path]:
    for name, content in pack(order):
        (folder / name).write_bytes(content)
    module = [sys.executable, "-m", "llmops.evaluation.remote"]
    return [*module, "--order", folder, "--termination-log", folder / "termination"]


def carry_out(folder: Path, order: Order, env: Mapping[str, str] | None = None) -> tuple[Ending, str]:
    """Exit code and output of the program."""
    done = subprocess.run(
        command(folder, order), env={**os.environ, **(env or {})}, capture_output=True, text=True, timeout=60
    )
    ending = Ending.model_validate_json((folder / "termination").read_text())
    assert done.returncode == ending.exit_code, done.stderr
    return ending, done.stdout


def answer(ending: Ending, log: str) -> Answer:
    assert ending.seal is not None, ending
    return read_answer(log, ending.seal)


def half_right(prompt: str) -> str:
    number = prompt.rpartition(" ")[2]
    return number if number in "0246" else "no idea"


def where(endpoint: Endpoint, **more: Any) -> Where:
    return Where(base_url=endpoint.base_url, model=endpoint.model, **more)


def test_it_measures_what_is_measured_here(tmp_path: Path) -> None:
    with serving(Engine(answers=half_right)) as endpoint:
        order = Order(task="measure", engine=where(endpoint), suites=(SUMS, LOAD), evaluation=Evaluation(concurrency=2))
        ending, log = carry_out(tmp_path, order)
        (there,) = answer(ending, log).measurements
        here = measure(endpoint, (SUMS, LOAD), 2)
    assert there.scores == here.scores
    assert there.figures["sums/score"] == here.figures["sums/score"] == 0.5
    assert there.figures.keys() == here.figures.keys()
    assert (there.suites, there.wrong, there.cases) == (here.suites, here.wrong, here.cases)
    assert "sums: 8 of 8 requests" in log


def test_it_compares_two_engines_each_with_its_key(tmp_path: Path) -> None:
    ours, theirs = Engine(answers=half_right), Engine(answers=lambda prompt: prompt.rpartition(" ")[2])
    with serving(ours) as canary, serving(theirs) as stable:
        order = Order(
            task="compare",
            engine=where(canary, key_variable="ONE"),
            other=where(stable, key_variable="OTHER"),
            suites=(SUMS,),
            evaluation=Evaluation(suites=("sums",), gates=(Gate(metric="sums/score", max_drop=0.6),)),
        )
        ending, log = carry_out(tmp_path, order, {"ONE": "first-secret", "OTHER": "second-secret"})
    one, other = answer(ending, log).measurements
    assert (one.figures["sums/score"], other.figures["sums/score"]) == (0.5, 1.0)
    assert (ours.keys, theirs.keys) == ({"Bearer first-secret"}, {"Bearer second-secret"})
    assert "secret" not in log + ending.model_dump_json()


def test_it_proves_an_engine(tmp_path: Path) -> None:
    with serving(Engine(answers=lambda _: "I am ready")) as endpoint:
        ending, log = carry_out(tmp_path, Order(task="prove", engine=where(endpoint), seconds=5))
    assert answer(ending, log).text == "I am ready"


def test_it_watches_an_engine(tmp_path: Path) -> None:
    engine = Engine()
    with serving(engine) as endpoint:
        ending, log = carry_out(tmp_path, Order(task="watch", engine=where(endpoint), seconds=1.5))
    assert ending.exit_code == 0
    assert len(engine.asked) >= 4
    assert log.count('"asking"') > len(engine.asked)


def error(_: int) -> web.Response:
    return web.json_response({"error": "out of order"}, status=500)


def later(_: int) -> web.Response:
    return web.json_response({"error": "later"}, status=429)


def refused(_: int) -> web.Response:
    return web.json_response({"error": "who are you"}, status=401)


@pytest.mark.parametrize(
    ("task", "reply", "code"), [("prove", error, 3), ("watch", error, 3), ("prove", later, 6), ("measure", refused, 6)]
)
def test_its_exit_code_says_whose_fault_it_was(tmp_path: Path, task: Any, reply: Any, code: int) -> None:
    with serving(Engine(reply=reply)) as endpoint:
        order = Order(task=task, engine=where(endpoint), suites=(SUMS,), seconds=0)
        ending, _ = carry_out(tmp_path, order)
    assert ending.exit_code == code, ending
    assert ending.message


def test_an_order_that_is_not_whole_is_told(tmp_path: Path) -> None:
    arguments = command(tmp_path, Order(task="prove", engine=Where(base_url="http://127.0.0.1:1", model=MODEL)))
    for part in tmp_path.glob("order-*"):
        part.write_bytes(part.read_bytes()[:-5])
    assert subprocess.run(arguments, capture_output=True, timeout=30).returncode == 2
    assert "cut off" in (tmp_path / "termination").read_text()


def test_it_ends_at_once_when_it_is_told_to(tmp_path: Path) -> None:
    """In a container the program is process 1, for which SIGTERM has no default action."""
    engine = Engine(first_seconds=60)
    with serving(engine) as endpoint:
        process = subprocess.Popen(command(tmp_path, Order(task="prove", engine=where(endpoint), seconds=60)))
        try:
            deadline = time.monotonic() + 20
            while not engine.running and time.monotonic() < deadline:
                time.sleep(0.02)
            process.send_signal(signal.SIGTERM)
            assert process.wait(5) == 143
        finally:
            process.kill()
            process.wait()


def test_it_brings_nothing_of_the_orchestrator() -> None:
    code = "import sys, llmops.evaluation.remote.__main__; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert not {"dagster", "kubernetes", "huggingface_hub", "matplotlib", "scipy"} & set(done.stdout.split())


CARD = {"id": "tiny", "root": "/models/weights/tiny/key"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"data": [CARD]}, True),
        ({"data": [{**CARD, "id": "other"}, {**CARD, "root": "/models/weights/tiny/key/"}]}, True),
        ({"data": [{**CARD, "id": "other"}]}, False),
        # The same model of another cluster, at another commit.
        ({"data": [{**CARD, "root": "/models/weights/tiny/other"}]}, False),
        ({"data": [{"id": "tiny", "root": None}]}, False),
        ({"data": []}, False),
        (["router"], False),
    ],
)
def test_a_sure_sign_of_an_engine_is_name_and_weights(content: Any, says: bool) -> None:
    assert serves(json.dumps(content).encode(), "tiny", "weights/tiny/key") is says


def test_an_engine_is_reached_only_if_it_says_what_it_serves(tmp_path: Path) -> None:
    with serving(Engine()) as endpoint:
        # The server there answers, but is no engine of this model.
        why = why_unreachable(endpoint, "weights/tiny/key", patience=0)
    assert "HTTP 404" in str(why)
