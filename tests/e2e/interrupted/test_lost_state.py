"""Somebody deletes the state's ConfigMap while a trial runs: stable keeps serving, however the trial ends.

Slow: each test is a rollout up to the loss of its state.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from llmops_sandbox.sandbox import Sandbox

from llmops.cli.exits import Exit
from llmops.config import names
from llmops.releases.records import OPEN_KEY
from llmops.rollout.ops.routing.router import router_objects
from llmops.rollout.reaper import reap_all
from tests.e2e.interrupted.test_cancel import until
from tests.e2e.interrupted.test_reaper import reaped
from tests.support.dying import Point, Run, Users, few_cases, log_names
from tests.support.world import Model, new_model

pytestmark = pytest.mark.timeout(600)

# Long enough to lose the state in the middle of a promotion.
ROLLOUT = {"stabilization_seconds": 8}


@pytest.fixture(scope="module")
def served(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    with new_model(sandbox, tmp_path_factory.mktemp("lost")) as model:
        few_cases(model, rollout=ROLLOUT)
        ended = model.rollout()
        assert ended.code == Exit.DONE, ended.line
        model.push("v0.33.0")
        yield model


def lose_state(model: Model) -> None:
    model.cluster.delete("ConfigMap", names.state_name(model.name))


def lose_all_proof(model: Model) -> None:
    """As if an older version of llmops had opened the trial, and no record of a passed release were left."""
    lose_state(model)
    for record in model.records.history(model.name):
        model.cluster.delete("ConfigMap", names.record_name(model.name, record.release))
    main = model.deployment()
    assert main is not None
    release = main["metadata"]["labels"][names.RELEASE_LABEL]
    trial = model.records.opened(model.name, release)
    assert trial is not None
    opened = {OPEN_KEY: trial.model_dump_json(exclude={"served"})}
    model.cluster.patch("ConfigMap", names.record_name(model.name, release), {"data": opened})


def when_promoting(lose: Callable[[Model], None], before: str | None) -> Callable[[Model], bool]:
    """True once the main Deployment has another release than before; it then calls `lose`."""

    def look(model: Model) -> bool:
        main = model.deployment()
        if main is None or main["metadata"]["labels"][names.RELEASE_LABEL] == before:
            return False
        lose(model)
        return True

    return look


def uids(model: Model) -> dict[str, str]:
    kinds = ("Deployment", "Service", "PodDisruptionBudget")
    objects = {kind: model.cluster.get(kind, model.name) for kind in kinds}
    return {kind: obj["metadata"]["uid"] for kind, obj in objects.items() if obj is not None}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_promotion_that_ends_without_its_state_goes_back_to_what_served(
    served: Model, tmp_path: Path, number: signal.Signals
) -> None:
    before, good, kept = served.records.state(served.name), served.serving(), uids(served)
    assert good is not None
    assert len(kept) == 3
    with Users() as users:
        users.ask(served)
        point = Point("promoting", world=when_promoting(lose_state, good), signal=number)
        run = Run(served, log_names(tmp_path)(), point)
        code = run.wait()
        if number == signal.SIGKILL:
            assert code == -signal.SIGKILL, run.text
            remains = reaped(served, lambda run: True)
            assert remains.record is not None
            assert remains.record.verdict == "Inconclusive"
        else:
            assert code == Exit.CANCELLED, run.text
            assert f"llmops writes ConfigMap {served.name}.state again" in run.text
        until(lambda: served.canary_gone() and served.serving() == good, 90)
    state = served.records.state(served.name)
    assert (state.stable, state.previous, state.recovered) == (good, before.previous, False)
    assert state.candidate not in (None, good)
    assert uids(served) == kept
    assert not users.failed[served.name], run.text


def test_a_release_is_compared_with_what_serves_although_the_state_is_lost(served: Model, tmp_path: Path) -> None:
    """llmops never skips a relative gate as if nothing served."""
    good = served.serving()
    commit = served.commit(quality=0.2, branch="worse", seed=5)
    gates = [{"metric": "sums/score", "max_drop": 0.3}]
    few_cases(served, evaluation={"suites": ["sums"], "gates": gates}, rollout=ROLLOUT)

    def lose(model: Model) -> bool:
        if model.deployment("canary") is None:
            return False
        lose_state(model)
        return True

    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.02) and not lose(served):
            pass

    thread = threading.Thread(target=look)
    thread.start()
    try:
        ended = served.rollout(revision=commit)
    finally:
        stop.set()
        thread.join()
        few_cases(served, rollout=ROLLOUT)
    assert ended.code == Exit.REJECTED, ended.line
    assert ended.record is not None
    assert (ended.record.stage, served.serving()) == ("evaluation", good)
    assert "dropped" in ended.record.reason
    assert served.records.state(served.name).stable == good


def test_a_state_that_is_lost_between_two_rollouts_is_written_again(served: Model) -> None:
    good, kept, routed = served.serving(), uids(served), router_objects(served.platform, None)
    router = routed[-1]
    assert good is not None
    assert served.name in str(routed)
    lose_state(served)
    # Its route stays when the rollout of another model applies the router.
    assert router_objects(served.platform, router) == routed
    assert served.records.state(served.name).stable == good
    lines: list[str] = []
    assert len(list(reap_all(served.platform, lines.append, ended=lambda run: True))) == 1, lines
    again = served.cluster.get("ConfigMap", names.state_name(served.name))
    assert again is not None
    assert again["data"]["stable"] == good
    assert not list(reap_all(served.platform, lines.append, ended=lambda run: True))
    lose_state(served)
    commit, engine = pins(served, good)
    assert served.rollout(revision=commit, engine_version=engine).line == (
        f"{served.name} {good} serves already: nothing to do"
    )
    assert uids(served) == kept


def pins(model: Model, release: str) -> tuple[str, str]:
    pinned = model.records.release(model.name, release)
    return pinned.weights.commit, pinned.engine.tag.removeprefix("v")


def test_a_rollback_goes_where_it_would_have_gone_with_its_state(served: Model) -> None:
    good = served.serving()
    ended = served.rollout()
    assert ended.code == Exit.DONE, ended.line
    lose_state(served)
    back = served.rollback()
    assert back.code == Exit.DONE, back.line
    assert served.serving() == good
    assert served.records.state(served.name).stable == good


def test_a_first_promotion_without_its_state_leaves_nothing_half_done(sandbox: Sandbox, tmp_path: Path) -> None:
    with new_model(sandbox, tmp_path / "model") as first:
        few_cases(first, rollout=ROLLOUT)
        point = Point("promoting", world=when_promoting(lose_state, None), signal=signal.SIGTERM)
        run = Run(first, log_names(tmp_path)(), point)
        assert run.wait() == Exit.CANCELLED, run.text
        assert not uids(first)


def test_without_proof_of_what_served_nothing_is_taken_away(sandbox: Sandbox, tmp_path: Path) -> None:
    with new_model(sandbox, tmp_path / "model") as model:
        few_cases(model, rollout=ROLLOUT)
        assert model.rollout().code == Exit.DONE
        kept, good = uids(model), model.serving()
        model.push("v0.33.0")
        # A run that ends by itself still knows what served.
        run = Run(model, log_names(tmp_path)(), Point("promoting", world=when_promoting(lose_all_proof, good)))
        assert run.wait() == -signal.SIGKILL, run.text
        cleared = reaped(model, lambda run: True)
        assert f"{model.name}: llmops leaves the main Deployment as it is" in cleared.line
        until(lambda: model.serving() is not None, 60)
        assert uids(model) == kept
        refused = model.rollout()
        assert refused.code == Exit.CANNOT, refused.line
        assert f"kubectl patch configmap {model.name}.state" in refused.line
        release = str(model.serving())
        model.cluster.patch("ConfigMap", names.state_name(model.name), {"data": {"stable": release}})
        ended = model.rollout()
        assert ended.code == Exit.DONE, ended.line
        assert uids(model) == kept
