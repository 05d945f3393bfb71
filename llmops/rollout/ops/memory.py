"""What a trial knows of its model, to write it again if somebody deletes records while the trial runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llmops.config import names
from llmops.manifests.records import pins_config_map
from llmops.releases.records import OpenTrial, Records, State
from llmops.releases.release import Release


@dataclass(frozen=True)
class Memory:
    """The records that the undo of a trial needs.

    Attributes:
        model: Name of the model.
        state: Its state.
        releases: Pins of the release under trial, and of the one that serves.
        opened: The open trial; None if the stage is part of none.
    """

    model: str
    state: State
    releases: Sequence[Release]
    opened: OpenTrial | None

    def restore(self, records: Records) -> list[str]:
        """Write again what is gone. The caller holds the model's lease.

        Returns:
            The names of the ConfigMaps that were gone.
        """
        gone = [
            names.pins_name(self.model, release.id)
            for release in self.releases
            if records.save_release(pins_config_map(release))
        ]
        # Before the state: an open trial is evidence of what served.
        if self.opened is not None:
            candidate = self.releases[0].id
            if records.opened(self.model, candidate) is None and records.record(self.model, candidate) is None:
                records.open_trial(self.model, candidate, self.opened)
                gone.append(names.record_name(self.model, candidate))
        if not records.has_state(self.model, stable=self.state.stable, candidate=self.state.candidate):
            # The share of a canary with users comes from its progress, not from the begin of the stage.
            state = records.state(self.model)
            live = {"stable": self.state.stable, "previous": self.state.previous, "candidate": self.state.candidate}
            records.update_state(self.model, **state.model_copy(update=live).kept())
            gone.append(names.state_name(self.model))
        return gone
