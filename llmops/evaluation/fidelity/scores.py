"""An engine's scores of a text, read from the `prompt_logprobs` of vLLM's `/v1/completions`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

LEAST = -9999.0
"""vLLM writes this for a probability of zero."""
LONGEST_TOKEN = 200
"""Characters of a token's text that are kept: they go into the release's record."""


@dataclass(frozen=True)
class Position:
    """One token of a text.

    Args:
        own: Log-probability of the token, nats.
        best: Id of the most probable token; None if the engine does not say which.
        likely: Log-probabilities of the most probable tokens and of the token itself, by id.
        text: The token as text.
    """

    own: float
    best: int | None
    likely: Mapping[int, float]
    text: str


def read(content: Any, ids: Sequence[int]) -> tuple[Position, ...]:
    """The scores of a text, one for each token but the first.

    Args:
        content: The parsed body of the answer.
        ids: The text's tokens.

    Raises:
        ValueError: The answer has no scores, or scores of another text. The message says which.
    """
    try:
        listed = content["choices"][0]["prompt_logprobs"]
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError("the answer has no prompt_logprobs") from error
    if not isinstance(listed, list) or len(listed) != len(ids):
        found = f"{len(listed)} positions" if isinstance(listed, list) else type(listed).__name__
        raise ValueError(f"prompt_logprobs has {found}; the text has {len(ids)} tokens")
    return tuple(_position(entry, own) for entry, own in zip(listed[1:], ids[1:], strict=True))


def _position(entry: Any, own: int) -> Position:
    try:
        likely = {int(token): logprob(of["logprob"]) for token, of in entry.items()}
        best = next((int(token) for token, of in entry.items() if of.get("rank") == 1), None)
        return Position(likely[own], best, likely, writable(entry[str(own)].get("decoded_token") or "")[:LONGEST_TOKEN])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"prompt_logprobs has no score of token {own}: {repr(entry)[:120]}") from error


def logprob(value: Any) -> float:
    """A log-probability that an engine gives, at most 0 and at least `LEAST`.

    Raises:
        TypeError: It is no number.
        ValueError: It is no log-probability.
    """
    try:
        number = float(value)
    except OverflowError as error:
        raise ValueError("a number too large for a log-probability") from error
    if not isfinite(number) or number > 1e-3:
        raise ValueError(f"{value!r} is no log-probability")
    return max(LEAST, min(0.0, number))


def writable(text: Any) -> str:
    """A text of an engine without halves of surrogate pairs, which no record can hold."""
    return str(text).encode(errors="replace").decode()
