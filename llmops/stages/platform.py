"""The one resource of the stages: the installation that they work on."""

from collections.abc import Callable
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
    _open_trials: dict[str, Callable[[], None]] = PrivateAttr(default_factory=dict[str, Callable[[], None]])
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

    def left_open(self, model: str, cancel: Callable[[], None]) -> None:
        """Note what ends a trial that the next stage is to take up, in case that none begins."""
        self._open_trials[model] = cancel

    def taken_up(self, model: str) -> None:
        """Note that a stage sees to the model's trial again."""
        self._open_trials.pop(model, None)

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """End the trial of a run that was cancelled between two stages, where no stage could; free the lease.

        Where each stage has a process of its own, this runs at the end of each: trial and lease have to outlive it.
        """
        whole_run = len(self._stages_run) > 1
        if whole_run:
            for cancel in self._open_trials.values():
                cancel()
            self._open_trials.clear()
        for lease in self._leases.values():
            lease.stop(give_up=whole_run)
        self._leases.clear()
