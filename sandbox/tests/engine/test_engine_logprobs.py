"""Log-probabilities: like a language model's, the same in every process, and moved as the behaviour says."""

import math
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llmops_sandbox.engine.behaviour import Behaviour, resolve
from llmops_sandbox.engine.exchanges import Exchange
from llmops_sandbox.engine.likeness import ask
from llmops_sandbox.engine.model.logprobs import Logprob, Scorer
from llmops_sandbox.engine.model.tokens import END, SIZE, Vocabulary, tokenize
from llmops_sandbox.engine.process import EngineProcess

Start = Callable[..., EngineProcess]
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
QUESTION = [{"role": "user", "content": "Tell me something."}]
BEHAVIOURS = (Behaviour(), Behaviour(garbage=True), Behaviour(divergence=0.5), Behaviour(logprob_noise=0.5))
SEQUENCES = [tuple((17 + 31 * number + 997 * place**2) % SIZE for place in range(100)) for number in range(50)]


def scored(ids: tuple[int, ...], top: int, behaviour: Behaviour = BEHAVIOURS[0]) -> list[dict[int, Logprob]]:
    first, *rest = Scorer(behaviour, Vocabulary()).score(ids, top)
    assert first is None
    return [position for position in rest if position is not None]


def own(ids: tuple[int, ...], behaviour: Behaviour = BEHAVIOURS[0]) -> list[float]:
    return [position[token]["logprob"] for token, position in zip(ids[1:], scored(ids, 0, behaviour), strict=True)]


@settings(deadline=None)
@given(
    st.lists(st.integers(0, SIZE - 1), min_size=1, max_size=20).map(tuple),
    st.integers(0, 30),
    st.sampled_from(BEHAVIOURS),
)
def test_each_position_is_a_distribution(ids: tuple[int, ...], top: int, behaviour: Behaviour) -> None:
    positions = scored(ids, top, behaviour)
    assert len(positions) == len(ids) - 1
    for token, position in zip(ids[1:], positions, strict=True):
        assert next(iter(position)) == token
        rank = position[token]["rank"]
        assert sorted(entry["rank"] for entry in position.values()) == sorted({*range(1, top + 1), rank})
        ordered = sorted(position.values(), key=lambda entry: entry["rank"])
        assert all(one["logprob"] >= other["logprob"] for one, other in pairwise(ordered))
        assert sum(math.exp(entry["logprob"]) for entry in ordered) <= 1 + 1e-9
        assert all(entry["logprob"] <= 0 for entry in ordered)


def test_own_tokens_have_a_probability_of_0_8_with_a_tail() -> None:
    probabilities = [math.exp(logprob) for ids in SEQUENCES for logprob in own(ids)]
    assert statistics.fmean(probabilities) == pytest.approx(0.8, abs=0.02)
    assert 0.02 < sum(probability < 0.1 for probability in probabilities) / len(probabilities) < 0.06
    assert statistics.median(probabilities) > 0.85


def test_a_token_depends_on_those_before_it_and_on_none_after_it() -> None:
    ids = SEQUENCES[0]
    assert scored(ids, 5)[:20] == scored(ids[:21], 5)
    changed = (*ids[:30], ids[30] + 1, *ids[31:])
    assert own(changed)[:29] == own(ids)[:29]
    assert not set(own(changed)[29:]) & set(own(ids)[29:])


@pytest.mark.parametrize("nats", [0.001, 0.02, 0.5])
@pytest.mark.parametrize("key", ["divergence", "logprob_noise"])
def test_a_divergence_is_this_large_in_the_mean_and_to_both_sides(key: str, nats: float) -> None:
    behaviour = resolve({}, {key: nats})
    moves = [moved - plain for ids in SEQUENCES for moved, plain in zip(own(ids, behaviour), own(ids), strict=True)]
    assert statistics.fmean(map(abs, moves)) == pytest.approx(nats, rel=0.1)
    assert sum(move > 0 for move in moves) > len(moves) / 10


def test_a_divergence_is_always_the_same_and_noise_is_not() -> None:
    ids = SEQUENCES[0]
    assert own(ids, Behaviour(divergence=0.02)) == own(ids, Behaviour(divergence=0.02))
    noisy = Scorer(Behaviour(logprob_noise=0.02), Vocabulary())
    assert noisy.score(ids, 0) != noisy.score(ids, 0)


def test_a_large_divergence_changes_the_preferred_token() -> None:
    def preferred(behaviour: Behaviour) -> list[int]:
        return [
            min(position, key=lambda token: position[token]["rank"])
            for ids in SEQUENCES
            for position in scored(ids, 1, behaviour)
        ]

    def agreement(divergence: float) -> float:
        pairs = list(zip(preferred(Behaviour()), preferred(Behaviour(divergence=divergence)), strict=True))
        return sum(one == other for one, other in pairs) / len(pairs)

    assert agreement(0.01) > 0.98
    assert 0.5 < agreement(0.5) < 0.95


def test_garbage_is_more_than_a_nat_away() -> None:
    for ids in SEQUENCES:
        pairs = zip(own(ids), own(ids, Behaviour(garbage=True)), strict=True)
        assert statistics.fmean(plain - garbage for plain, garbage in pairs) > 1


