"""A gate on cost in a rollout: each release has the price of its own GPUs and its measured throughput.

Slow: two rollouts, each measured under load.
"""

from __future__ import annotations

import json

import pytest

from llmops.cli.exits import Exit
from llmops.config.catalog.spec import COST_METRIC
from llmops.costs.comparison import usd_per_million
from tests.support.world import Model


def test_a_release_whose_tokens_cost_much_more_is_rejected(model: Model) -> None:
    gates = [{"metric": COST_METRIC, "max": 1e6}, {"metric": COST_METRIC, "max_ratio": 2.0}]
    model.declare(evaluation={"suites": ["load"], "gates": gates})
    # Enough for eight turns: a gate on cost gets no further rounds.
    load = model.evals / "load.yaml"
    load.write_text(json.dumps({**json.loads(load.read_text()), "requests": 160}))
    first = model.rollout()
    assert first.code == Exit.DONE, first.line
    assert first.record is not None
    figures = first.record.figures
    # 900 USD a month is the high end of the packaged price of one L40S.
    assert figures[COST_METRIC] == pytest.approx(usd_per_million(900, figures["load/total_token_throughput"]))

    model.commit(ttft_ms=500)
    ended = model.rollout()
    assert ended.code == Exit.REJECTED, ended.line
    assert ended.line.startswith(f"Failed: {COST_METRIC}")
    assert "limit 2x" in ended.line
