"""The installation that stages, sensors and commands work on."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.transport import PATIENCE_SECONDS
from llmops.config.catalog.known import check_known
from llmops.config.catalog.load import Catalog, read_catalog
from llmops.config.catalog.spec import ModelSpec
from llmops.config.loading import Folder
from llmops.config.settings import Settings, load_settings
from llmops.config.tenants import Tenant, Tenants, read_tenants
from llmops.errors import BadInput
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
    def of(cls, settings: Settings, catalog: Catalog, left_out: Mapping[str, BadInput] | None = None) -> Platform:
        """The installation of loaded settings and a loaded catalog."""
        platform = cls()
        platform.settings = settings
        platform.catalog = catalog
        platform.left_out = left_out or {}
        return platform

    @cached_property
    def settings(self) -> Settings:
        """The installation's settings."""
        return load_settings(Path(self._settings_file) if self._settings_file else None)

    @cached_property
    def catalog(self) -> Catalog:
        """All models but those of `left_out`."""
        return self._read.entries

    @cached_property
    def left_out(self) -> Mapping[str, BadInput]:
        """Models whose file has mistakes, with the mistakes. They stop no other model; all commands name them."""
        return self._read.refused

    @cached_property
    def _read(self) -> Folder[ModelSpec]:
        return read_catalog(self.settings.models_dir, self.settings.catalog_allows)

    def spec(self, model: str) -> ModelSpec:
        """A model's entry in the catalog.

        Raises:
            BadInput: The catalog has no such model, or its file has mistakes.
        """
        if model not in self.catalog and model in self.left_out:
            raise self.left_out[model]
        check_known([model], self.catalog, self.settings.models_dir)
        return self.catalog[model]

    @property
    def all_tenants(self) -> Tenants:
        """All tenants, by name.

        Raises:
            BadInput: A tenant's file has mistakes.
        """
        return self._read_tenants.all()

    @property
    def tenants(self) -> Tenants:
        """All tenants but those of `tenants_left_out`, by name."""
        return self._read_tenants.entries

    @property
    def tenants_left_out(self) -> Mapping[str, BadInput]:
        """Tenants whose file has mistakes, with the mistakes: the router keeps what it has for them."""
        return self._read_tenants.refused

    @cached_property
    def _read_tenants(self) -> Folder[Tenant]:
        settings = self.settings
        managed = settings.router.managed
        models = (*self.catalog, *self.left_out)
        return read_tenants(
            settings.tenants_dir, models, settings.namespace, managed=managed, allowed=settings.catalog_allows
        )

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
