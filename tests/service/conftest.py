"""A control plane to read figures from."""

from __future__ import annotations

from tests.alerts.conftest import cluster, plane, settings

__all__ = ["cluster", "plane", "settings"]
