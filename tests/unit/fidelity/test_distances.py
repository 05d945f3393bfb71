"""How far two engines are apart: texts, scores of vLLM's form, and the sums of each case."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.evaluation.fidelity.distances import Distances, Scorings, distances
from llmops.evaluation.fidelity.scores import LEAST, Position, read
from llmops.evaluation.fidelity.tokens import LONGEST_ANSWER, LONGEST_TEXT, Text, Tokens, texts
from llmops.evaluation.runners.quality import tokens_of

TEXT = Text("q/one", (1, 2, 3), (4, 5))
WROTE = Tokens(TEXT.prompt, TEXT.answer, (-0.1, -0.2))


def entry(*tokens: tuple[int, float]) -> dict[str, Any]:
    """One position as vLLM writes it: the token of the text first, then likely ones."""
    ranked = sorted({logprob for _, logprob in tokens}, reverse=True)
    return {
        str(token): {"logprob": logprob, "rank": ranked.index(logprob) + 1, "decoded_token": f"<{token}>"}
        for token, logprob in tokens
    }


def answer(*positions: dict[str, Any] | None) -> dict[str, Any]:
    return {"choices": [{"prompt_logprobs": list(positions)}]}


def position(own: float, best: int = 0, likely: Mapping[int, float] | None = None) -> Position:
    return Position(own, best, likely or {best: own}, "x")


def scored(prompt: Sequence[float], written: Sequence[float]) -> tuple[Position, ...]:
    """Scores of the tokens of a prompt but its first, and of an answer."""
    return tuple(position(own) for own in (*prompt, *written))


def compared(
    ours: Sequence[Position], theirs: Sequence[Position], again: Sequence[Position], wrote: Tokens | None = None
) -> Distances:
    """The distances by one text; stable wrote what it was scored for."""
    scorings = Scorings({"q/one": ours}, {"q/one": theirs}, {"q/one": again})
    return distances([TEXT], scorings, {"q/one": wrote} if wrote else {}, {"q/one": WROTE})


SAME = scored([-1.0, -2.0], [-0.1, -0.2])


def test_scores_are_read_by_position() -> None:
    first, second = read(answer(None, entry((7, -0.5), (9, -0.1)), entry((8, -0.2))), [6, 7, 8])
    assert (first.own, first.best, first.likely, first.text) == (-0.5, 9, {7: -0.5, 9: -0.1}, "<7>")
    assert (second.own, second.best) == (-0.2, 8)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({}, "the answer has no prompt_logprobs"),
        ({"choices": []}, "the answer has no prompt_logprobs"),
        ({"choices": [{"prompt_logprobs": None}]}, "prompt_logprobs has NoneType; the text has 2 tokens"),
        (answer(None), "prompt_logprobs has 1 positions; the text has 2 tokens"),
        (answer(None, entry((9, -0.1))), "prompt_logprobs has no score of token 7"),
        (answer(None, {"7": {"logprob": "nan", "rank": 1}}), "prompt_logprobs has no score of token 7"),
        (answer(None, {"7": {"logprob": 3.0, "rank": 1}}), "prompt_logprobs has no score of token 7"),
        (answer(None, {"7": None}), "prompt_logprobs has no score of token 7"),
        (answer(None, None), "prompt_logprobs has no score of token 7"),
        (answer(None, {"7": {"logprob": -(10**400), "rank": 1}}), "prompt_logprobs has no score of token 7"),
    ],
)
def test_scores_of_another_form_are_refused(content: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read(content, [6, 7])


keys = st.text(max_size=3) | st.sampled_from(["choices", "prompt_logprobs", "logprob", "rank", "7"])
scalars = st.none() | st.floats() | st.text(max_size=3) | st.integers()
bodies = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3))


@given(bodies, bodies)
def test_any_body_is_read_or_refused_as_a_wrong_value(content: Any, position: Any) -> None:
    for body in (content, answer(None, position), answer(None, {"7": position})):
        with suppress(ValueError):
            read(body, [6, 7])


def test_a_tokens_text_fits_into_a_record() -> None:
    content = answer(None, {"7": {"logprob": -0.5, "rank": 1, "decoded_token": "\ud800" + "x" * 100_000}})
    (ours,), (theirs,) = read(content, [6, 7]), (Position(-0.1, 7, {7: -0.1}, "x"),)
    text = Text("q/one", (6,), (7,))
    found = distances([text], Scorings({"q/one": (theirs,)}, {"q/one": (ours,)}, {"q/one": (ours,)}), {}, {})
    assert found.largest is not None
    assert found.largest.token.startswith("?x")
    assert len(found.model_dump_json()) < 1000


@pytest.mark.parametrize("wrong", [-(10**400), math.nan, -math.inf, 7.0, None, "x"])
def test_log_probabilities_of_an_answer_are_bounded_or_not_given(wrong: Any) -> None:
    def of(last: Any) -> Any:
        content = [{"logprob": -0.5}, {"logprob": last}]
        return {"prompt_token_ids": [1], "choices": [{"token_ids": [2, 3], "logprobs": {"content": content}}]}

    assert tokens_of(of(wrong), greedy=True) == Tokens((1,), (2, 3), (), True)
    assert tokens_of(of(-1e308), greedy=True) == Tokens((1,), (2, 3), (-0.5, LEAST), True)


def test_a_probability_of_zero_is_a_score() -> None:
    (only,) = read(answer(None, entry((7, LEAST))), [6, 7])
    assert only.own == LEAST


@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,4}/[a-z]{1,4}", fullmatch=True),
        st.builds(
            Tokens,
            st.lists(st.integers(0, 9), max_size=5).map(tuple),
            st.lists(st.integers(0, 9), max_size=40).map(tuple),
        ),
        max_size=20,
    ),
    st.integers(1, 200),
)
def test_texts_stay_within_the_bound_and_follow_no_order_of_suites(answers: dict[str, Tokens], most: int) -> None:
    chosen = texts(answers, most)
    again = texts(dict(reversed(answers.items())), most)
    assert chosen == again
    assert all(text.prompt and text.answer for text in chosen)
    assert sum(len(text.answer) for text in chosen) <= most or len(chosen) == 1
    usable = [case for case, tokens in answers.items() if tokens.prompt and tokens.answer]
    assert bool(chosen) == bool(usable)


def test_a_long_answer_counts_in_part_and_a_long_text_not_at_all() -> None:
    (text,) = texts({"q/long": Tokens((1,), (2,) * 10_000)}, 5000)
    assert len(text.answer) == LONGEST_ANSWER
    assert texts({"q/long": Tokens((1,) * LONGEST_TEXT, (2,))}, 5000) == []


def test_no_text_takes_more_memory_than_engines_have_left() -> None:
    largest_vocabulary, bytes_a_logit = 262_144, 10
    assert LONGEST_TEXT * largest_vocabulary * bytes_a_logit < 3 << 30


def test_an_engine_is_no_distance_from_itself() -> None:
    found = compared(SAME, SAME, SAME, WROTE)
    row = found.cases["q/one"]
    assert (row.tokens, row.prompt_tokens, row.same, row.written) == (2, 2, 2, 2)
    assert (row.difference, row.null, row.kl, row.prompt_difference, row.written_difference) == (0, 0, 0, 0, 0)
    assert found.largest is None
    assert found.figures() == {
        "cases": 1.0,
        "tokens": 2.0,
        "changed_prompts": 0.0,
        "divergence": 0.0,
        "difference": 0.0,
        "null": 0.0,
        "kl": 0.0,
        "same_token_share": 1.0,
        "written_divergence": 0.0,
        "same_text_share": 1.0,
        "prompt_divergence": 0.0,
    }


def test_the_distance_is_over_what_stable_is_from_itself() -> None:
    ours, again = scored([-1.0, -2.5], [-0.4, -0.2]), scored([-1.1, -2.0], [-0.2, -0.2])
    found = compared(ours, SAME, again)
    row = found.cases["q/one"]
    # 0.3 from the first scoring and 0.2 from the second; stable is 0.1 from itself.
    assert (row.difference, row.null) == (pytest.approx(0.25), pytest.approx(0.1))
    assert (row.prompt_difference, row.prompt_null) == (pytest.approx(0.55), pytest.approx(0.1))
    assert found.figures()["divergence"] == pytest.approx(0.15 / 2)
    assert found.largest is not None
    assert (found.largest.case, found.largest.canary, found.largest.stable) == ("q/one", -0.4, -0.1)


def test_a_case_without_a_score_of_each_is_left_out() -> None:
    found = distances([TEXT], Scorings({"q/one": SAME}, {"q/one": SAME}, {}), {}, {})
    assert (found.cases, found.asked) == ({}, 1)
    assert "divergence" not in found.figures()


def test_other_tokens_for_a_prompt_name_the_first_that_differs() -> None:
    other = Tokens((1, 9, 3, 4, 5), (4,))
    found = distances([], Scorings({}, {}, {}), {"q/one": other, "q/two": WROTE}, {"q/one": WROTE, "q/two": WROTE})
    assert (found.changed, found.prompts) == (1, 2)
    (example,) = found.examples
    assert (example.case, example.position, example.canary, example.stable) == ("q/one", 1, (9, 3, 4), (2, 3))


def test_what_both_wrote_alike_compares_with_stables_scores() -> None:
    wrote = Tokens(TEXT.prompt, TEXT.answer, (-0.15, -0.2))
    found = compared(SAME, SAME, SAME, wrote)
    row = found.cases["q/one"]
    assert (row.written, row.written_difference, row.written_null) == (2, pytest.approx(0.05), 0)


@pytest.mark.parametrize(
    ("own", "likely", "apart"),
    [
        (-0.2, {5: -0.2, 9: -1.8}, 0.1),
        (-0.2, {5: -0.2, 8: -3.0}, 1.3),
        (-0.2, {5: -0.2, 8: -1.0}, 0.0),  # stable may give -1.7 as well
        (-6.0, {5: -6.0, 7: -0.2, 8: -1.6}, 0.0),  # stable drew an improbable token: it bounds nothing
        (-6.0, {5: -6.0}, 0.0),  # no alternatives are known
    ],
)
def test_where_both_part_the_likely_tokens_bound_the_distance(
    own: float, likely: dict[int, float], apart: float
) -> None:
    stable = (*SAME[:-1], position(own, 5, likely))
    wrote = Tokens(TEXT.prompt, (4, 9), (-0.1, -1.7))
    found = compared(SAME, stable, stable, wrote)
    row = found.cases["q/one"]
    assert (row.written, row.written_difference) == (2, pytest.approx(apart))


def test_an_engine_that_passes_over_the_most_probable_token_samples_otherwise() -> None:
    stable = (*SAME[:-1], position(-0.2, 5, {5: -0.2, 9: -1.8}))
    for greedy, apart in ((True, 1.6), (False, 0.0)):
        wrote = Tokens(TEXT.prompt, (4, 9), (-0.1, -1.8), greedy)  # by the same log-probabilities
        found = compared(SAME, stable, stable, wrote)
        assert found.cases["q/one"].written_difference == pytest.approx(apart)
        assert found.figures()["same_text_share"] == 0


def test_what_was_written_after_another_prompt_is_no_comparison() -> None:
    wrote = Tokens((1, 2), TEXT.answer, (-5.0, -5.0))
    found = compared(SAME, SAME, SAME, wrote)
    assert found.cases["q/one"].written == 0


@given(st.lists(st.floats(-20, -0.01), min_size=2, max_size=6), st.lists(st.floats(-20, -0.01), min_size=2, max_size=6))
def test_kl_is_finite_and_not_negative(ours: list[float], theirs: list[float]) -> None:
    def of(values: list[float]) -> Position:
        total = math.log(math.fsum(map(math.exp, values)) + 0.01)
        likely = {token: value - total for token, value in enumerate(values)}
        return Position(likely[0], 0, likely, "x")

    mine, yours = (of(ours), of(ours)), (of(theirs), of(theirs))
    text = Text("q/one", (1, 2), (0,))
    row = distances([text], Scorings({"q/one": mine}, {"q/one": yours}, {"q/one": yours}), {}, {}).cases["q/one"]
    assert 0 <= row.kl < math.inf
