"""The runner on servers that really listen: what no answer means, and what a bad answer means."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from llmops.config.catalog.spec import Evaluation, Gate
from llmops.errors import MeasurementFailed
from llmops.evaluation.endpoint import Endpoint
from llmops.evaluation.evaluate import compare
from llmops.evaluation.gates.offline import asking, decide
from llmops.evaluation.protocol.conformance import Judgement, Outcome
from llmops.evaluation.runners.protocol import ProtocolResult, majority, run_protocol
from llmops.evaluation.suites import ProtocolSuite, Suite
from tests.unit.evaluation.conftest import serving
from tests.unit.protocol.conftest import body, chunk, usage

SUITE = ProtocolSuite(name="protocol", kind="protocol", topics=("chat", "usage", "turns", "errors"), timeout_seconds=5)
STREAMS = ProtocolSuite(name="protocol", kind="protocol", topics=("stream", "text"), timeout_seconds=5)
Answering = Callable[[int, dict[str, Any]], web.Response | None]
Start = Callable[..., Endpoint]
ERROR = {"error": {"message": "no", "type": "BadRequestError", "param": None, "code": 400}}


def answer(content: dict[str, Any]) -> web.Response:
    """What a good engine says to a request that is not streamed."""
    messages = content.get("messages")
    if not isinstance(messages, list) or content["temperature"] < 0 or content.get("max_tokens", 1) < 1:
        return web.json_response(ERROR, status=400)
    if content["model"] != "tiny":
        return web.json_response(ERROR, status=404)
    if "tool_choice" in content:
        return web.json_response(ERROR, status=400)
    said = " ".join(str(message["content"]) for message in messages)
    words = len(said.split())
    counts = {"prompt_tokens": words, "completion_tokens": 3, "total_tokens": words + 3}
    return web.json_response(body(said) | {"usage": counts})


@dataclass
class Server:
    """An engine that answers by `answer`, unless `instead` has another reply to the request of that number."""

    instead: Answering = lambda number, content: None
    pieces: Callable[[bytes], list[bytes]] = lambda content: [content]
    asked: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    async def handle(self, request: web.Request) -> web.StreamResponse:
        content = await request.json()
        self.asked.append(content)
        if (reply := self.instead(len(self.asked), content)) is not None:
            return reply
        if not content.get("stream") or "messages" not in content or content["temperature"] < 0:
            return answer(content)
        return await self._stream(request, content)

    async def _stream(self, request: web.Request, content: dict[str, Any]) -> web.StreamResponse:
        whole = json.loads(answer(content).body or b"")  # pyright: ignore[reportArgumentType] -- bytes
        text = whole["choices"][0]["message"]["content"]
        events = [
            chunk(role="assistant", content=""),
            *(chunk(content=part) for part in text),
            chunk("stop"),
            usage(**{name.removesuffix("_tokens"): count for name, count in whole["usage"].items()}),
        ]
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        lines = "".join(f"data: {json.dumps(event, ensure_ascii=False)}\n\n" for event in events)
        for piece in self.pieces(f"{lines}data: [DONE]\n\n".encode()):
            await response.write(piece)
            await asyncio.sleep(0)
        await response.write_eof()
        return response


@pytest.fixture
def start() -> Iterator[Start]:
    with ExitStack() as stack:

        def starter(server: Server) -> Endpoint:
            return stack.enter_context(serving(server))  # pyright: ignore[reportArgumentType] -- it has the same handle

        yield starter


def ask(canary: Endpoint, stable: Endpoint | None = None, **fields: Any) -> tuple[ProtocolResult, dict[str, str]]:
    """The canary's result, and its findings with what came."""
    ours, _ = run_protocol(canary, stable, fields.pop("suite", SUITE), 4, **fields)
    return ours, {one.check: one.came for one in (ours.conformance.findings if ours.conformance else ())}


def test_two_good_engines_have_no_findings(start: Start) -> None:
    ours, findings = ask(start(Server()), start(Server()))
    assert (findings, ours.figures()["error_rate"]) == ({}, 0)
    assert ours.conformance is not None
    assert ours.conformance.deviations == ()
    assert ours.figures() == {"error_rate": 0, "checks": 14, "passed": 14, "findings": 0}


