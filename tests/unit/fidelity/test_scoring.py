"""Two engines that really listen score texts: how many, with which alternatives, and who gives nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from llmops.config.catalog.spec import Evaluation, Gate
from llmops.errors import MeasurementFailed
from llmops.evaluation.endpoint import Endpoint
from llmops.evaluation.evaluate import compare
from llmops.evaluation.fidelity.distances import Distances
from llmops.evaluation.fidelity.reference import reference
from llmops.evaluation.fidelity.scores import Position
from llmops.evaluation.fidelity.tokens import Text
from llmops.evaluation.runners.attempts import ATTEMPTS, IN_A_ROW
from llmops.evaluation.runners.fidelity import LEAST_TOP, recognize
from llmops.evaluation.suites import FidelitySuite, Suite

ANSWER = (65, 66, 67)
FIDELITY = FidelitySuite(name="same", kind="fidelity")


def quality(cases: int = 20) -> Suite:
    listed = [
        {"id": f"c{number}", "prompt": "long" * 50 if number == 0 else "short", "expected": "ABC", "answer": "ABC"}
        for number in range(cases)
    ]
    return Suite.model_validate(
        {"kind": "quality", "name": "q", "cases": [{"scorer": "exact", **case} for case in listed]}
    )


@dataclass
class Engine:
    """An engine whose tokens are characters, each as probable as the other.

    Args:
        ids: Whether it gives token ids with its answers.
        longest: Tokens of the longest text that it reads, with the one that it would write.
        busy: Requests to score that it answers with status 429, counted from 1.
        off: How far its scores are from another's, in nats.
        alternatives: The alternatives asked for, by request to score.
    """

    ids: bool = True
    longest: int = 10_000
    busy: Collection[int] = ()
    off: float = 0.0
    alternatives: list[int] = field(default_factory=list[int])

    def chat(self, body: Any) -> tuple[int, Any]:
        logprobs = {"content": [{"token": chr(token), "logprob": -0.5} for token in ANSWER]}
        message = {"role": "assistant", "content": "ABC"}
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "message": message, "logprobs": logprobs}
        prompt = [ord(character) for character in body["messages"][-1]["content"]]
        if self.ids:
            choice["token_ids"] = ANSWER
        return 200, {"choices": [choice]} | ({"prompt_token_ids": prompt} if self.ids else {})

    def score(self, body: Any) -> tuple[int, Any]:
        self.alternatives.append(body["prompt_logprobs"])
        if len(self.alternatives) in self.busy:
            return 429, {"error": {"message": "busy"}}
        if len(body["prompt"]) + 1 > self.longest:
            return 400, {"error": {"message": "too long"}}
        scores = [
            {str(token): {"logprob": -0.5 - self.off, "rank": 1, "decoded_token": "x"}} for token in body["prompt"]
        ]
        return 200, {"choices": [{"prompt_logprobs": [None, *scores[1:]]}]}


@contextmanager
def listening(engine: Engine) -> Generator[Endpoint]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, content = engine.chat(body) if self.path.endswith("/chat/completions") else engine.score(body)
            answer = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield Endpoint(f"http://127.0.0.1:{server.server_port}", "tiny")
        server.shutdown()
        thread.join()


def measured(canary: Engine, stable: Engine, *gates: Gate, cases: int = 20, concurrency: int = 1) -> Distances:
    rules = Evaluation(suites=("q", "same"), gates=gates)
    with listening(canary) as ours, listening(stable) as theirs:
        one, _ = compare(ours, theirs, [quality(cases), FIDELITY], concurrency, rules=rules)
    return one.distances["same"]


JUDGED = Gate(metric="same", max_divergence="auto")


@pytest.mark.parametrize(
    ("gates", "asked"),
    [
        ((JUDGED,), 5),  # the first look rejects
        ((), 20),
        ((Gate(metric="same", max_divergence="auto", dry=True),), 20),
        ((JUDGED, Gate(metric="same/same_token_share", min=0.5)), 20),
    ],
)
def test_only_a_binding_question_ends_the_measurement_early(gates: tuple[Gate, ...], asked: int) -> None:
    found = measured(Engine(off=1.0), Engine(), *gates)
    assert (found.asked, found.left) == (asked, 20 - asked)


def test_the_same_model_is_asked_all_texts() -> None:
    found = measured(Engine(), Engine(), JUDGED)
    assert (found.asked, found.left) == (20, 0)


def test_a_suite_of_a_few_cases_is_measured_until_they_are_enough() -> None:
    found = measured(Engine(off=1.0), Engine(), JUDGED, cases=8)
    assert (found.asked, len(found.cases)) == (4, 4)  # after the first look there are 2


def test_a_text_that_is_refused_leaves_the_others_their_alternatives() -> None:
    canary = Engine(longest=100)
    found = measured(canary, Engine())
    assert (found.asked, len(found.cases)) == (20, 19)
    assert canary.alternatives.count(LEAST_TOP) == 1
    assert canary.alternatives.count(FIDELITY.top) == 20


@pytest.mark.parametrize(
    ("canary", "stable", "who"), [(Engine(ids=False), Engine(), "the canary"), (Engine(), Engine(ids=False), "stable")]
)
def test_the_engine_that_gives_no_token_ids_is_named(canary: Engine, stable: Engine, who: str) -> None:
    assert measured(canary, stable, JUDGED).unavailable == f"{who} gives its answers without token ids"


def test_a_text_for_which_stable_has_no_time_is_left_out() -> None:
    found = measured(Engine(), Engine(busy=range(3, 3 + ATTEMPTS)))
    assert (found.asked, len(found.cases)) == (20, 19)


def test_a_stable_that_has_no_time_at_all_ends_the_measurement() -> None:
    with pytest.raises(MeasurementFailed, match=f"{IN_A_ROW} texts in a row could not be scored; the last: HTTP 429"):
        measured(Engine(), Engine(busy=range(1, 1000)), cases=IN_A_ROW, concurrency=IN_A_ROW)


def test_no_engine_is_asked_for_no_alternatives() -> None:
    # vLLM dies of such a request with --kv-sharing-fast-prefill, after it refuses one for more.
    refusing = Engine(longest=0)
    assert "HTTP 400" in measured(refusing, Engine(), JUDGED).unavailable
    assert refusing.alternatives.count(FIDELITY.top) == refusing.alternatives.count(LEAST_TOP) > 0
    assert min(refusing.alternatives) > 0
    text = Text("q/one", (1,), (2,))
    kept = reference("same", [text], {"q/one": [Position(-0.5, 2, {2: -0.5}, "x")]})
    assert kept is not None
    later = Engine()
    with listening(later) as endpoint:
        assert recognize(endpoint, kept, 1).unavailable == ""
    assert min(later.alternatives) > 0
