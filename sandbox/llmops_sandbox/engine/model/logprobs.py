"""How likely a simulated model finds the tokens of a sequence.

What it says of a token follows from the tokens before it, the token itself and the behaviour alone: every process says
the same, in any order. The token that comes is taken for the model's own: it has a probability of 0.8 in the mean, one
in twenty is a surprise. The rest is shared by alternatives, each less likely than the one before.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class _Position:
    """The distribution at one position: the token that comes, and how fast the alternatives fade."""

    token: int
    logprob: float
    fading: float
    first: int

    @property
    def _head(self) -> float:
        """Log-probability of the likeliest alternative."""
        return math.log(-math.expm1(self.logprob)) + math.log1p(-self.fading)

    @property
    def rank(self) -> int:
        """Rank of the token that comes."""
        return 1 + max(0, math.ceil((self.logprob - self._head) / math.log(self.fading)))

    def alternatives(self) -> Iterator[tuple[int, float]]:
        """The other tokens with their log-probability, likeliest first."""
        logprob, step = self._head, math.log(self.fading)
        for number in range(_PLAIN):
            token = FIRST_PLAIN + (self.first + number * _STRIDE) % _PLAIN
            if token != self.token:
                yield token, logprob
                logprob += step


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
        return [None, *(self._named(position, top) for position in self._positions(ids))] if ids else []

    def _named(self, position: _Position, top: int) -> dict[int, Logprob]:
        rank = position.rank
        named = {position.token: self._entry(position.token, position.logprob, rank)}
        others = top - (rank <= top)
        for place, (token, logprob) in zip(range(1, others + 1), position.alternatives(), strict=False):
            named[token] = self._entry(token, logprob, place + (place >= rank))
        return named

    def _entry(self, token: int, logprob: float, rank: int) -> Logprob:
        return {"logprob": logprob, "rank": rank, "decoded_token": self._vocabulary.text(token)}

    def _positions(self, ids: Sequence[int]) -> Iterator[_Position]:
        """The distributions after the first token, after the first two, and so on."""
        digest = _next(b"", ids[0])
        for token in ids[1:]:
            first = int.from_bytes(digest[:8], "little")
            digest = _next(digest, token)
            luck, move, fading = (int.from_bytes(digest[at : at + 8], "little") * _FRACTION for at in (0, 8, 16))
            yield _Position(token, self._own(luck, move), self._fading(fading), first)

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
