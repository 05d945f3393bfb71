"""The installation that stages, sensors and commands work on."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.transport import PATIENCE_SECONDS
from llmops.config.catalog.known import check_known
from llmops.config.catalog.load import Catalog, load_catalog
from llmops.config.catalog.spec import ModelSpec
from llmops.config.settings import Settings, load_settings
from llmops.config.tenants import Tenants, load_tenants
from llmops.releases.records import Records
from llmops.rollout.leases import Leases


class Platform:
    """Settings, catalog, tenants, cluster, records and leases; each is opened on first use and kept.

    A command, a run and the sensors of the code location have one each. To read the files again, make a new one.

    Args:
        settings_file: Path of the settings; empty means the file in LLMOPS_SETTINGS, or the defaults.
    """

    def __init__(self, settings_file: str = "") -> None:
        self._settings_file = settings_file
        self.leases = Leases(lambda: self._connection)
        """Leases that this process holds."""

    @classmethod
    def of(cls, settings: Settings, catalog: Catalog) -> Platform:
        """The installation of loaded settings and a loaded catalog."""
        platform = cls()
        platform.settings = settings
        platform.catalog = catalog
        return platform

    @cached_property
    def settings(self) -> Settings:
        """The installation's settings."""
        return load_settings(Path(self._settings_file) if self._settings_file else None)

    @cached_property
    def catalog(self) -> Catalog:
        """All models, by name."""
        return load_catalog(self.settings.models_dir)

    def spec(self, model: str) -> ModelSpec:
        """A model's entry in the catalog.

        Raises:
            BadInput: The catalog has no such model.
        """
        check_known([model], self.catalog, self.settings.models_dir)
        return self.catalog[model]

    @cached_property
    def tenants(self) -> Tenants:
        """All tenants, by name."""
        settings = self.settings
        managed = settings.router.managed
        return load_tenants(settings.tenants_dir, self.catalog, settings.namespace, managed=managed)

    def connect(self, patience: float = PATIENCE_SECONDS) -> Cluster:
        """Open a connection to the API server that checks no lease.

        Args:
            patience: Seconds that each call keeps trying while the API server does not answer.

        Raises:
            BadInput: The kubeconfig or its context cannot be used.
            Unavailable: The API server does not answer.
        """
        return Cluster.connect(self.settings, patience=patience)

    @cached_property
    def cluster(self) -> Cluster:
        """Connection to the API server; it sends no write once this process has lost a lease."""
        return self._connection.guarded(self.leases.check)

    @cached_property
    def records(self) -> Records:
        """Records and state of all models."""
        return Records(self.cluster)

    @cached_property
    def _connection(self) -> Cluster:
        return self.connect()