def test_a_fault_is_named_with_request_and_answer(start: Start) -> None:
    def wrong(_: int, content: dict[str, Any]) -> web.Response | None:
        return web.json_response(body() | {"usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 1}})

    canary, stable = Server(wrong), Server()
    ours, findings = ask(start(canary), start(stable), suite=SUITE.model_copy(update={"topics": ("usage",)}))
    assert ours.conformance is not None
    assert set(findings) == {"usage.sum", "usage.prompt"}
    first = ours.conformance.findings[0].words
    assert first == (
        "usage.sum: asked 'Say hello.' with max_tokens=32, temperature=0, came Usage(prompt=1, completion=1, total=1); "
        "the API says: prompt and completion tokens add up to the total"
    )


def test_what_stable_does_too_rejects_only_if_the_entry_requires_it(start: Start) -> None:
    def broken(_: int, content: dict[str, Any]) -> web.Response | None:
        return web.json_response(body() | {"usage": None}) if "messages" in content else None

    canary, stable = start(Server(broken)), start(Server(broken))
    _, findings = ask(canary, stable, suite=SUITE.model_copy(update={"topics": ("usage",)}))
    assert findings == {}
    for beside in (stable, None):
        suite = SUITE.model_copy(update={"topics": ("usage",)})
        _, findings = ask(canary, beside, suite=suite, required=("usage",))
        assert set(findings) == {"usage.sum", "usage.prompt"}


def test_one_bad_answer_of_three_is_no_finding(start: Start) -> None:
    failed: set[str] = set()

    def once(_: int, content: dict[str, Any]) -> web.Response | None:
        key = json.dumps(content)
        if key in failed or "messages" not in content:
            return None
        failed.add(key)
        return web.json_response(body("", usage=None) | {"usage": None})

    _, findings = ask(
        start(Server(once)), start(Server()), suite=SUITE.model_copy(update={"topics": ("chat", "usage")})
    )
    assert findings == {}


def test_a_server_error_on_one_kind_of_request_is_a_finding(start: Start) -> None:
    def crash(_: int, content: dict[str, Any]) -> web.Response | None:
        return web.json_response(ERROR, status=500) if content["model"] != "tiny" else None

    ours, findings = ask(start(Server(crash)), start(Server()))
    assert set(findings) == {"errors.model"}
    assert "HTTP 500" in findings["errors.model"]
    assert ours.figures()["error_rate"] == 0


def test_a_connection_that_is_cut_is_no_finding(start: Start) -> None:
    class Cutting(Server):
        async def handle(self, request: web.Request) -> web.StreamResponse:
            content = await request.json()
            if content["model"] != "tiny":
                assert request.transport is not None
                request.transport.abort()
            return await super().handle(request)

    ours, findings = ask(start(Cutting()), start(Server()))
    assert findings == {}
    assert ours.conformance is not None
    assert [one.check for one in ours.conformance.missing] == ["errors.model"]
    assert "connection cut" in next(iter(ours.errors))
    assert ours.figures()["error_rate"] > 0
    # Stable's connection is cut, too: not the canary's fault.
    assert ask(start(Cutting()), start(Cutting()))[0].figures()["error_rate"] == 0


def test_an_engine_that_does_not_serve_has_an_error_rate_and_no_findings(start: Start) -> None:
    dead = Server(lambda _, content: web.json_response(ERROR, status=503))
    ours, findings = ask(start(dead), start(Server()))
    assert (ours.stopped, findings, ours.figures()) == (True, {}, {"error_rate": 1.0})


def test_come_back_later_is_obeyed_and_is_no_fault(start: Start) -> None:
    def busy(number: int, _: dict[str, Any]) -> web.Response | None:
        return web.json_response(ERROR, status=429, headers={"Retry-After": "1"}) if number == 1 else None

    ours, findings = ask(start(Server(busy)), start(Server()))
    assert (findings, ours.errors.total(), ours.unmeasured.total()) == ({}, 0, 0)


def test_an_engine_out_of_reach_is_not_judged(start: Start, nowhere: Endpoint) -> None:
    with pytest.raises(MeasurementFailed, match="cannot connect"):
        ask(nowhere, start(Server()))


def test_streams_are_read_through_keep_alives_and_split_characters(start: Start) -> None:
    def split(content: bytes) -> list[bytes]:
        kept = content.replace(b"\n\n", b"\n\n: keep-alive\n\nevent: message\nid: 7\n")
        return [kept[place : place + 1] for place in range(len(kept))]

    ours, findings = ask(start(Server(pieces=split)), None, suite=STREAMS, required=("stream", "text"))
    assert ours.conformance is not None
    passed = {"stream.text", "stream.end", "stream.usage", "text.characters", "text.stream", "text.unbroken"}
    assert not passed & findings.keys()


def test_a_refused_key_ends_the_measurement(start: Start) -> None:
    locked = Server(lambda _, content: web.json_response(ERROR, status=401))
    with pytest.raises(MeasurementFailed, match="refuses the API key"):
        ask(start(locked), start(Server()))


def test_a_gateway_may_refuse_a_wrong_request_as_it_refuses_a_wrong_key(start: Start) -> None:
    def guarded(_: int, content: dict[str, Any]) -> web.Response | None:
        return web.json_response(ERROR, status=403) if content["model"] != "tiny" else None

    _, findings = ask(start(Server(guarded)), start(Server()), suite=SUITE.model_copy(update={"topics": ("errors",)}))
    assert findings == {}


def test_an_answer_that_cannot_be_read_is_named(start: Start) -> None:
    def odd(_: int, content: dict[str, Any]) -> web.Response | None:
        if "response_format" not in content:
            return None
        return web.Response(text=json.dumps(body('{"name": "\ud83d"}')), content_type="application/json")

    _, findings = ask(start(Server(odd)), suite=SUITE.model_copy(update={"topics": ("json",)}), required=("json",))
    assert "json.schema" in findings


@pytest.mark.parametrize(
    ("outcomes", "told"),
    [
        (("failed", "failed", "unanswered"), "failed"),
        (("failed", "unanswered", "unanswered"), "unanswered"),
        (("failed", "passed", "passed"), "passed"),
        (("failed", "passed", "unjudged"), "unjudged"),
    ],
)
def test_only_what_more_than_half_of_the_answers_say_counts(outcomes: tuple[Outcome, ...], told: Outcome) -> None:
    assert majority([Judgement(outcome) for outcome in outcomes]).outcome == told


@pytest.mark.parametrize("trouble", ["refuses", "fails", "is gone"])
def test_a_stable_in_trouble_keeps_no_release_from_its_users(start: Start, nowhere: Endpoint, trouble: str) -> None:
    status = {"refuses": 401, "fails": 500}.get(trouble, 200)

    def troubled(_: int, content: dict[str, Any]) -> web.Response | None:
        return web.json_response(ERROR, status=status) if content else None

    stable = nowhere if trouble == "is gone" else start(Server(troubled))
    rules = asking(Evaluation(suites=("sums",)), [SUITE], same=False)
    ours, theirs = compare(start(Server()), stable, (SUMS, SUITE), 4, rules=rules)
    assert set(ours.suites) == {"sums", "protocol"}
    verdict = decide(rules, ours, theirs)
    assert verdict.value == "Passed", verdict.reason
    assert theirs.errors["protocol"]  # the record says what was wrong with stable


CASE = {"id": "sum", "prompt": "Add one to one.", "scorer": "contains", "expected": "one", "answer": "one"}
SUMS = Suite.model_validate({"kind": "quality", "name": "sums", "cases": [CASE]})


@pytest.mark.parametrize("gates", [(), (Gate(metric="sums/score", max_drop=0.5),)])
def test_stable_is_asked_for_its_protocol_alone_where_no_gate_compares(start: Start, gates: tuple[Gate, ...]) -> None:
    canary, stable = Server(), Server()
    rules = Evaluation(suites=("sums",), gates=gates)
    ours, theirs = compare(start(canary), start(stable), (SUMS, SUITE), 4, rules=asking(rules, [SUITE], same=False))
    asked = [any(str(SUMS.cases[0].prompt) in str(content) for content in one.asked) for one in (canary, stable)]
    assert asked == [True, bool(gates)]
    assert set(ours.suites) == {"sums", "protocol"}
    assert set(theirs.suites) == ({"sums", "protocol"} if gates else {"protocol"})


def test_a_finding_ends_the_evaluation_unless_all_is_wanted(start: Start) -> None:
    def broken(_: int, content: dict[str, Any]) -> web.Response | None:
        wrong = json.loads(answer(content).body or b"{}") | {"usage": None}  # pyright: ignore[reportArgumentType]
        return web.json_response(wrong) if "choices" in wrong else None

    for complete in (False, True):
        rules = asking(Evaluation(suites=("sums",), complete=complete), [SUITE], same=False)
        ours, _ = compare(start(Server(broken)), start(Server()), (SUMS, SUITE), 4, rules=rules)
        assert ("sums" in ours.suites) is complete
        assert ours.figures["protocol/findings"] > 0
