"""What is kept of a promoted release to recognize it later: texts with the log-probabilities that it gave them."""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from llmops.config.schema import Strict
from llmops.evaluation.fidelity.scores import Position
from llmops.evaluation.fidelity.tokens import Text

LONGEST = 100 << 10
"""Bytes of a packed reference: it shares a ConfigMap with the release's outcomes."""
LONGEST_UNPACKED = 16 << 20
STEPS = 10_000
"""Log-probabilities are kept in steps of one ten-thousandth of a nat."""


class Reference(Strict):
    """Texts and their scores, packed.

    Args:
        suite: The fidelity suite.
        texts: Number of texts.
        packed: Base64 of zlib of JSON: a list of case, ids of the prompt, ids of the answer, and the answer's
            log-probabilities in steps.
    """

    suite: str
    texts: int
    packed: str

    def unpack(self) -> list[tuple[Text, tuple[Position, ...]]]:
        """The texts, each with the scores of its answer's tokens.

        Raises:
            ValueError: The content is damaged.
        """
        try:
            packed = base64.b64decode(self.packed, validate=True)
            listed: Any = json.loads(zlib.decompressobj().decompress(packed, LONGEST_UNPACKED))
            return [_restored(*entry) for entry in listed]
        except (binascii.Error, zlib.error, TypeError, RecursionError) as error:
            raise ValueError(f"the reference is damaged: {error}") from error


def reference(suite: str, scored: Sequence[Text], scores: Mapping[str, Sequence[Position]]) -> Reference | None:
    """Pack scored texts, as many as fit; None if there is none.

    Args:
        suite: Name of the suite.
        scored: The texts, the most telling first.
        scores: Scores by case; texts without are left out.
    """
    entries = [_entry(text, scores[text.case]) for text in scored if text.case in scores]
    count = len(entries)
    while count and len(packed := _packed(entries[:count])) > LONGEST:
        # Compressed texts are about equally long: go down to what fits, a little at a time.
        count = min(count - 1, int(count * LONGEST / len(packed)))
    return Reference(suite=suite, texts=count, packed=_packed(entries[:count])) if count else None


def _packed(entries: Sequence[Any]) -> str:
    return base64.b64encode(zlib.compress(json.dumps(entries, separators=(",", ":")).encode(), 9)).decode()


def _entry(text: Text, scores: Sequence[Position]) -> list[Any]:
    own = [round(-position.own * STEPS) for position in scores[len(text.prompt) - 1 :]]
    return [text.case, text.prompt, text.answer, own]


def _restored(
    case: str, prompt: Sequence[int], answer: Sequence[int], own: Sequence[int]
) -> tuple[Text, tuple[Position, ...]]:
    if len(own) != len(answer) or not prompt:
        raise ValueError(f"the reference is damaged: {case} has {len(own)} scores for {len(answer)} tokens")
    text = Text(str(case), tuple(map(int, prompt)), tuple(map(int, answer)))
    return text, tuple(Position(-int(steps) / STEPS, None, {}, "") for steps in own)
