"""Somebody replaces the engines that llmops measures: the trial ends without a verdict on the release.

Slow: each test is at least two rollouts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from llmops.cli.exits import Exit
from llmops.cli.rollouts import Ended, run_revalidation
from llmops.config import names
from tests.e2e.validation.editing import edit, replace_template
from tests.support.world import Model, measured, second_actor

SETTER = "kubectl-set"
# Absolute gates alone, then also a gate relative to stable.
ABSOLUTE: dict[str, Any] = {
    "suites": ["sums"],
    "gates": [{"metric": "sums/score", "min": 0.7}],
    "protocol": False,
}
"""Nothing is compared with stable."""
RELATIVE = {"suites": ["sums"], "gates": [{"metric": "sums/score", "max_drop": 0.1}]}


def until(holds: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)


def evaluating(model: Model) -> bool:
    candidate = model.records.state(model.name).candidate
    opened = model.records.opened(model.name, candidate) if candidate else None
    return opened is not None and opened.stage == "evaluation"


def up_to_date(model: Model, track: names.Track, image: str) -> bool:
    """Whether all engines that get requests run this image."""
    main = model.deployment(track)
    if main is None or main["status"].get("observedGeneration") != main["metadata"]["generation"]:
        return False
    now, wanted = main["status"], main["spec"]["replicas"]
    is_at = main["spec"]["template"]["spec"]["containers"][0]["image"] == image
    return is_at and now.get("updatedReplicas") == now.get("readyReplicas") == now.get("replicas") == wanted


def other_image(model: Model) -> str:
    """Reference of another image that answers well."""
    return f"{model.image}@{model.push('v0.1.0')}"


def assert_untried(model: Model, ended: Ended, stage: str, *parts: str) -> None:
    assert ended.record is not None, ended.line
    assert (ended.record.verdict, ended.record.stage) == ("Inconclusive", stage), ended.line
    assert ended.code == Exit.INCONCLUSIVE
    text = ended.record.reason + ended.record.details
    assert all(part in text for part in parts), text
    assert model.canary_gone()


def test_another_image_in_the_canary_neither_passes_nor_rejects_a_release_that_was_not_measured(model: Model) -> None:
    model.declare(evaluation=ABSOLUTE)
    assert model.rollout().code == Exit.DONE
    first = model.serving()
    other = other_image(model)
    # The new release answers half of the cases wrong.
    model.push("v0.33.0", quality=0.5)

    def swap() -> None:
        until(lambda: evaluating(model))
        edit(model, {"image": other}, track="canary", manager=SETTER)

    with second_actor(swap):
        ended = model.rollout()
    name = names.engine_name(model.name, "canary")
    parts = (f"Deployment {name}: spec.template.spec.containers[engine].image is", other, f"{SETTER} (Update) at 20")
    assert_untried(model, ended, "evaluation", *parts, f"`llmops rollout {model.name}`")
    assert model.serving() == first

    ended = model.rollout()
    assert ended.record is not None
    assert (ended.record.verdict, ended.record.stage) == ("Failed", "evaluation"), ended.line
    assert "sums/score" in ended.record.reason


def test_another_image_that_was_taken_back_before_the_end_is_told_of(model: Model) -> None:
    model.declare(evaluation={"suites": ["sums", "load"], "gates": ABSOLUTE["gates"], "concurrency": 1})
    other = other_image(model)
    # Slow answers, so that the measurement outlasts both changes.
    model.commit(ttft_ms=300)

    def swap_and_take_back() -> None:
        until(lambda: measured(model))
        canary = model.deployment("canary")
        assert canary is not None
        image = canary["spec"]["template"]["spec"]["containers"][0]["image"]
        edit(model, {"image": other}, track="canary", manager=SETTER)
        until(lambda: up_to_date(model, "canary", other))
        edit(model, {"image": image}, track="canary", manager="argocd")
        until(lambda: up_to_date(model, "canary", image))

    with second_actor(swap_and_take_back):
        ended = model.rollout()
    assert_untried(model, ended, "evaluation", "temporarily had image", other)


def test_another_image_that_crashes_says_nothing_against_the_release(model: Model) -> None:
    model.declare(evaluation=ABSOLUTE)
    broken = f"{model.image}@{model.push('v0.1.0', crash_on_load='device-side assert triggered')}"

    def swap() -> None:
        until(lambda: model.deployment("canary"))
        edit(model, {"image": broken}, track="canary", manager=SETTER)

    with second_actor(swap):
        ended = model.rollout()
    assert_untried(model, ended, "canary", broken, SETTER)
    assert model.rollout().code == Exit.DONE


def test_a_stable_that_is_not_its_release_is_nothing_to_compare_with(model: Model) -> None:
    model.declare(evaluation=RELATIVE)
    assert model.rollout().code == Exit.DONE
    edit(model, {"env": [{"name": "EXTRA", "value": "1"}]}, manager=SETTER)
    model.push("v0.33.0")
    ended = model.rollout()
    difference = f"Deployment {model.name}: spec.template.spec.containers[engine].env[EXTRA] is"
    assert_untried(model, ended, "evaluation", difference, SETTER)


def test_a_main_deployment_that_is_changed_while_it_moves_is_not_taken_for_the_release(model: Model) -> None:
    model.declare(evaluation=ABSOLUTE, rollout={"stabilization_seconds": 8})
    assert model.rollout().code == Exit.DONE
    first = model.serving()
    other = other_image(model)
    model.push("v0.33.0")

    def swap() -> None:
        until(lambda: model.serving() not in (None, first))
        edit(model, {"image": other}, manager=SETTER)

    with second_actor(swap):
        ended = model.rollout()
    difference = f"Deployment {model.name}: spec.template.spec.containers[engine].image is"
    assert_untried(model, ended, "promotion", difference, other, SETTER)
    assert model.records.state(model.name).stable == first


def test_a_stable_that_somebody_changes_during_the_trial_stops_the_promotion_until_it_is_restored(model: Model) -> None:
    model.declare(evaluation=ABSOLUTE)
    assert model.rollout().code == Exit.DONE
    first = model.serving()
    model.push("v0.33.0")

    def change() -> None:
        until(lambda: evaluating(model))
        edit(model, {"args": ["--other"], "env": [{"name": "EXTRA", "value": "1"}]}, manager=SETTER)

    with second_actor(change):
        ended = model.rollout()
    assert_untried(model, ended, "promotion", f"'{SETTER}' owns", f"`llmops revalidate {model.name} --restore`")
    assert model.records.state(model.name).stable == first
    run_revalidation(model.records, model.name, repair=False, restore=True)
    ended = model.rollout()
    assert ended.code == Exit.DONE, ended.line


def test_an_undo_during_the_promotion_is_no_obstacle_after_a_restore(model: Model) -> None:
    """The undo puts back what served: another owner of fields that have the values of stable."""
    model.declare(evaluation=ABSOLUTE, rollout={"stabilization_seconds": 8})
    assert model.rollout().code == Exit.DONE
    first, served = model.serving(), model.deployment()
    assert served is not None
    model.push("v0.33.0")

    def undo() -> None:
        until(lambda: model.serving() not in (None, first))
        replace_template(model, served["spec"]["template"], manager=SETTER)

    with second_actor(undo):
        ended = model.rollout()
    assert_untried(model, ended, "promotion", SETTER)
    assert model.records.state(model.name).stable == first
    run_revalidation(model.records, model.name, repair=False, restore=True)
    ended = model.rollout()
    assert ended.code == Exit.DONE, ended.line
    assert model.serving() != first
