"""Passes values between stages through the records in the cluster.

So stages run in one process or in many pods, and a stage that runs again later finds the outcomes before it.
"""

from typing import Any

import dagster as dg
from pydantic import BaseModel

from llmops.errors import BadInput
from llmops.manifests.records import pins_config_map
from llmops.releases.release import Release
from llmops.rollout.platform import Platform


class RecordsIOManager(dg.ConfigurableIOManager):
    """Keeps each stage's outcome as a key of the record of the release under trial."""

    platform: dg.ResourceDependency[Platform]

    def handle_output(self, context: dg.OutputContext, obj: BaseModel | None) -> None:
        """Keep the outcome of a stage."""
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
        """The outcome of the previous stage for the release under trial.

        Raises:
            BadInput: There is none.
        """
        model = context.partition_key
        stage = context.asset_key.path[-1]
        kind: type[BaseModel] = context.dagster_type.typing_type
        records = self.platform.records
        candidate = records.state(model).candidate or records.tried_by(model, context.step_context.run_id)
        if candidate is not None:
            if kind is Release:
                return records.release(model, candidate)
            if outcome := records.outcome(model, candidate, stage, kind):
                return outcome
        raise BadInput(
            f"{model}: stage {stage} has no outcome for the release under trial ({candidate or 'none'})",
            code="NoOutcome",
            about=f"stage {stage}",
            remedy="Materialize the stages before it, or run the whole rollout.",
        )
