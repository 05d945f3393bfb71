"""The resource of all assets, jobs, sensors and schedules: the installation."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import dagster as dg

from llmops.rollout.platform import Platform


class PlatformResource(dg.ConfigurableResource[Platform]):
    """Cluster, records, catalog and settings, each opened when it is first used."""

    settings_file: str = ""
    """Path of the settings; empty means the file that LLMOPS_SETTINGS names, or the defaults."""

    def create_resource(self, context: dg.InitResourceContext) -> Platform:
        """The installation that these settings describe."""
        return Platform(self.settings_file)

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Generator[Platform]:
        """The installation for one run; in the end, what the run holds of it is given up."""
        platform = self.create_resource(context)
        try:
            yield platform
        finally:
            platform.leases.close()
