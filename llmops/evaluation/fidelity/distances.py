"""How far two engines are apart, case by case. docs/concepts/verdicts.md says what follows from it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from pydantic import Field

from llmops.config.schema import Strict
from llmops.evaluation.fidelity.scores import Position
from llmops.evaluation.fidelity.tokens import Text, Tokens

CHANGED_SHOWN = 5
AROUND = 12
"""Tokens of text before the largest difference, for people."""


class CaseDistance(Strict):
    """One case: sums over its tokens, in nats.

    Args:
        tokens: Answer tokens that both engines scored.
        difference: How far the canary's log-probabilities are from stable's, without their sign; the mean over
            stable's two scorings.
        null: How far stable's second scoring is from its first.
        kl: Kullback-Leibler divergence of the canary from stable over the likely tokens; the others count as one. A
            lower bound of the divergence over all tokens.
        same: Answer tokens before which both prefer the same token.
        prompt_tokens: Tokens of the prompt that both scored.
        prompt_difference: As `difference`, of the prompt's tokens.
        prompt_null: As `null`, of the prompt's tokens.
        written: Answer tokens that both engines wrote alike, with the token at which they part.
        written_difference: How far the log-probabilities that the canary gave while it wrote them are from stable's
            scores.
        written_null: The same for stable's own.
        parted: Whether their answers part.
    """

    tokens: int
    difference: float
    null: float
    kl: float
    same: int
    prompt_tokens: int = 0
    prompt_difference: float = 0.0
    prompt_null: float = 0.0
    written: int = 0
    written_difference: float = 0.0
    written_null: float = 0.0
    parted: bool = False


class ChangedPrompt(Strict):
    """A case whose prompt the canary reads as other tokens than stable.

    Args:
        case: SUITE/CASE.
        position: The first token that differs, counted from 0.
        canary: The canary's token ids from there, at most three.
        stable: Stable's.
    """

    case: str
    position: int
    canary: tuple[int, ...]
    stable: tuple[int, ...]


class Largest(Strict):
    """The answer token with the largest difference.

    Args:
        case: SUITE/CASE.
        before: The text before the token.
        token: The token as text.
        canary: The canary's log-probability of it.
        stable: Stable's.
    """

    case: str
    before: str
    token: str
    canary: float
    stable: float


class Distances(Strict):
    """How far a canary is from stable.

    Args:
        cases: SUITE/CASE -> its distance.
        asked: Cases that both engines were asked to score.
        left: Cases of the suite that are left to ask.
        prompts: Cases whose prompts were compared.
        changed: How many of them have other tokens.
        examples: Some of these.
        largest: The largest difference of one token.
        unavailable: Why there is nothing to compare; empty if there is.
    """

    cases: dict[str, CaseDistance] = Field(default_factory=dict[str, CaseDistance])
    asked: int = 0
    left: int = 0
    prompts: int = 0
    changed: int = 0
    examples: tuple[ChangedPrompt, ...] = ()
    largest: Largest | None = None
    unavailable: str = ""

    def figures(self) -> dict[str, float]:
        """The figures over all cases, by name; those that have no token to tell of are missing."""
        rows = self.cases.values()
        tokens, written = sum(row.tokens for row in rows), sum(row.written for row in rows)
        read = sum(row.prompt_tokens for row in rows)
        figures = {"cases": float(len(rows)), "tokens": float(tokens), "changed_prompts": float(self.changed)}
        if tokens:
            difference = math.fsum(row.difference for row in rows) / tokens
            null = math.fsum(row.null for row in rows) / tokens
            figures |= {"divergence": difference - null, "difference": difference, "null": null}
            figures["kl"] = math.fsum(row.kl for row in rows) / tokens
            figures["same_token_share"] = sum(row.same for row in rows) / tokens
        if written:
            over = math.fsum(row.written_difference - row.written_null for row in rows)
            figures["written_divergence"] = over / written
            compared = [row.parted for row in rows if row.written]
            figures["same_text_share"] = 1 - sum(compared) / len(compared)
        if read:
            over = math.fsum(row.prompt_difference - row.prompt_null for row in rows)
            figures["prompt_divergence"] = over / read
        if self.largest is not None:
            figures["largest_difference"] = abs(self.largest.canary - self.largest.stable)
        return figures


@dataclass(frozen=True)
class Scorings:
    """Scores of the same texts, by case; a case without a score is missing.

    Args:
        canary: The canary's.
        stable: Stable's.
        again: Stable's second ones.
    """

    canary: Mapping[str, Sequence[Position]]
    stable: Mapping[str, Sequence[Position]]
    again: Mapping[str, Sequence[Position]]


def distances(
    asked: Sequence[Text],
    scorings: Scorings,
    canary: Mapping[str, Tokens],
    stable: Mapping[str, Tokens],
    left: int = 0,
) -> Distances:
    """Compare two engines.

    Args:
        asked: The texts that both were asked to score.
        scorings: Their scores.
        canary: The canary's own answers by case.
        stable: Stable's own answers by case.
        left: Number of texts that are left to ask.
    """
    scored = [
        (text, scorings.canary[text.case], scorings.stable[text.case], scorings.again[text.case])
        for text in asked
        if text.case in scorings.canary and text.case in scorings.stable and text.case in scorings.again
    ]
    cases = {
        text.case: _case(text, ours, theirs, again, canary.get(text.case), stable.get(text.case))
        for text, ours, theirs, again in scored
    }
    both = sorted(canary.keys() & stable.keys())
    changed = [case for case in both if canary[case].prompt != stable[case].prompt]
    return Distances(
        cases=cases,
        asked=len(asked),
        left=left,
        prompts=len(both),
        changed=len(changed),
        examples=tuple(_changed(case, canary[case], stable[case]) for case in changed[:CHANGED_SHOWN]),
        largest=_largest((text, ours, theirs) for text, ours, theirs, _ in scored),
    )


def from_reference(
    kept: Sequence[tuple[Text, Sequence[Position]]],
    scores: Mapping[str, Sequence[Position]],
    again: Mapping[str, Sequence[Position]],
) -> Distances:
    """How far an engine is from the scores that a release gave at its promotion, in the answers' tokens.

    Args:
        kept: Texts, each with the scores of its answer's tokens.
        scores: The engine's scores of the whole texts, by case.
        again: Its second ones: the null.
    """
    answers = [Text(text.case, text.prompt[-1:], text.answer) for text, _ in kept]
    then = {text.case: positions for text, positions in kept}
    # The engine takes both places of stable: what it differs from itself is the null.
    return distances(answers, Scorings(then, _of_answers(kept, scores), _of_answers(kept, again)), {}, {})


def _of_answers(
    kept: Sequence[tuple[Text, Sequence[Position]]], scores: Mapping[str, Sequence[Position]]
) -> dict[str, Sequence[Position]]:
    return {text.case: scores[text.case][len(text.prompt) - 1 :] for text, _ in kept if text.case in scores}


def _case(
    text: Text,
    ours: Sequence[Position],
    theirs: Sequence[Position],
    again: Sequence[Position],
    wrote: Tokens | None,
    stable_wrote: Tokens | None,
) -> CaseDistance:
    start = len(text.prompt) - 1  # the first token of the text has no score
    answer = list(zip(ours[start:], theirs[start:], again[start:], strict=True))
    prompt = list(zip(ours[:start], theirs[:start], again[:start], strict=True))
    written = _written(text, theirs[start:], wrote, stable_wrote)
    return CaseDistance(
        tokens=len(answer),
        difference=_rounded(_apart(mine, yours, twice) for mine, yours, twice in answer),
        null=_rounded(abs(twice.own - yours.own) for _, yours, twice in answer),
        kl=_rounded(_kl(yours.likely, mine.likely) for mine, yours, _ in answer),
        same=sum(mine.best == yours.best for mine, yours, _ in answer),
        prompt_tokens=len(prompt),
        prompt_difference=_rounded(_apart(mine, yours, twice) for mine, yours, twice in prompt),
        prompt_null=_rounded(abs(twice.own - yours.own) for _, yours, twice in prompt),
        written=len(written.apart),
        written_difference=_rounded(written.apart),
        written_null=_rounded(written.own),
        parted=written.parted,
    )


def _apart(mine: Position, yours: Position, twice: Position) -> float:
    return (abs(mine.own - yours.own) + abs(mine.own - twice.own)) / 2


def _rounded(values: Iterable[float]) -> float:
    return round(math.fsum(values), 6)


def _kl(stable: Mapping[int, float], canary: Mapping[int, float]) -> float:
    """Divergence over the tokens that both list, the rest as one more."""
    both = stable.keys() & canary.keys()
    pairs = [(math.exp(stable[token]), math.exp(canary[token])) for token in both]
    rest = [max(1e-9, 1 - math.fsum(side)) for side in zip(*pairs, strict=True)] if pairs else [1.0, 1.0]
    pairs.append((rest[0], rest[1]))
    return max(0.0, math.fsum(p * math.log(p / q) for p, q in pairs if p > 0 and q > 0))


@dataclass(frozen=True)
class _Written:
    """Tokens that both engines wrote: how far each is from stable's scores, and whether they part at the last one."""

    apart: Sequence[float] = ()
    own: Sequence[float] = ()
    parted: bool = False


