"""What is kept of a release to recognize it: small, exact enough, and checked when it is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.evaluation.fidelity.distances import from_reference
from llmops.evaluation.fidelity.reference import LONGEST, Reference, reference
from llmops.evaluation.fidelity.scores import Position
from llmops.evaluation.fidelity.tokens import Text

ids = st.lists(st.integers(0, 200_000), min_size=1, max_size=20).map(tuple)
logprobs = st.floats(-9999.0, 0.0)


def position(own: float) -> Position:
    return Position(own, 0, {0: own}, "x")


@st.composite
def scored(draw: st.DrawFn) -> tuple[Text, tuple[Position, ...]]:
    text = Text(draw(st.text(min_size=1, max_size=10)), draw(ids), draw(ids))
    return text, tuple(position(draw(logprobs)) for _ in text.ids[1:])


@given(st.lists(scored(), min_size=1, max_size=5, unique_by=lambda item: item[0].case))
def test_what_is_kept_is_read_again_to_a_ten_thousandth_of_a_nat(
    kept: list[tuple[Text, tuple[Position, ...]]],
) -> None:
    packed = reference("fidelity", [text for text, _ in kept], {text.case: scores for text, scores in kept})
    assert packed is not None
    again = Reference.model_validate_json(packed.model_dump_json()).unpack()
    assert [text for text, _ in again] == [text for text, _ in kept]
    for (text, own), (_, scores) in zip(again, kept, strict=True):
        assert len(own) == len(text.answer)
        assert [position.own for position in own] == pytest.approx(
            [position.own for position in scores[len(text.prompt) - 1 :]], abs=0.00005001
        )


def test_a_release_is_no_distance_from_its_own_reference() -> None:
    text = Text("q/one", (1, 2, 3), (4, 5))
    scores = tuple(map(position, (-1.0, -2.0, -0.25, -0.5)))
    packed = reference("fidelity", [text], {text.case: scores})
    assert packed is not None
    row = from_reference(packed.unpack(), {text.case: scores}, {text.case: scores}).cases[text.case]
    assert (row.tokens, row.difference, row.null, row.prompt_tokens) == (2, 0, 0, 0)
    moved = tuple(map(position, (-9.0, -9.0, -0.35, -0.5)))
    row = from_reference(packed.unpack(), {text.case: moved}, {text.case: moved}).cases[text.case]
    assert row.difference == pytest.approx(0.1)  # of the answer alone
    assert from_reference(packed.unpack(), {}, {}).cases == {}


def test_as_many_texts_are_kept_as_fit() -> None:
    # Of no order, as compression would see through one.
    texts = [Text(f"q/{n}", tuple(n * 7919 * k % 150_001 for k in range(3000)), (n + 1,)) for n in range(1, 60)]
    scores = {text.case: tuple(position(-0.1) for _ in text.ids[1:]) for text in texts}
    packed = reference("fidelity", texts, scores)
    assert packed is not None
    assert 3 <= packed.texts < 59
    assert LONGEST / 2 < len(packed.packed) <= LONGEST
    assert [text for text, _ in packed.unpack()] == texts[: packed.texts]


def test_nothing_is_kept_of_no_score() -> None:
    assert reference("fidelity", [Text("q/one", (1,), (2,))], {}) is None


@pytest.mark.parametrize("packed", ["!", "AAAA", "eJyLBQABCAAI", "eJyLVihWBAADAgEA"])
def test_a_damaged_reference_says_so(packed: str) -> None:
    with pytest.raises(ValueError, match=r"damaged|Expecting|scores|unpack"):
        Reference(suite="fidelity", texts=1, packed=packed).unpack()
