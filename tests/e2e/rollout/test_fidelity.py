"""A new engine over the same weights must be the same model; new weights may be another one."""

from __future__ import annotations

from llmops.cli.exits import Exit
from llmops.rollout.outcomes import EvaluationOutcome
from tests.support.world import Model

SUITES = ["sums", "fidelity", "load"]


def outcome_of(model: Model, release: str | None) -> EvaluationOutcome:
    assert release is not None
    outcome = model.records.outcome(model.name, release, "evaluation", EvaluationOutcome)
    assert outcome is not None
    return outcome


def test_a_new_engine_that_is_another_model_is_rejected_and_an_equal_one_promoted(model: Model) -> None:
    # Too few cases to tell a drop of two points by themselves.
    gates = [{"metric": "sums/score", "max_drop": 0.02}]
    model.declare(evaluation={"suites": SUITES, "gates": gates})
    assert model.rollout().code == Exit.DONE
    first = model.serving()

    model.push("v0.33.0", divergence=0.05)
    other = model.rollout()
    assert other.code == Exit.REJECTED, other.line
    assert "nats a token over the null" in other.line
    assert model.serving() == first

    model.push("v0.34.0")
    equal = model.rollout()
    assert equal.code == Exit.DONE, equal.line
    assert model.serving() != first
    # The canary's GPU, from its creation to the verdict.
    assert outcome_of(model, model.serving()).canary.figures["trial/gpu_seconds"] >= 1
    settled = [gate for gate in outcome_of(model, model.serving()).verdict.gates if gate.rule == "max_drop"]
    assert "both are the same model by their log-probabilities" in settled[0].note


def test_new_weights_may_differ_and_the_distance_is_reported(model: Model) -> None:
    model.declare(evaluation={"suites": SUITES, "gates": [{"metric": "sums/score", "max_drop": 0.05}]})
    assert model.rollout().code == Exit.DONE
    model.commit(divergence=0.05)
    changed = model.rollout()
    assert changed.code == Exit.DONE, changed.line
    outcome = outcome_of(model, model.serving())
    assert not [gate for gate in outcome.verdict.gates if gate.rule == "max_divergence"]
    assert outcome.canary.figures["fidelity/divergence"] > 0.03


def test_another_template_of_a_new_engine_is_told_as_that(model: Model) -> None:
    model.declare(evaluation={"suites": SUITES, "gates": []})
    assert model.rollout().code == Exit.DONE
    model.push("v0.33.0", chat_template_tokens=2)
    ended = model.rollout()
    assert ended.code == Exit.REJECTED, ended.line
    assert "the chat template or the tokenizer differs" in ended.line
