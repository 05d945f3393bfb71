"""The input and output of a measuring Job: the order, the answer, the ending."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.config.catalog.spec import Evaluation, Gate
from llmops.errors import BadInput, BadRelease, ClusterCannot, LlmopsError, MeasurementFailed, Unavailable
from llmops.evaluation.measurements import Measurements
from llmops.evaluation.remote.answer import LONGEST_LOG, Answer, Seal, read_answer, write_answer
from llmops.evaluation.remote.ending import Ending
from llmops.evaluation.remote.order import PART_BYTES, Engine, Order, pack, unpack
from llmops.evaluation.suites import Case, LoadProfile, Suite

ENGINE = Engine(base_url="http://127.0.0.1:1", model="tiny")
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)


def suite(prompts: list[str], **changes: Any) -> Suite:
    cases = [
        Case(id=f"c-{number}", prompt=prompt, scorer="exact", expected=f"{number}", answer=f"{number}")
        for number, prompt in enumerate(prompts)
    ]
    return Suite(name="sums", kind="quality", cases=tuple(cases), **changes)


@given(
    prompts=st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=40), min_size=1, max_size=5),
    seconds=st.floats(0, 1e6),
    rate=st.floats(1e-3, 1e3),
)
def test_an_order_arrives_as_it_was_given(prompts: list[str], seconds: float, rate: float) -> None:
    suites = (suite(prompts, system="Be brief."), LoadProfile(name="load", kind="load", requests=3, rate=rate))
    spec = Evaluation(suites=("sums", "load"), gates=(Gate(metric="all/score", max_drop=0.1),), concurrency=3)
    order = Order(task="compare", engine=ENGINE, other=ENGINE, suites=suites, evaluation=spec, seconds=seconds)
    arrived = unpack(reversed(pack(order)))
    assert arrived == order
    # Hashes tell whether two releases had the same suites.
    assert [arrived_suite.sha256 for arrived_suite in arrived.suites] == [ordered.sha256 for ordered in suites]


def hard_to_pack(size: int) -> str:
    """Text that does not compress well."""
    import random

    return "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=size))


def test_an_order_that_is_too_large_for_one_config_map_takes_several() -> None:
    text = hard_to_pack(2_000_000)
    order = Order(
        task="measure", engine=ENGINE, suites=(suite([text[at : at + 1000] for at in range(0, len(text), 1000)]),)
    )
    parts = pack(order)
    assert len(parts) >= 3
    assert all(len(content) <= PART_BYTES for _, content in parts)
    assert unpack(parts) == order
    for incomplete in (parts[:-1], parts[1:]):
        with pytest.raises(BadInput) as raised:
            unpack(incomplete)
        assert raised.value.code == "OrderDamaged"


def test_an_order_of_another_version_is_refused() -> None:
    order = Order(task="prove", engine=ENGINE, version="0.0.1")
    with pytest.raises(BadInput, match=r"0\.0\.1") as raised:
        unpack(pack(order))
    assert raised.value.code == "OtherVersion"
    assert "evaluation_image" in raised.value.remedy


def test_a_key_is_in_the_environment_and_nowhere_else() -> None:
    engine = Engine(base_url="http://127.0.0.1:1", model="tiny", key_variable="KEY")
    assert engine.endpoint({"KEY": "hidden"}).api_key == "hidden"
    with pytest.raises(BadInput, match="KEY") as raised:
        engine.endpoint({})
    assert (raised.value.code, raised.value.about) == ("CredentialsMissing", "tiny")


def answer_of(scores: dict[str, float]) -> Answer:
    measured = Measurements(suites={"sums": "0" * 64}, figures={"sums/score": 0.5}, scores={"sums": scores})
    return Answer(measurements=(measured, measured), text="ready")


@given(scores=st.dictionaries(NAMES, NUMBERS, max_size=200), noise=st.lists(NAMES, max_size=3))
def test_an_answer_arrives_through_a_log(scores: dict[str, float], noise: list[str]) -> None:
    answer = answer_of(scores)
    lines, seal = write_answer(answer)
    assert len(lines) == seal.lines
    assert all(len(line.encode()) < 16 << 10 for line in lines)
    log = "\n".join([*noise, '{"event": "log"}', *reversed(lines), "[1]", *noise])
    assert read_answer(log, seal) == answer


LONG_TEXT = hard_to_pack(5000)
LONG = answer_of({LONG_TEXT[at : at + 9]: at / 7 for at in range(3000)})
LINES, SEAL = write_answer(LONG)


@given(share=st.floats(0, 1, exclude_max=True))
def test_an_answer_that_was_cut_off_is_none(share: float) -> None:
    log = "\n".join(LINES)
    with pytest.raises(MeasurementFailed) as raised:
        read_answer(log[: int(share * len(log))], SEAL)
    assert raised.value.code == "AnswerIncomplete"


@given(gone=st.integers(0, len(LINES) - 1))
def test_an_answer_that_lacks_a_line_is_none(gone: int) -> None:
    with pytest.raises(MeasurementFailed, match=f"1 of {len(LINES)} lines") as raised:
        read_answer("\n".join(LINES[:gone] + LINES[gone + 1 :]), SEAL)
    assert raised.value.code == "AnswerIncomplete"


@given(number=st.integers(0, len(LINES) - 1), share=st.floats(0, 1, exclude_max=True), other=st.sampled_from("AB+/="))
def test_an_answer_that_was_changed_is_never_another(number: int, share: float, other: str) -> None:
    event = json.loads(LINES[number])
    at = int(share * len(event["data"]))
    event["data"] = event["data"][:at] + other + event["data"][at + 1 :]
    log = "\n".join([*LINES[:number], json.dumps(event), *LINES[number + 1 :]])
    with suppress(MeasurementFailed):
        # The last character may have unused bits.
        assert read_answer(log, SEAL) == LONG


@given(log=st.text(max_size=200))
def test_any_log_is_read_or_refused(log: str) -> None:
    with pytest.raises(MeasurementFailed):
        read_answer(f'{log}\n{{"event": "answer"}}\n{{"event": "answer", "line": "x", "data": 3}}', long_seal())


def long_seal() -> Seal:
    return Seal(sha256="0" * 64, bytes=100, lines=2)


def test_an_answer_that_a_log_would_not_keep_is_refused() -> None:
    text = hard_to_pack(LONGEST_LOG + 1_000_000)
    with pytest.raises(MeasurementFailed) as raised:
        write_answer(Answer(text=text))
    assert raised.value.code == "AnswerTooLarge"


@pytest.mark.parametrize("kind", [BadInput, BadRelease, ClusterCannot, MeasurementFailed, Unavailable])
@given(message=st.text(max_size=3000), remedy=st.text(max_size=3000))
def test_an_error_crosses_from_the_job_to_the_run(kind: type[LlmopsError], message: str, remedy: str) -> None:
    ending = Ending.of(
        kind(message.encode("utf-8", "replace").decode(), remedy=remedy.encode("utf-8", "replace").decode())
    )
    text = ending.model_dump_json()
    # Kubelets cut off longer messages, and nobody could parse them.
    assert len(text.encode()) <= 4096
    error = Ending.model_validate_json(text).error()
    assert error is not None
    assert type(error) is kind
    assert error.message[:100] == ending.message[:100]


def test_a_bug_is_no_error_of_the_release() -> None:
    ending = Ending.of(KeyError("x"))
    assert ending.exit_code == 1
    assert ending.error() is None
