"""llmops does no finished work again, and tries no rejected release again until something changes.

Slow: each test begins with a rollout.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from llmops_sandbox.sandbox import Sandbox

from llmops.cli.exits import Exit
from llmops.config import names
from tests.support.dying import Run, Users, every_object, few_cases, log_names
from tests.support.world import Model, new_model, watched


@pytest.fixture(scope="module")
def served(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """A model that serves, with few cases to measure."""
    with new_model(sandbox, tmp_path_factory.mktemp("served")) as model:
        few_cases(model)
        ended = model.rollout()
        assert ended.code == Exit.DONE, ended.line
        yield model


def test_a_release_that_serves_is_left_alone(served: Model) -> None:
    good = served.serving()
    main = served.deployment()
    with every_object(served) as seen:
        ended = served.rollout()
    assert ended.code == Exit.DONE
    assert ended.line == f"{served.name} {good} serves already: nothing to do"
    assert served.deployment() == main
    assert not seen.names("Deployment", f"{served.name}-canary")


def test_a_rejected_release_is_refused_with_its_reason_until_it_is_asked_for_again(served: Model) -> None:
    good = served.serving()
    served.push("v0.40.0", crash_on_load="no such kernel")
    try:
        first = served.rollout()
        assert (first.code, first.record and first.record.stage) == (Exit.REJECTED, "canary")
        with every_object(served) as seen:
            refused = served.rollout()
        assert refused.code == Exit.REJECTED
        assert "was rejected on" in refused.line
        assert first.record is not None
        assert first.record.reason in refused.line
        assert "--retry" in refused.line
        assert not seen.names("Deployment", f"{served.name}-canary")
        again = served.rollout(retry=True)
        assert again.record is not None
        assert (again.code, again.record.release) == (Exit.REJECTED, first.record.release)
        assert again.record.finished > first.record.finished
        # The fixed image has the same tag and another digest: another release.
        served.push("v0.40.0")
        mended = served.rollout()
        assert mended.code == Exit.DONE, mended.line
        assert served.serving() not in (good, first.record.release)
    finally:
        served.sandbox.images.remove(served.image, "v0.40.0")


def test_a_changed_gate_makes_another_release_that_is_tried(served: Model) -> None:
    good = served.serving()
    gates = [*served.spec["evaluation"]["gates"], {"metric": "sums/score", "min": 0.999}]
    commit = served.commit(quality=0.7, branch="worse", seed=11)
    strict = {"suites": ["sums"], "gates": gates}
    before = dict(served.spec["evaluation"])
    try:
        served.declare(evaluation=strict)
        rejected = served.rollout(revision=commit)
        assert rejected.code == Exit.REJECTED, rejected.line
        assert "--retry" in served.rollout(revision=commit).line
        few_cases(served)
        promoted = served.rollout(revision=commit)
    finally:
        few_cases(served)
    assert promoted.code == Exit.DONE, promoted.line
    assert rejected.record is not None
    assert served.serving() not in (good, rejected.record.release)
    assert served.spec["evaluation"] == before


def test_two_rollouts_of_a_model_at_once_do_no_harm(served: Model, tmp_path: Path) -> None:
    """The second run waits for a while. Then it is refused, or finds the release serving."""
    log = log_names(tmp_path)
    before = served.serving()
    served.push("v0.41.0")
    with every_object(served) as seen, Users() as users, watched(served) as served_ids:
        users.ask(served)
        first, second = (Run(served, log()) for _ in range(2))
        codes = sorted((first.wait(), second.wait()))
    logs = f"{first.text}\n---\n{second.text}"
    now = served.serving()
    assert now not in (None, before)
    assert codes[0] == Exit.DONE, logs
    assert codes[1] in (Exit.DONE, Exit.CANNOT), logs
    assert ("serves already" if codes[1] == Exit.DONE else "is being rolled out by") in logs
    assert "Traceback" not in logs
    assert not users.failed[served.name]
    assert [served_id for served_id in served_ids if served_id] == [before, now]
    assert len(seen.of("Deployment", names.engine_name(served.name, "canary"))) == 1
    assert served.canary_gone()
