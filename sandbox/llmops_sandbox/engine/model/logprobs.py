"""How likely a simulated model finds the tokens of a sequence.

What it says of a token follows from the tokens before it, the token itself and the behaviour alone: every process says
the same, in any order. The token that comes is taken for the model's own: it has a probability of 0.8 in the mean, one
in twenty is a surprise. The rest is shared by alternatives, each less likely than the one before.
"""

from __future__ import annotations

import functools
import math
import random
import struct
from collections.abc import Sequence
from hashlib import blake2b
from typing import TypedDict

from llmops_sandbox.engine.behaviour import Behaviour
from llmops_sandbox.engine.model.tokens import FIRST_PLAIN, SIZE, Vocabulary

_PLAIN = SIZE - FIRST_PLAIN
# A prime that does not divide the number of plain tokens: the steps reach all of them before one comes twice.
_STRIDE = 7919
_SURPRISES = 0.05
_FRACTION = 1 / (1 << 64)


class Logprob(TypedDict):
    """One token at one position, as vLLM writes it; `rank` counts from 1."""

    logprob: float
    rank: int
    decoded_token: str


class Scorer:
    """Log-probabilities under one behaviour.

    Args:
        behaviour: `garbage`, `divergence` and `logprob_noise` change them.
        vocabulary: Texts of tokens.
    """

    def __init__(self, behaviour: Behaviour, vocabulary: Vocabulary) -> None:
        self._behaviour = behaviour
        self._vocabulary = vocabulary
        # Each process draws other noise, as batches differ on a GPU.
        self._noise = random.Random()  # noqa: S311 -- noise; no secret

    def score(self, ids: Sequence[int], top: int) -> list[dict[int, Logprob] | None]:
        """Each token of a sequence with its likeliest alternatives; nothing is known of the first token.

        Args:
            ids: The sequence.
            top: Tokens to name at each position; the one that comes is always named, and comes first.
        """
        return [None, *self.reading(ids[:1]).go_on(ids[1:], top)]

    def reading(self, ids: Sequence[int]) -> Reading:
        """A sequence that has begun with these tokens."""
        return Reading(self, ids)

    def named(self, before: bytes, after: bytes, token: int, top: int) -> dict[int, Logprob]:
        """The distribution at one position, between the digests of the tokens before it and with it."""
        luck, move, fading = (number * _FRACTION for number in struct.unpack("<QQQ", after))
        own, fading = self._own(luck, move), self._fading(fading)
        # The rest of 1 is shared: each alternative has `fading` times the probability of the one before.
        step = math.log(fading)
        logprob = math.log(-math.expm1(own)) + math.log1p(-fading)
        rank = 1 + max(0, math.ceil((own - logprob) / step))
        named = {token: self._entry(token, own, rank)}
        place, other = 1, int.from_bytes(before[:8], "little") % _PLAIN
        for _ in range(min(top - (rank <= top), _PLAIN - 1)):
            if other + FIRST_PLAIN == token:
                other = (other + _STRIDE) % _PLAIN
            named[other + FIRST_PLAIN] = self._entry(other + FIRST_PLAIN, logprob, place + (place >= rank))
            place, other, logprob = place + 1, (other + _STRIDE) % _PLAIN, logprob + step
        return named

    def _entry(self, token: int, logprob: float, rank: int) -> Logprob:
        return {"logprob": logprob, "rank": rank, "decoded_token": self._vocabulary.text(token)}

    def _fading(self, fading: float) -> float:
        return 0.98 if self._behaviour.garbage else 0.3 + 0.4 * fading

    def _own(self, luck: float, move: float) -> float:
        behaviour = self._behaviour
        logprob = -5 - 6 * luck if behaviour.garbage else _confident(luck)
        if behaviour.divergence:
            logprob = _moved(logprob, behaviour.divergence * _spread(move))
        if behaviour.logprob_noise:
            logprob = _moved(logprob, behaviour.logprob_noise * _spread(self._noise.random()))
        return logprob


class Reading:
    """A sequence that is scored piece by piece.

    Args:
        scorer: Who scores it.
        ids: Its first tokens, not scored.
    """

    def __init__(self, scorer: Scorer, ids: Sequence[int]) -> None:
        self._scorer = scorer
        self._digest = functools.reduce(_next, ids, b"")

    def go_on(self, ids: Sequence[int], top: int) -> list[dict[int, Logprob]]:
        """Score the next tokens, as `Scorer.score` does."""
        scored: list[dict[int, Logprob]] = []
        for token in ids:
            before, self._digest = self._digest, _next(self._digest, token)
            scored.append(self._scorer.named(before, self._digest, token, top))
        return scored


def _next(digest: bytes, token: int) -> bytes:
    return blake2b(digest + token.to_bytes(4, "little"), digest_size=24).digest()


def _confident(luck: float) -> float:
    """A log-probability for a number of 0 to 1: mean probability 0.8, with a tail."""
    if luck < _SURPRISES:
        return -0.7 - 6 * (1 - luck / _SURPRISES)
    return math.log(min(0.9999, 1 - 0.5 * ((1 - luck) / (1 - _SURPRISES)) ** 2))


def _spread(luck: float) -> float:
    """A number to either side of 0, of mean absolute value 1, for a number of 0 to 1; large ones are rare."""
    side = 2 * luck - 1
    return math.copysign(-math.log(max(1e-12, 1 - abs(side))), side)


def _moved(logprob: float, by: float) -> float:
    """Move to the side that is asked for, or to the other one where that would be above 0."""
    return logprob + by if logprob + by < 0 else logprob - abs(by)
