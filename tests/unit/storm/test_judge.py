from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest

from bench.storm.acts import ACTS, MANAGER, MOMENTS, draw
from bench.storm.judge import (
    KILLED,
    Attempt,
    Gap,
    Left,
    down_by,
    ending_of,
    faults,
    is_sound,
    names_actor,
    own_faults,
    repairs,
    rerun_options,
    untrue,
)
from llmops.cli.exits import Exit

SOUND = Left("new", "new", "new", ["new", "new"], verdicts={"new": "Passed", "old": "Passed", "bad": "Failed"})
ROLLOUT = "llmops rollout"


def test_a_model_that_is_as_its_records_say_has_no_fault() -> None:
    assert is_sound(SOUND)
    assert faults(SOUND, [Attempt(ROLLOUT, Exit.DONE, "Passed")], 0.0) == []


@pytest.mark.parametrize(
    ("left", "part"),
    [
        (replace(SOUND, stable="old"), "calls old stable, and the main Deployment has new"),
        (replace(SOUND, deployed=None, template=None, pods=[]), "has None"),
        (replace(SOUND, template="old", pods=["old"]), "is labelled new, and its pods old"),
        (replace(SOUND, pods=["new", "old", None]), "ready pods have None, old"),
        (replace(SOUND, verdicts={"new": "Failed"}), "its record says Failed"),
        (replace(SOUND, opened=["bad"]), "the trial of bad has no end"),
    ],
)
def test_a_record_that_says_what_is_not_so_is_a_fault(left: Left, part: str) -> None:
    (problem,) = untrue(left)
    assert part in problem
    assert not is_sound(left)
    assert faults(left, [], 0.0) == [f"untrue record: {problem}"]


def test_a_deleted_record_says_nothing_untrue() -> None:
    assert untrue(replace(SOUND, verdicts={})) == []


def test_a_canary_and_a_silent_stable_are_faults() -> None:
    left = replace(SOUND, canaries=["Service m-canary"], answers=False)
    assert faults(left, [], 1.5) == [
        "stable was down: 1.5 s",
        "stable was down: nothing answers in the end",
        "canary left: Service m-canary",
    ]


@pytest.mark.parametrize(
    ("acted", "harms", "expected"),
    [(None, True, (5.0, 0.0)), (15.0, True, (1.0, 4.0)), (15.0, False, (5.0, 0.0)), (99.0, True, (5.0, 0.0))],
)
def test_only_what_follows_a_harmful_act_is_the_actors(
    acted: float | None, harms: bool, expected: tuple[float, float]
) -> None:
    assert down_by([Gap(10, 11), Gap(20, 24)], acted, harms=harms) == expected


def test_a_gap_that_the_act_begins_in_is_the_actors() -> None:
    assert down_by([Gap(10, 14)], 12.0, harms=True) == (0.0, 4.0)


@pytest.mark.parametrize(
    ("text", "code", "faulty"),
    [
        ("Passed", Exit.DONE, False),
        ("Traceback (most recent call last):\n  File", Exit.DONE, True),
        ("Inconclusive: an error of llmops itself: KeyError('spec')", Exit.INCONCLUSIVE, True),
        ("the run failed outside of its stages", Exit.BUG, True),
        ("m: the run failed\nStack Trace:\n  File", Exit.CANNOT, True),
        ("Failed: it crashed\nlast lines of engine:\n  Traceback (most recent call last):", Exit.REJECTED, False),
        ("", KILLED, False),
    ],
)
def test_a_trace_or_a_fault_of_llmops_is_seen(text: str, code: int, faulty: bool) -> None:
    for attempt in (Attempt(ROLLOUT, code, text), Attempt(ROLLOUT, code, "", text)):
        assert bool(own_faults([attempt])) == faulty


def test_an_ending_has_the_line_and_the_details_of_the_record() -> None:
    ended = {"code": 4, "line": "Inconclusive: it is paused", "record": {"details": "by kubectl"}, "run": "x"}
    text = f"0.1s release: begins\n{json.dumps(ended, indent=2)}\n"
    assert ending_of(text) == ending_of(f"{text}0.2s release: ends\n") == "Inconclusive: it is paused\nby kubectl"
    assert ending_of(json.dumps({**ended, "record": None}, indent=2)) == "Inconclusive: it is paused"


def test_an_ending_without_json_is_the_end_of_the_log() -> None:
    assert ending_of("one\ntwo\n") == "one\ntwo"
    assert ending_of("one\n{\n broken") == "one\n{\n broken"


def test_an_ending_names_the_actor_or_the_object() -> None:
    changed = ("Deployment m-canary",)
    assert names_actor([Attempt(ROLLOUT, Exit.INCONCLUSIVE, f"changed by {MANAGER} (Update)")], changed, MANAGER)
    assert names_actor([Attempt(ROLLOUT, Exit.INCONCLUSIVE, "m-canary is gone")], changed, MANAGER)
    missing = Attempt(ROLLOUT, Exit.REJECTED, "weights/m/key: 1 missing: model-2.safetensors")
    assert names_actor([missing], ("file weights/m/key/model-2.safetensors",), MANAGER)
    assert not names_actor([Attempt(ROLLOUT, Exit.INCONCLUSIVE, "it did not work")], changed, MANAGER)
    assert names_actor([Attempt(ROLLOUT, Exit.DONE, ""), Attempt(ROLLOUT, KILLED, "")], changed, MANAGER) is None


def test_the_operator_follows_remedies() -> None:
    assert repairs("`llmops revalidate m-1 --restore` brings it back, `llmops revalidate m-1 --restore`.", 2) == [
        ["llmops", "revalidate", "m-1", "--restore"]
    ]
    assert repairs("Remedy: kubectl rollout resume deployment/m-1 --namespace llm\nmore", 2) == [
        ["kubectl", "rollout", "resume", "deployment/m-1", "--namespace", "llm"]
    ]
    assert repairs("Stop it, then kubectl scale deployment/m --namespace llm --replicas N.", 2) == [
        ["kubectl", "scale", "deployment/m", "--namespace", "llm", "--replicas", "2"]
    ]
    assert repairs("Free a GPU.", 2) == []
    assert rerun_options("try this one again with --retry.") == ["--retry"]
    assert rerun_options("Then roll out again.") == []


def test_a_case_is_drawn_from_its_seed_and_number_alone() -> None:
    assert draw(3, 40, ACTS) == draw(3, 40, ACTS)
    assert [draw(3, index, ACTS) for index in range(30)] != [draw(4, index, ACTS) for index in range(30)]


def test_each_act_comes_once_in_a_turn_and_at_a_stage_of_its_own() -> None:
    drawn = [draw(7, index, ACTS) for index in range(2 * len(ACTS))]
    assert set(Counter(case.act.name for case in drawn).values()) == {2}
    assert all(case.stage in case.act.stages and set(case.act.stages) <= set(MOMENTS) for case in drawn)
    assert all(0 <= case.fraction < 1 and case.seconds > 0 for case in drawn)
