"""What an engine read and wrote, as token ids, and which of it to score."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

LONGEST_ANSWER = 256
"""Tokens of one answer that count: no case may use up the suite's tokens."""
LONGEST_TEXT = 1024
"""Tokens of prompt and answer. A longer text is not scored.

For scores, vLLM holds a text's logits of the whole vocabulary several times: about 10 bytes a token and word, 1.3 GB
for 1,024 tokens and a vocabulary of 128,000. What it reserves at its start does not count that. Engines with little
memory left have died of it (github.com/vllm-project/vllm/issues/5907, 38830), and stable serves users meanwhile.
"""


@dataclass(frozen=True)
class Tokens:
    """One answer.

    Args:
        prompt: Ids of what the engine read: the conversation as its chat template and its tokenizer write it.
        answer: Ids of what it wrote, the end of the text included.
        logprobs: Natural logarithm of each answer token's probability when the engine wrote it; empty if not given.
        greedy: Whether the engine was asked for the most probable token each time.
    """

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    logprobs: tuple[float, ...] = ()
    greedy: bool = False


@dataclass(frozen=True)
class Text:
    """A text to score: a case's prompt with stable's answer.

    Args:
        case: SUITE/CASE.
        prompt: Ids of the prompt.
        answer: Ids of the answer's first tokens, at most `LONGEST_ANSWER`.
    """

    case: str
    prompt: tuple[int, ...]
    answer: tuple[int, ...]

    @property
    def ids(self) -> tuple[int, ...]:
        """The whole text."""
        return self.prompt + self.answer


def texts(answers: Mapping[str, Tokens], most: int) -> list[Text]:
    """The texts to score: as many as have `most` answer tokens together, in an order that no suite decides.

    Args:
        answers: SUITE/CASE -> stable's answer.
        most: Answer tokens in all. The first text may have more.
    """
    return list(_up_to(most, answers))


def _up_to(most: int, answers: Mapping[str, Tokens]) -> Iterator[Text]:
    total = 0
    for case in sorted(answers, key=lambda name: hashlib.sha256(name.encode()).digest()):
        tokens = answers[case]
        text = Text(case, tokens.prompt, tokens.answer[:LONGEST_ANSWER])
        # The first token of a text has no score, as nothing is before it.
        if not text.prompt or not text.answer or len(text.ids) > LONGEST_TEXT:
            continue
        total += len(text.answer)
        if total > most and total > len(text.answer):
            return
        yield text
