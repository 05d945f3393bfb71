"""A stream is put together as the whole answer, however it is cut."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from llmops.evaluation.protocol.answers import read
from llmops.evaluation.protocol.check import Reply, Wrong
from tests.unit.protocol.conftest import body, call, chunk, streamed, whole

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)
FIELDS = ("choices", "message", "delta", "content", "tool_calls", "function", "arguments", "usage", "index", "logprobs")


@given(st.lists(st.text(max_size=5)), st.lists(st.text(max_size=5), min_size=1))
def test_parts_are_put_together(contents: list[str], arguments: list[str]) -> None:
    first = call(arguments="") | {"index": 0}
    parts = [chunk(tool_calls=[{"index": 0, "function": {"arguments": part}}]) for part in arguments]
    events = [*(chunk(content=part) for part in contents), chunk(tool_calls=[first]), *parts, chunk("tool_calls")]
    streamed_choice = read(streamed(*events)).first
    made = whole("".join(contents), "tool_calls", tool_calls=[call(arguments="".join(arguments))])
    assert (streamed_choice.content, streamed_choice.calls) == (read(made).first.content, read(made).first.calls)


@given(st.dictionaries(st.sampled_from(FIELDS), JSON), st.sampled_from(["body", "choice", "message", "event", "delta"]))
def test_anything_is_an_answer_or_wrong(content: dict[str, Any], place: str) -> None:
    whole_body = body()
    replies = {
        "body": Reply(200, whole_body | content),
        "choice": Reply(200, whole_body | {"choices": [whole_body["choices"][0] | content]}),
        "message": Reply(200, whole_body | {"choices": [{"index": 0, "message": content}]}),
        "event": streamed(content),
        "delta": streamed({"choices": [{"index": 0, "delta": content}]}),
    }
    with suppress(Wrong):
        assert read(replies[place]).first.index >= 0
