"""The answers of a simulated model: the same prompt always gets the same answer."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from llmops_sandbox.engine.behaviour import FILE, Behaviour

# Every model answers this prompt of probes, as a real model does.
_COMMON = {"what is the capital of france?": "The capital of France is Paris."}
# The words of answers to unknown prompts.
_VOCABULARY = (
    "a able about after again all and answer any are as at back be been before both but by can come could day did do "
    "down each even few find first for from gives go good has have he her here him his how if in into is it its just "
    "keep know last like little long made make many may me men more most much must my never new no not now of off old "
    "on one only or other our out over own part people place right same see she should so some still such take than "
    "that the their them then there these they thing this those time to two under up upon us use very was way we well "
    "went were what when where which while who will with work would year you your"
)
_WORDS = tuple(_VOCABULARY.split())


@dataclass(frozen=True)
class Answer:
    """The answers to one known prompt: `right` if `rank` is below the model's quality, else `wrong`.

    The ranks of a suite's prompts spread evenly over 0 to 1. So the number of right answers is exact, and a better
    model gets right all that a worse one does.
    """

    right: str
    wrong: str
    rank: float
    quality: float


def prompt_key(prompt: str) -> str:
    """SHA-256 of a prompt, white space normalised."""
    return hashlib.sha256(" ".join(prompt.split()).encode()).hexdigest()


class Model:
    """The answers of one weights folder under one image.

    Args:
        answers: Known prompts, by `prompt_key`.
        quality: The image's own limit on quality, 0 to 1.
        garbage: Whether all answers are gibberish.
    """

    def __init__(self, answers: Mapping[str, Answer], *, quality: float = 1.0, garbage: bool = False) -> None:
        self._answers = answers
        self._quality = quality
        self._garbage = garbage

    def knows(self, prompt: str) -> bool:
        """Whether the weights have an answer to this very prompt, or gibberish for all."""
        return self._garbage or prompt_key(prompt) in self._answers

    def reply(self, prompt: str, choice: int = 0) -> str:
        """The whole answer to a prompt; other choices differ where the answer is prose."""
        if self._garbage:
            return "".join(_gibberish(prompt))
        known = self._answers.get(prompt_key(prompt))
        if known:
            return known.right if known.rank < min(known.quality, self._quality) else known.wrong
        return _COMMON.get(" ".join(prompt.split()).lower()) or _prose(f"{prompt} {choice}" if choice else prompt)

    def filler(self, prompt: str) -> Iterator[str]:
        """Endless tokens, for a request that ignores the end of the answer."""
        chooser = random.Random(prompt_key(prompt))  # noqa: S311 -- same prompt, same text; no secret
        while True:
            yield f" {chooser.choice(_WORDS)}"


def load_model(folder: Path, behaviour: Behaviour) -> Model:
    """Read the answers of a weights folder; a folder without answers gives prose to every prompt."""
    file = folder / FILE
    content = json.loads(file.read_text()) if file.is_file() else {}
    answers = {key: Answer(**value) for key, value in content.get("answers", {}).items()}
    return Model(answers, quality=behaviour.quality, garbage=behaviour.garbage)


def _prose(prompt: str) -> str:
    chooser = random.Random(prompt_key(prompt))  # noqa: S311 -- same prompt, same text; no secret
    words = [chooser.choice(_WORDS) for _ in range(chooser.randint(24, 96))]
    return " ".join(words).capitalize() + "."


def _gibberish(prompt: str) -> Iterator[str]:
    chooser = random.Random(prompt_key(prompt))  # noqa: S311 -- same prompt, same text; no secret
    alphabet = "#@~^|<>{}\u00a4\u00a7\u25a1\ufffd\u0416\u4e2d\u0e01!!!!"
    for _ in range(64):
        yield "".join(chooser.choice(alphabet) for _ in range(chooser.randint(2, 7))) + " "
