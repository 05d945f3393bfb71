"""The installation that stages, sensors and commands work on."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from llmops.clients.kubernetes.client import Cluster
from llmops.config.catalog.known import check_known
from llmops.config.catalog.load import Catalog, load_catalog
from llmops.config.catalog.spec import ModelSpec
from llmops.config.settings import Settings, load_settings
from llmops.config.tenants import Tenants, load_tenants
from llmops.releases.records import Records
from llmops.rollout.leases import Leases


class Platform:
    """Cluster, records, catalog, tenants and settings, each opened when it is first used.

    Args:
        settings_file: Path of the settings; empty means the file that LLMOPS_SETTINGS names, or the defaults.
    """

    def __init__(self, settings_file: str = "") -> None:
        self._settings_file = settings_file
        self.leases = Leases(lambda: self._connection)
        """Those that this process holds."""

    @cached_property
    def settings(self) -> Settings:
        """The installation's settings."""
        return load_settings(Path(self._settings_file) if self._settings_file else None)

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
        return self._connection.guarded(self.leases.check)

    @cached_property
    def records(self) -> Records:
        """What is known of releases."""
        return Records(self.cluster)

    @cached_property
    def _connection(self) -> Cluster:
        return Cluster.connect(self.settings)
