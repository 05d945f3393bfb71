"""Each check accepts what the API says, and names what it does not."""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Sequence

import pytest

from llmops.config.kinds import ProtocolTopic
from llmops.evaluation.protocol.check import Reply, Unjudged, Wrong
from llmops.evaluation.protocol.topics import CHECKS, checks_of
from llmops.evaluation.protocol.topics.text import SENTENCES
from tests.unit.protocol.conftest import body, call, chunk, refused, streamed, usage, whole

BY_ID = {check.id: check for check in CHECKS}
CALLED = whole(None, "tool_calls", tool_calls=[call()])
CITY = '{"name": "Paris", "continent": "Europe", "capital": true}'
HELLO = (chunk(role="assistant", content=""), chunk(content="Hel"), chunk("stop", content="lo."))
STORY = "the ship sails around the wide world until winter comes again and ends"
NAMED = whole(None, "stop", tool_calls=[call("set_reminder", '{"day": "monday", "about": "x"}')])


def choices(*indexes: int) -> Reply:
    content = body()
    content["choices"] = [content["choices"][0] | {"index": index} for index in indexes]
    return Reply(200, content)


def with_usage(**counts: int) -> Reply:
    return Reply(200, body() | {"usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12} | counts})


def with_logprobs(*tokens: str, logprob: float = -0.5, top: int = 3) -> Reply:
    content = body("".join(tokens))
    content["usage"] = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    entry = {"logprob": logprob, "top_logprobs": [{"token": "a", "logprob": -1.0}] * top}
    content["choices"][0]["logprobs"] = {"content": [{"token": token, **entry} for token in tokens]}
    return Reply(200, content)


def with_eight(completion: int = 8) -> dict[str, dict[str, int]]:
    return {"usage": {"prompt_tokens": 9, "completion_tokens": completion, "total_tokens": 9 + completion}}


REFUSED = refused(400, {"error": {"message": "temperature must be non-negative", "type": "BadRequestError"}})
GOOD: dict[str, Sequence[Reply]] = {
    "chat.answer": [whole()],
    "chat.names": [whole()],
    "tools.auto": [CALLED],
    "tools.restraint": [whole()],
    "tools.required": [CALLED],
    "tools.named": [NAMED],
    "tools.none": [whole()],
    "tools.parallel": [whole(None, "tool_calls", tool_calls=[call(id="a"), call(id="b")])],
    "tools.single": [CALLED],
    "tools.result": [whole("It is sunny, 17 degrees.")],
    "json.schema": [whole(CITY)],
    "json.object": [whole(CITY)],
    "stream.text": [whole(), streamed(*HELLO, usage())],
    "stream.tools": [
        CALLED,
        streamed(
            chunk(tool_calls=[call(arguments="") | {"index": 0}]),
            chunk(tool_calls=[{"index": 0, "function": {"arguments": '{"unit": "celsius", '}}]),
            chunk("tool_calls", tool_calls=[{"index": 0, "function": {"arguments": '"city": "Paris"}'}}]),
        ),
    ],
    "stream.json": [whole(CITY), streamed(chunk(content=CITY[:9]), chunk("stop", content=CITY[9:]))],
    "stream.end": [streamed(*HELLO)],
    "stream.usage": [whole(), streamed(*HELLO, usage())],
    "limits.stop": [whole(STORY, "length"), whole("the ship sails around the wide ", "stop")],
    "limits.max-tokens": [whole(STORY, "length"), Reply(200, body("the ship", "length") | with_eight())],
    "limits.max-completion-tokens": [whole(STORY, "length"), Reply(200, body("the ship", "length") | with_eight())],
    "choices.whole": [choices(2, 0, 1)],
    "choices.stream": [choices(0, 1, 2)],
    "logprobs.answer": [with_logprobs("Red", " blue")],
    "logprobs.stream": [with_logprobs("Red", " blue")],
    "logprobs.top": [with_logprobs("Red", " blue")],
    "usage.sum": [whole()],
    "usage.prompt": [whole(), with_usage(prompt_tokens=60, total_tokens=63)],
    "reasoning.content": [whole("42", reasoning="17 and 25")],
    "reasoning.stream": [streamed(chunk(reasoning_content="17"), chunk("stop", content="42"))],
    "reasoning.cut": [whole("", "length", reasoning="17 and")],
    "reasoning.field": [whole("42", reasoning_content="17 and 25")],
    "reasoning.answer": [whole("42")],
    "text.characters": [whole("Grüße aus Köln, 世界 🙂")],
    "text.unbroken": [whole("世界 🙂")],
    "text.stream": [streamed(chunk(content="世"), chunk("stop", content="界"))],
    "text.long": [whole("... there is a yellow umbrella.")],
    "text.stop": [whole("The morning train leaves the harbour at seven and follows the coast to the north.")],
    **{check.id: [REFUSED] for check in CHECKS if check.topic == "errors"},
    "turns.system": [whole("Banana.")],
    "turns.memory": [whole("Your name is Ada.")],
    "turns.counted": [whole(), *(with_usage(prompt_tokens=count) for count in (60, 55, 90))],
}
BAD: list[tuple[str, Sequence[Reply], str, str]] = [
    ("chat.answer", [Reply(200, body() | {"choices": []})], "an answer without choices", "at least one answer"),
    ("chat.answer", [whole("")], "an empty message", "has content"),
    ("chat.answer", [whole(finish="done")], "finish_reason 'done'", "one of stop"),
    ("chat.answer", [Reply(200, None, "<html>")], "'<html>'", "a JSON object"),
    (
        "chat.answer",
        [refused(400, {"error": {"message": "you must provide a chat template"}})],
        "HTTP 400: 'you must provide a chat template'",
        "an answer",
    ),
    ("chat.names", [Reply(200, body() | {"object": "text_completion"})], "object 'text_completion'", "chat.completion"),
    ("tools.auto", [whole('<tool_call>{"name"')], "no call, but the text", "a call of a tool"),
    (
        "tools.auto",
        [refused(400, {"error": {"message": '"auto" tool choice requires --enable-auto-tool-choice'}})],
        "requires --enable-auto-tool-choice",
        "an answer",
    ),
    ("tools.auto", [whole(None, "stop", tool_calls=[call()])], "finish_reason 'stop' with a call", "tool_calls"),
    ("tools.restraint", [CALLED], "a call of 'get_weather'", "text without a call"),
    ("tools.required", [whole(None, "tool_calls", tool_calls=[call(arguments='{"city"')])], "arguments", "is JSON"),
    ("tools.required", [whole(None, "tool_calls", tool_calls=[call(arguments='{"city": 3}')])], "get_we", "validate"),
    ("tools.required", [whole(None, "tool_calls", tool_calls=[call("fly")])], "a call of 'fly'", "get_weather or"),
    ("tools.required", [whole(None, "tool_calls", tool_calls=[call(id="")])], "without an id", "has an id"),
    ("tools.named", [CALLED], "a call of 'get_weather'", "set_reminder"),
    ("tools.none", [CALLED], "a call of 'get_weather'", "text without a call"),
    ("tools.parallel", [CALLED], "1 calls", "each of two cities"),
    ("tools.parallel", [whole(None, tool_calls=[call(), call()])], "ids ['a', 'a']", "an id of its own"),
    ("tools.single", [whole(None, tool_calls=[call(), call()])], "2 calls", "at most one"),
    ("json.schema", [whole("Paris is in Europe.")], "content 'Paris", "content is JSON"),
    ("json.schema", [whole('{"name": "Paris"}')], '{"name"', "validates against the schema"),
    ("json.object", [whole("```json\n{}\n```")], "```json", "content is JSON"),
    ("stream.text", [whole("Hello there."), streamed(*HELLO)], "content", "as whole"),
    ("stream.text", [whole(finish="length"), streamed(*HELLO)], "finish_reason 'stop'", "'length'"),
    ("stream.text", [whole(), streamed({"error": {"message": "boom"}})], "an error in the stream", "an answer"),
    ("stream.text", [whole(), Reply(200, None, "", HELLO, True, "{")], "the event '{'", "each event is JSON"),
    ("stream.end", [streamed(*HELLO[:2])], "finish_reason None", "the last chunk"),
    ("stream.end", [streamed(*HELLO, done=False)], "without [DONE]", "ends with [DONE]"),
    ("stream.end", [streamed(*HELLO, chunk("stop"))], "finish_reason stop, then stop", "one finish_reason"),
    ("stream.usage", [whole(), streamed(*HELLO)], "whose usage never comes", "the last chunk has the usage"),
    ("stream.usage", [whole(), streamed(*HELLO, usage(8, 3, 11))], "prompt=8", "prompt=9"),
    ("limits.stop", [whole(STORY, "length"), whole(STORY, "length")], "content 'the ship", "ends before"),
    ("limits.stop", [whole(STORY), whole("the ship sails around the wide ", "length")], "'length'", "is stop"),
    ("limits.max-tokens", [whole(STORY), Reply(200, body(STORY) | with_eight(9))], "9 tokens", "at most 8"),
    ("limits.max-tokens", [whole(STORY), Reply(200, body(STORY * 3) | with_eight())], "words", "at most 8 tokens"),
    ("limits.max-tokens", [whole(STORY), Reply(200, body("the ship") | with_eight())], "'stop'", "is length"),
    ("limits.max-tokens", [whole(STORY), Reply(200, body("the", "length") | with_eight(3))], "after 3", "after 8"),
    ("choices.whole", [choices(0)], "answers [0]", "3 answers"),
    ("logprobs.answer", [whole()], "logprobs None", "an entry for each token"),
    ("logprobs.answer", [with_logprobs("Red")], "1 entries", "2 completion tokens"),
    ("logprobs.answer", [with_logprobs("a", "b", logprob=0.5)], "logprob 0.5", "at most 0"),
    ("logprobs.top", [with_logprobs("a", "b", top=0)], "top_logprobs []", "3 likely tokens"),
    ("usage.sum", [with_usage(completion_tokens=10)], "completion=10", "add up"),
    ("usage.sum", [Reply(200, body() | {"usage": None})], "without usage", "has its usage"),
    ("usage.sum", [with_usage(prompt_tokens=-1)], "-1", "usage has prompt"),
    ("usage.prompt", [whole(), whole()], "9 prompt tokens, after 9", "counts the whole question"),
    ("reasoning.content", [whole("<think>17 and 25</think>42")], "<think>", "in its own field"),
    ("reasoning.stream", [streamed(chunk(content="so</think>"), chunk("stop", content="4"))], "</th", "own field"),
    ("reasoning.cut", [whole("<think>17 and", "length")], "<think>17 and", "in its own field"),
    ("reasoning.field", [whole("42")], "no reasoning", "reasoning in its own field"),
    ("reasoning.answer", [whole(None, reasoning="It is 42.")], "empty content with reasoning", "is in content"),
    ("text.characters", [whole("Gruesse aus Koeln")], "without", "Köln"),
    ("text.unbroken", [whole("\ufffd\ufffd!")], "\ufffd", "whole characters"),
    ("text.unbroken", [whole("Grüße".encode().decode("latin-1"))], "Ã", "whole characters"),
    ("text.long", [whole("The morning train", "length")], "finish_reason length", "yellow umbrella"),
    ("text.stop", [whole(f"{SENTENCES[0]} {SENTENCES[0]} The morn", "length")], "The morn'", "stops by itself"),
    ("errors.temperature", [whole()], "HTTP 200", "HTTP 400"),
    ("errors.temperature", [refused(500, {"error": {"message": "boom"}})], "HTTP 500", "HTTP 400"),
    ("errors.temperature", [refused(400, {"detail": "bad"})], "HTTP 400", "error.message"),
    ("turns.system", [whole("Paris.")], "content 'Paris.'", "'banana'"),
    ("turns.counted", [whole()] * 4, "9 prompt tokens", "reads all turns"),
    (
        "turns.counted",
        [whole(), *(with_usage(prompt_tokens=count) for count in (60, 60, 60))],
        "60 with a shorter one",
        "reads system prompts",
    ),
]


def judge(check: str) -> Callable[[Sequence[Reply]], None]:
    return BY_ID[check].questions[0].judge


@pytest.mark.parametrize("check", BY_ID)
def test_what_the_api_says_passes(check: str) -> None:
    judge(check)(GOOD[check])


@pytest.mark.parametrize(("check", "replies", "came", "wanted"), BAD)
def test_what_it_does_not_say_is_named(check: str, replies: Sequence[Reply], came: str, wanted: str) -> None:
    with pytest.raises(Wrong) as caught:
        judge(check)(replies)
    assert came in caught.value.came
    assert wanted in caught.value.wanted


@pytest.mark.parametrize("check", [check for check in BY_ID if not check.startswith(("errors", "limits", "turns"))])
def test_an_error_is_no_answer(check: str) -> None:
    broken = refused(400, {"error": {"message": "no"}})
    with pytest.raises(Wrong, match="HTTP 400"):
        judge(check)([broken] * 3)


@pytest.mark.parametrize("check", ["tools.auto", "tools.required", "tools.parallel", "json.schema", "reasoning.answer"])
def test_an_answer_cut_by_max_tokens_is_not_judged(check: str) -> None:
    with pytest.raises(Unjudged):
        judge(check)([whole('{"name": "Par', "length")])


@pytest.mark.parametrize("check", ["text.characters", "text.long"])
def test_an_answer_that_takes_all_tokens_before_what_counts_is_not_judged(check: str) -> None:
    cut = Reply(200, body("", "length", reasoning="So the user") | with_eight(320))
    with pytest.raises(Unjudged):
        judge(check)([cut])


def test_an_answer_that_goes_on_about_something_else_is_not_judged() -> None:
    with pytest.raises(Unjudged):
        judge("text.stop")([whole("I would rather not", "length")])


def test_every_topic_has_checks_of_its_name() -> None:
    assert {check.topic for check in CHECKS} == set(typing.get_args(ProtocolTopic))
    assert len(BY_ID) == len(CHECKS)
    assert {check.topic for check in checks_of(("tools", "json"))} == {"tools", "json"}
    assert checks_of(()) == CHECKS


def test_every_check_says_in_a_sentence_what_holds() -> None:
    for check in CHECKS:
        assert re.fullmatch(r"[a-z]+\.[a-z-]+", check.id)
        assert check.sentence.endswith(".")
        assert len(check.sentence.split()) > 3
        assert len(check.questions) == (1 if check.by == "server" else 4), check.id
