"""A control plane to read figures from."""

from __future__ import annotations

from tests.api.alerts.conftest import cluster, plane, settings

__all__ = ["cluster", "plane", "settings"]