def _written(text: Text, scores: Sequence[Position], wrote: Tokens | None, stable_wrote: Tokens | None) -> _Written:
    if wrote is None or stable_wrote is None or wrote.prompt != text.prompt:
        return _Written()
    if len(wrote.logprobs) != len(wrote.answer) or len(stable_wrote.logprobs) != len(stable_wrote.answer):
        return _Written()
    alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(wrote.answer, text.answer, strict=False)))
    apart = [abs(wrote.logprobs[place] - scores[place].own) for place in range(alike)]
    own = [abs(stable_wrote.logprobs[place] - scores[place].own) for place in range(alike)]
    if parted := alike < min(len(wrote.answer), len(text.answer)):
        apart.append(_where_they_part(scores[alike], wrote, text.answer[alike], alike))
        own.append(abs(stable_wrote.logprobs[alike] - scores[alike].own))
    return _Written(apart, own, parted)


def _where_they_part(score: Position, wrote: Tokens, own: int, place: int) -> float:
    """At least how far they are apart at a token of the canary in place of stable's own."""
    ours, token = wrote.logprobs[place], wrote.answer[place]
    if token in score.likely:
        by_stable = score.likely[token]
        apart = abs(ours - by_stable)
    else:
        # Stable's score of it is not known, and at most that of the least likely token listed. Stable's own does not
        # count: it is listed however improbable it is.
        by_stable = min((value for likely, value in score.likely.items() if likely != own), default=0.0)
        apart = max(0.0, ours - by_stable)
    # An engine that writes the most probable token leaves stable's for another only where they are about as probable.
    # A larger gap is another way of sampling, even if the log-probabilities are the same.
    return max(apart, score.own - by_stable) if wrote.greedy else apart


def _changed(case: str, ours: Tokens, theirs: Tokens) -> ChangedPrompt:
    alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(ours.prompt, theirs.prompt, strict=False)))
    return ChangedPrompt(
        case=case,
        position=alike,
        canary=ours.prompt[alike : alike + 3],
        stable=theirs.prompt[alike : alike + 3],
    )


def _largest(scored: Iterable[tuple[Text, Sequence[Position], Sequence[Position]]]) -> Largest | None:
    worst, found = 0.0, None
    for text, ours, theirs in scored:
        start = len(text.prompt) - 1
        for place in range(start, len(ours)):
            apart = abs(ours[place].own - theirs[place].own)
            if apart > worst:
                worst, found = apart, (text, ours, theirs, place)
    if found is None:
        return None
    text, ours, theirs, place = found
    return Largest(
        case=text.case,
        before="".join(position.text for position in theirs[max(0, place - AROUND) : place]),
        token=theirs[place].text,
        canary=round(ours[place].own, 6),
        stable=round(theirs[place].own, 6),
    )
