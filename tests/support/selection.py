"""Selects the tests of `make test` and `make test-full`, and orders them.

`make test` runs tests/unit, tests/api and the cases of tests/e2e below, without tests marked `full`. `make test-full`
runs all others: tests marked `full`, the rest of tests/e2e, tests/bench, and the sandbox's tests.
"""

from __future__ import annotations

import pytest

# One case on a sandbox for each promise of llmops.
PROMISES = {
    "a promotion and a rollback drop no request": (
        "tests/e2e/rollout/test_promotion.py::test_no_request_is_dropped_or_truncated_by_promotion_and_rollback"
    ),
    "a worse release is rejected, and stable serves on": (
        "tests/e2e/rollout/test_rejections.py::test_a_bad_release_is_rejected_for_its_own_reason[10 points lower]"
    ),
    "a release that does not hold is taken back": (
        "tests/e2e/rollout/test_rollback.py::test_new_pods_that_never_get_ready_are_taken_back_and_nobody_notices"
    ),
    "a cancelled rollout leaves nothing behind": (
        "tests/e2e/interrupted/test_cancel.py::test_a_cancelled_rollout_leaves_nothing_behind[canary measured]"
    ),
    "the run after a killed one brings order": (
        "tests/e2e/interrupted/test_kills.py::test_a_promotion_left_half_way_is_undone_when_another_release_is_asked_for"
    ),
    "a release that serves is left alone": (
        "tests/e2e/interrupted/test_reruns.py::test_a_release_that_serves_is_left_alone"
    ),
    "an engine that somebody else put there is not judged": (
        "tests/e2e/rollout/test_foreign_engines.py::test_a_stable_that_is_not_its_release_is_nothing_to_compare_with"
    ),
    "a flipped bit of what serves is found and fetched again": (
        "tests/e2e/validation/test_revalidation.py"
        "::test_a_flipped_bit_is_named_and_repaired_while_the_engine_keeps_serving"
    ),
    "users are moved to a good release in steps": (
        "tests/e2e/live/test_traffic_steps.py::test_a_good_release_takes_its_steps_and_no_user_notices"
    ),
}
FULL = ("tests/e2e/", "tests/bench/", "sandbox/tests/")
# The longest tests start first, so that no process works alone at the end.
SLOWEST_FIRST = (
    "tests/e2e/interrupted",
    "tests/e2e/rollout",
    "tests/e2e/live",
    "tests/e2e",
    "sandbox/tests/agent",
    "tests/api",
    "sandbox/tests",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of `make test-full`, and sort by topic; tests of a file keep their order."""

    def rank(item: pytest.Item) -> int:
        return next((place for place, topic in enumerate(SLOWEST_FIRST) if item.nodeid.startswith(topic)), 99)

    for item in items:
        if item.nodeid.startswith(FULL) and item.nodeid not in PROMISES.values():
            item.add_marker("full")
    items.sort(key=rank)
