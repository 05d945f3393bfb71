"""The one resource of the stages: the installation that they work on."""

from functools import cached_property
from pathlib import Path

import dagster as dg
from pydantic import PrivateAttr

from llmops.catalog.load import Catalog, load_catalog
from llmops.cluster.client import Cluster
from llmops.cluster.lease import RolloutLease
from llmops.releases.records import Records
from llmops.settings import Settings, load_settings


class Platform(dg.ConfigurableResource["Platform"]):
    """Cluster, records, catalog and settings, each opened when it is first used."""

    settings_file: str = ""
    """Path of the settings; empty means the file that LLMOPS_SETTINGS names, or the defaults."""

    _stages_run: list[str] = PrivateAttr(default_factory=list[str])
    _open_trials: dict[str, str] = PrivateAttr(default_factory=dict[str, str])
    _leases: dict[str, RolloutLease] = PrivateAttr(default_factory=dict[str, RolloutLease])

    @cached_property
    def settings(self) -> Settings:
        """The installation's settings."""
        return load_settings(Path(self.settings_file) if self.settings_file else None)

    @cached_property
    def catalog(self) -> Catalog:
        """All models."""
        return load_catalog(self.settings.models_dir)

    @cached_property
    def cluster(self) -> Cluster:
        """Connection to the API server."""
        return Cluster.connect(self.settings)

    @cached_property
    def records(self) -> Records:
        """What is known of releases."""
        return Records(self.cluster)

    def entered(self, stage: str) -> None:
        """Note that this process runs a stage."""
        self._stages_run.append(stage)

    def lease(self, model: str, run: str) -> RolloutLease:
        """The lease of a model for a run, the same one in all stages that this process runs."""
        return self._leases.setdefault(model, RolloutLease(self.cluster, model, run))

    def free_lease(self, model: str) -> None:
        """Let others roll the model out."""
        self._leases.pop(model).stop(give_up=True)

    def trial_open(self, model: str, release: str) -> None:
        """Note that a canary of this process's run is up, and that something has to remove it."""
        self._open_trials[model] = release

    def trial_closed(self, model: str) -> None:
        """Note that the canary is gone."""
        self._open_trials.pop(model, None)

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Remove the canary of a run that was cancelled between two stages, where no stage could; free the lease.

        Where each stage has a process of its own, this runs at the end of each: canary and lease have to outlive it.
        """
        whole_run = len(self._stages_run) > 1
        if whole_run:
            from llmops.stages.cleanup import remove_canary

            for model, release in list(self._open_trials.items()):
                if context.log:
                    context.log.warning(f"{model} {release}: the run ended between two stages; its canary is removed")
                remove_canary(self, model)
        for lease in self._leases.values():
            lease.stop(give_up=whole_run)
        self._leases.clear()
