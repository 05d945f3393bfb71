"""The one resource of the stages: the installation that they work on."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import dagster as dg
from pydantic import PrivateAttr

from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.lease import RolloutLease
from llmops.config.catalog.known import check_known
from llmops.config.catalog.load import Catalog, load_catalog
from llmops.config.catalog.spec import ModelSpec
from llmops.config.settings import Settings, load_settings
from llmops.config.tenants import Tenants, load_tenants
from llmops.errors import ClusterCannot
from llmops.releases.records import Records


class Platform(dg.ConfigurableResource["Platform"]):
    """Cluster, records, catalog and settings, each opened when it is first used."""

    settings_file: str = ""
    """Path of the settings; empty means the file that LLMOPS_SETTINGS names, or the defaults."""

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

    def spec(self, model: str) -> ModelSpec:
        """A model's entry in the catalog.

        Raises:
            BadInput: There is none.
        """
        check_known([model], self.catalog, self.settings.models_dir)
        return self.catalog[model]

    @cached_property
    def tenants(self) -> Tenants:
        """All tenants."""
        settings = self.settings
        managed = settings.router.managed
        return load_tenants(settings.tenants_dir, self.catalog, settings.namespace, managed=managed)

    @cached_property
    def cluster(self) -> Cluster:
        """Connection to the API server, by which nothing is changed any more once a lease is lost."""
        return self._connection.guarded(self._check_leases)

    @cached_property
    def records(self) -> Records:
        """What is known of releases."""
        return Records(self.cluster)

    @cached_property
    def _connection(self) -> Cluster:
        return Cluster.connect(self.settings)

    def lease(self, model: str, run: str, *, ended: str | None = None) -> RolloutLease:
        """The lease of a model for a run, the same one in all stages that this process runs.

        Args:
            model: Name of the model.
            run: Who holds it.
            ended: A holder that is known to have ended.
        """
        return self._leases.setdefault(model, RolloutLease(self._connection, model, run, ended=ended))

    def free_lease(self, model: str) -> None:
        """Let others roll the model out."""
        self._leases.pop(model).stop(give_up=True)

    def hand_over(self, model: str) -> None:
        """Keep the model's lease for the run's next stage, which another process runs."""
        self._leases.pop(model).stop(give_up=False)

    def left_open(self, model: str, cancel: Callable[[], None]) -> None:
        """Note what ends a trial that this process's next stage is to take up, in case that none begins."""
        self._open_trials[model] = cancel

    def taken_up(self, model: str) -> None:
        """Note that a stage sees to the model's trial again."""
        self._open_trials.pop(model, None)

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """End the trial of a run that was cancelled between two stages, where no stage could; free what is held."""
        try:
            for model, cancel in self._open_trials.items():
                if not self._leases[model].lost():
                    cancel()
        finally:
            self._open_trials.clear()
            for model in list(self._leases):
                self.free_lease(model)

    def _check_leases(self) -> None:
        for model, lease in self._leases.items():
            if lease.lost():
                raise ClusterCannot(
                    f"the lease of {model} is lost, and another run may have it: this one changes nothing any more",
                    remedy="See which run holds it: kubectl describe lease " + lease.name,
                )
