"""Somebody deletes records of one kind at each stage of a rollout: work is done again or refused, and stable serves.

Slow: each test is a chain of rollouts, and each stage loses its records before each of its writes.
"""

from __future__ import annotations

import itertools
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llmops_sandbox.sandbox import Sandbox

from llmops.cli.exits import Exit
from llmops.config import names
from llmops.config.steps import WRITE_EVENT
from llmops.releases.records import OPEN_KEY
from llmops.releases.stages import STAGES
from tests.e2e.interrupted.test_cancel import until
from tests.e2e.interrupted.test_lost_state import uids, when_promoting
from tests.support.dying import Point, Run, Users, few_cases, log_names
from tests.support.world import Model, new_model

pytestmark = pytest.mark.timeout(1200)

seeds = itertools.count(100)
"""A seed for each release, so that each has weights of its own."""
LEASE = "lease"
KINDS: dict[str, tuple[str, ...]] = {kind: (kind,) for kind in ("state", "pins", "trial", "weights")}
KINDS["what no stage reads"] = ("alert", "counters", LEASE)
KINDS["all at once"] = tuple(kind for kinds in KINDS.values() for kind in kinds)


def lose(model: Model, kind: str) -> None:
    """Delete the model's records of a key of KINDS."""
    cluster = model.cluster
    if LEASE in KINDS[kind]:
        cluster.delete("Lease", names.lease_name(model.name))
    for record in cluster.list("ConfigMap", labels={names.MODEL_LABEL: model.name}):
        if record["metadata"]["labels"].get(names.RECORD_LABEL) in KINDS[kind]:
            cluster.delete("ConfigMap", record["metadata"]["name"])


class Thief:
    """Deletes records of a model before each write that this process sends in one stage, as an audit hook."""

    def __init__(self) -> None:
        self.model: Model | None = None
        self.kind = self.stage = ""
        self.stolen = 0
        self._at = ""
        self._busy = False
        sys.addaudithook(self)

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if event != WRITE_EVENT or self.model is None or self._busy:
            return
        verb, kind, _, body = args
        if self._at == self.stage and kind != "Lease" and verb != "delete":
            self._busy = True
            try:
                lose(self.model, self.kind)
                self.stolen += 1
            finally:
                self._busy = False
        if opened := ((body or {}).get("data") or {}).get(OPEN_KEY):
            self._at = json.loads(opened)["stage"]


@pytest.fixture(scope="module")
def thief() -> Iterator[Thief]:
    """Python keeps a hook for the life of the process: it does nothing without a model."""
    thief = Thief()
    yield thief
    thief.model = None


@pytest.fixture(scope="module")
def served(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    with new_model(sandbox, tmp_path_factory.mktemp("stolen")) as model:
        few_cases(model)
        ended = model.rollout()
        assert ended.code == Exit.DONE, ended.line
        yield model


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_record_that_is_lost_at_each_stage_costs_work_or_a_refusal(
    served: Model, thief: Thief, kind: str
) -> None:
    for stage in STAGES:
        good, kept = served.serving(), uids(served)
        before = served.records.release(served.name, str(good))
        served.commit(seed=next(seeds))
        thief.kind, thief.stage, thief.stolen, thief.model = kind, stage, 0, served
        try:
            ended = served.rollout()
        finally:
            thief.model = None
        where = f"{kind} lost at {stage}: {ended.line}"
        assert thief.stolen, where
        assert ended.code in (Exit.DONE, Exit.INCONCLUSIVE, Exit.CANNOT, Exit.BAD_INPUT), where
        state, serving = served.records.state(served.name), served.serving()
        assert serving is not None, where
        if kind != "all at once":
            # Without any pins of what served, nothing can go back to it.
            assert (serving == good) == (ended.code != Exit.DONE), where
        assert state.stable == serving, where
        assert uids(served) == kept, where
        # Whatever was refused is done by another rollout. Without any pins of what serves, its own comes first.
        again = served.rollout()
        if again.code != Exit.DONE and kind == "all at once":
            assert "roll out the same entry, revision and engine" in again.line, again.line
            pinned = served.rollout(revision=before.weights.commit)
            assert pinned.code == Exit.DONE, pinned.line
            again = served.rollout()
        assert again.code == Exit.DONE, f"{where}; then {again.line}"
        until(served.canary_gone, 60)
        assert served.serving() == served.records.state(served.name).stable != good, where


@pytest.mark.parametrize("kind", KINDS)
def test_a_promotion_that_is_cancelled_after_records_were_lost_goes_back(
    served: Model, tmp_path: Path, kind: str
) -> None:
    few_cases(served, rollout={"stabilization_seconds": 8})
    served.commit(seed=next(seeds))
    good, kept = served.serving(), uids(served)
    with Users() as users:
        users.ask(served)
        point = Point("promoting", world=when_promoting(lambda model: lose(model, kind), good), signal=signal.SIGTERM)
        run = Run(served, log_names(tmp_path)(), point)
        assert run.wait() == Exit.CANCELLED, run.text
        until(lambda: served.canary_gone() and served.serving() == good, 90)
    assert uids(served) == kept
    assert not users.failed[served.name], run.text
    state = served.records.state(served.name)
    assert (state.stable, state.recovered) == (good, False)
    assert served.records.release(served.name, str(good)).id == good
    few_cases(served)
