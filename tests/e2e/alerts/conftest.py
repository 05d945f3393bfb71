"""A receiver of alerts."""

from tests.api.alerts.conftest import receiver, receivers

__all__ = ["receiver", "receivers"]