def test_scoring_100_tokens_costs_little() -> None:
    scorer = Scorer(Behaviour(), Vocabulary())
    before = time.process_time()
    for ids in SEQUENCES:
        scorer.score(ids, 5)
    assert (time.process_time() - before) / len(SEQUENCES) < 0.005  # 0.001 on an idle machine


@settings(deadline=None)
@given(st.text())
def test_the_ids_of_a_text_give_the_text_again(text: str) -> None:
    vocabulary = Vocabulary()
    tokens = tokenize(text)
    ids = vocabulary.ids(tokens)
    assert ids == Vocabulary().ids(tokens)
    assert all(17 <= number < SIZE for number in ids)
    if len(set(ids)) == len(set(tokens)):  # no two tokens share an id
        assert "".join(map(vocabulary.text, ids)) == text


@given(st.integers(0, SIZE - 1))
def test_an_id_that_was_never_given_has_a_text_too(number: int) -> None:
    assert Vocabulary().text(number)


def asked(engine: EngineProcess, path: str, **body: object) -> Any:
    answer = ask(engine.url, Exchange("", path, {"model": "smol", **body}))
    assert answer.status == 200, answer.body
    return answer.body


def serving(start: Start, *arguments: str, **env: str) -> EngineProcess:
    engine = start("--served-model-name", "smol", *arguments, **env)
    engine.wait_until_healthy()
    return engine


def test_the_tokens_of_an_answer_can_be_scored_elsewhere(engine: EngineProcess, start: Start) -> None:
    answer = asked(engine, CHAT, messages=QUESTION, max_tokens=200, return_token_ids=True)
    choice = answer["choices"][0]
    prompt, ids = answer["prompt_token_ids"], choice["token_ids"]
    assert len(prompt) == answer["usage"]["prompt_tokens"]
    assert len(ids) == answer["usage"]["completion_tokens"]
    assert ids[-1] == Vocabulary().ids([END])[0]
    request = {"prompt": [*prompt, *ids], "max_tokens": 1, "prompt_logprobs": 5}
    scores = asked(engine, TEXT, **request)["choices"][0]["prompt_logprobs"]
    decoded = [position[str(token)]["decoded_token"] for token, position in zip(ids, scores[-len(ids) :], strict=True)]
    assert "".join(decoded) == choice["message"]["content"] + END

    def numbers(scores: list[Any]) -> list[Any]:
        return [
            position and {token: (entry["logprob"], entry["rank"]) for token, entry in position.items()}
            for position in scores
        ]

    elsewhere = asked(serving(start), TEXT, **request)["choices"][0]["prompt_logprobs"]
    assert numbers(elsewhere) == numbers(scores)


def test_streamed_token_ids_are_those_of_the_whole_answer(engine: EngineProcess) -> None:
    body = {"model": "smol", "messages": QUESTION, "return_token_ids": True}
    whole = asked(engine, CHAT, **body)
    *events, done = ask(engine.url, Exchange("", CHAT, {**body, "stream": True})).events
    assert done == "[DONE]"
    assert events[0]["prompt_token_ids"] == whole["prompt_token_ids"]
    streamed = [token for event in events[1:] for token in event["choices"][0]["token_ids"]]
    assert streamed == whole["choices"][0]["token_ids"]


@pytest.mark.parametrize(("flags", "most"), [((), 20), (("--max-logprobs", "3"), 3)])
def test_max_logprobs_limits_them(start: Start, flags: tuple[str, ...], most: int) -> None:
    engine = serving(start, *flags)
    body = {"model": "smol", "prompt": [20, 21], "max_tokens": 1}
    assert ask(engine.url, Exchange("", TEXT, {**body, "prompt_logprobs": most})).status == 200
    refused = ask(engine.url, Exchange("", TEXT, {**body, "prompt_logprobs": most + 1}))
    assert refused.status == 400
    assert f"Requested prompt logprobs of {most + 1}, which is greater than max allowed: {most}" in str(refused.body)


def test_an_engine_without_prompt_logprobs_refuses_them(start: Start) -> None:
    engine = serving(start, SIM_PROMPT_LOGPROBS="false")
    body = {"model": "smol", "prompt": [20, 21], "max_tokens": 1}
    refused = ask(engine.url, Exchange("", TEXT, {**body, "prompt_logprobs": 1}))
    assert (refused.status, refused.body["error"]["param"]) == (400, "prompt_logprobs")
    assert ask(engine.url, Exchange("", TEXT, body)).status == 200


def test_another_chat_template_has_tokens_in_front(engine: EngineProcess, start: Start) -> None:
    body = {"messages": QUESTION, "max_tokens": 1, "return_token_ids": True}
    usual = asked(engine, CHAT, **body)["prompt_token_ids"]
    other = asked(serving(start, SIM_CHAT_TEMPLATE_TOKENS="3"), CHAT, **body)["prompt_token_ids"]
    assert (len(other), other[3:]) == (len(usual) + 3, usual)
