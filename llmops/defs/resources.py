"""The installation as the resource of all assets, jobs, sensors and schedules."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import dagster as dg

from llmops.rollout.platform import Platform


class PlatformResource(dg.ConfigurableResource[Platform]):
    """Makes a `Platform` for each run and each tick."""

    settings_file: str = ""
    """Path of the settings; empty means the file that LLMOPS_SETTINGS names, or the defaults."""

    def create_resource(self, context: dg.InitResourceContext) -> Platform:
        """The installation that these settings describe."""
        return Platform(self.settings_file)

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Generator[Platform]:
        """The installation for one run; at its end, frees the run's leases."""
        platform = self.create_resource(context)
        try:
            yield platform
        finally:
            platform.leases.close()
