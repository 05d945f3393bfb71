"""The order of the whole suite: what takes longest begins first, so that no process works on alone at the end."""

from __future__ import annotations

import hypothesis
import pytest

# How long an example takes is said of the machine's load, too; a test that must be fast measures that itself.
hypothesis.settings.register_profile("any-machine", deadline=None)
hypothesis.settings.load_profile("any-machine")

SLOWEST_FIRST = (
    "tests/e2e/rollout",
    "tests/e2e/live",
    "tests/e2e",
    "sandbox/tests/agent",
    "tests/api",
    "sandbox/tests",
    "tests/bench",
    "tests/unit/evaluation",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort by topic; tests of a file stay together and in their order."""

    def rank(item: pytest.Item) -> int:
        return next((place for place, topic in enumerate(SLOWEST_FIRST) if item.nodeid.startswith(topic)), 99)

    items.sort(key=rank)
