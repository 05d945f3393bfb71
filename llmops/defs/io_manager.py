"""Carries values between stages through the records in the cluster.

So stages run in one process or in many pods alike, and a stage that is run again later finds what the one before left.
"""

from typing import Any

import dagster as dg
from pydantic import BaseModel

from llmops.errors import BadInput
from llmops.manifests.records import pins_config_map
from llmops.releases.release import Release
from llmops.rollout.platform import Platform


class RecordsIOManager(dg.ConfigurableIOManager):
    """An outcome of a stage is a key of the record of the release under trial."""

    platform: dg.ResourceDependency[Platform]

    def handle_output(self, context: dg.OutputContext, obj: BaseModel | None) -> None:
        """Keep what a stage made."""
        if obj is None:
            return
        records = self.platform.records
        if isinstance(obj, Release):
            records.save_release(pins_config_map(obj))
            records.update_state(obj.model, candidate=obj.id)
            return
        outcome: Any = obj
        records.save_outcome(outcome.model, outcome.release, context.asset_key.path[-1], obj)

    def load_input(self, context: dg.InputContext) -> BaseModel:
        """What the stage before made of the release under trial.

        Raises:
            BadInput: It made nothing yet.
        """
        model = context.partition_key
        stage = context.asset_key.path[-1]
        kind: type[BaseModel] = context.dagster_type.typing_type
        records = self.platform.records
        candidate = records.state(model).candidate
        if candidate is not None:
            if kind is Release:
                return records.release(model, candidate)
            if found := records.outcome(model, candidate, stage, kind):
                return found
        raise BadInput(
            f"{model}: stage {stage} has left nothing for the release under trial ({candidate or 'none'})",
            remedy="Materialize the stages before it, or run the whole rollout.",
        )
