"""The order of the whole suite: what takes longest begins first, so that no process works on alone at the end."""

from __future__ import annotations

import hypothesis
import pytest

# How long an example takes is said of the machine's load, too; a test that must be fast measures that itself.
hypothesis.settings.register_profile("any-machine", deadline=None)
hypothesis.settings.load_profile("any-machine")

SLOWEST_FIRST = (
    "tests/stages",
    "tests/bench",
    "tests/live",
    "tests/doctor",
    "tests/remote",
    "tests/validation",
    "tests/installation",
    "tests/manifests/test_everything",
    "tests/costs/test_cost_review",
    "tests/alerts/test_alerts_of_rollouts",
    "tests/formats/test_tool_rollout",
    "tests/agent",
    "tests/cluster",
    "tests/automation",
    "tests/sandbox",
    "tests/worker",
    "tests/evaluation",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort by topic; tests of a file stay together and in their order."""

    def rank(item: pytest.Item) -> int:
        return next((place for place, topic in enumerate(SLOWEST_FIRST) if item.nodeid.startswith(topic)), 99)

    items.sort(key=rank)
