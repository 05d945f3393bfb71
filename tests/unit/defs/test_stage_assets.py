"""The assets of a rollout are its stages, in their order, and the router after the last."""

from __future__ import annotations

import dagster as dg

from llmops.defs.rollout.assets import ASSETS, KINDS, stage_assets
from llmops.defs.rollout.jobs import rollout_job


def test_there_is_one_asset_for_each_stage_of_the_list() -> None:
    assets = stage_assets(dg.StaticPartitionsDefinition(["m"]))
    assert tuple(asset.key.to_user_string() for asset in assets) == ASSETS
    assert set(KINDS) <= set(ASSETS)
    assert ", ".join(ASSETS) in str(rollout_job(assets).description)
