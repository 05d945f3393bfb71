"""What becomes a finding, beside what stable does."""

from __future__ import annotations

import pytest

from llmops.evaluation.protocol.check import Check, Reply, chat, one
from llmops.evaluation.protocol.conformance import (
    Judgement,
    Outcome,
    again,
    conformance,
    is_finding,
    open_checks,
    status_of,
)


def nothing(_: Reply) -> None:
    """Judge nothing."""


SERVER = Check("usage.sum", "It adds up.", (one(chat("Hello."), nothing),))
MODEL = Check("tools.auto", "It calls.", (one(chat("Hello."), nothing),) * 4, by="model")
RARE = Check("reasoning.field", "It reasons.", (one(chat("Hello."), nothing),) * 4, by="model", common=False)
WORDS: dict[str, Outcome] = {"p": "passed", "f": "failed", "u": "unjudged", "n": "unanswered"}


def judged(word: str) -> list[Judgement]:
    return [Judgement(WORDS[letter], "asked", "came", "wanted") for letter in word]


@pytest.mark.parametrize(
    ("check", "ours", "theirs", "finding"),
    [
        (SERVER, "f", "p", True),
        (SERVER, "f", "f", False),
        (SERVER, "f", "u", False),
        (SERVER, "f", "n", False),
        (SERVER, "f", None, False),
        (SERVER, "n", "p", False),
        (SERVER, "u", "p", False),
        (MODEL, "ffff", "pppp", True),
        (MODEL, "fffp", "pppp", True),
        (MODEL, "ffpp", "pppp", False),
        (MODEL, "ffff", "pppf", False),
        (MODEL, "ffff", "pppu", False),
        (MODEL, "ff", "pp", False),
        (MODEL, "uuuu", "pppp", False),
    ],
)
def test_a_finding_is_what_stable_can_do_and_the_canary_cannot(
    check: Check, ours: str, theirs: str | None, finding: bool
) -> None:
    other = judged(theirs) if theirs is not None else None
    assert is_finding(check, judged(ours), other, ()) is finding


@pytest.mark.parametrize(("ours", "finding"), [("ffff", True), ("fffp", True), ("ffpp", False)])
def test_what_the_entry_requires_rejects_by_itself(ours: str, finding: bool) -> None:
    for theirs in (None, judged("ffff"), judged("pppp")):
        assert is_finding(MODEL, judged(ours), theirs, ("tools",)) is finding
        assert is_finding(SERVER, judged("f"), theirs, ("usage",))


def test_further_questions_are_asked_where_they_decide() -> None:
    checks = [SERVER, MODEL]

    def asked(ours: str, theirs: str | None, *required: str) -> list[str]:
        other = {SERVER.id: judged("p"), MODEL.id: judged(theirs)} if theirs else None
        found = open_checks(checks, {SERVER.id: judged("f"), MODEL.id: judged(ours)}, other, required)  # pyright: ignore[reportArgumentType]
        return [check.id for check in found]

    assert asked("pf", "pp") == [MODEL.id]
    assert asked("pf", None) == [MODEL.id]
    assert asked("pf", "pf") == []
    assert asked("pf", "pf", "tools") == [MODEL.id]
    assert asked("pp", "pp") == []
    assert asked("pu", "pp") == []


def test_a_second_round_has_to_agree() -> None:
    assert [one.outcome for one in again(judged("ffpn"), judged("fpff"), "passed")] == [
        "failed", "passed", "passed", "failed",
    ]  # fmt: skip
    assert [one.outcome for one in again(judged("ppf"), judged("pfp"), "failed")] == ["passed", "failed", "failed"]


@pytest.mark.parametrize(
    ("word", "status"),
    [("pp", "passed"), ("pu", "passed"), ("uu", "unjudged"), ("pf", "partly"), ("ff", "failed"), ("fn", "failed"),
     ("pn", "unanswered")],
)  # fmt: skip
def test_the_status_of_a_check(word: str, status: str) -> None:
    assert status_of(judged(word)) == status


def test_what_stable_shares_is_reported_and_does_not_reject() -> None:
    ours = {SERVER.id: judged("f"), MODEL.id: judged("ffff"), RARE.id: judged("ff")}
    theirs = {SERVER.id: judged("f"), MODEL.id: judged("pppp"), RARE.id: judged("ff")}
    found = conformance([SERVER, MODEL, RARE], ours, theirs, ())
    assert [(one.check, one.finding, one.stable) for one in found.deviations] == [
        ("tools.auto", True, "passed"),
        ("usage.sum", False, "failed"),
    ]
    assert (found.checks, found.passed, len(found.findings)) == (2, 0, 1)


def test_what_some_models_cannot_is_told_only_if_stable_can() -> None:
    ours = {RARE.id: judged("ffff")}
    assert conformance([RARE], ours, None, ()).checks == 0
    assert len(conformance([RARE], ours, {RARE.id: judged("pppp")}, ()).findings) == 1
    assert len(conformance([RARE], ours, None, ("reasoning",)).findings) == 1


def test_a_check_without_an_answer_is_missing_if_stable_answers() -> None:
    found = conformance([SERVER], {SERVER.id: judged("n")}, {SERVER.id: judged("p")}, ())
    assert [one.check for one in found.missing] == [SERVER.id]
    assert conformance([SERVER], {SERVER.id: judged("n")}, {SERVER.id: judged("n")}, ()).missing == ()
