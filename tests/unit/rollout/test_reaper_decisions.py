"""The reaper's decisions on remains of rollouts: a table, and properties for any remains."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.config import names
from llmops.rollout.reaper import GRACE, Act, Remains, decide, seen

NOW = dt.datetime(2026, 11, 25, 12, 0, tzinfo=dt.UTC)
SECOND = dt.timedelta(seconds=1)
CANARY = (("Deployment", "m-canary"), ("Service", "m-canary"))

CASES: dict[str, tuple[Remains, bool, Act, str]] = {
    "a model that nobody has rolled out": (Remains("m"), False, "leave", "NothingLeft"),
    "it serves, between two rollouts": (Remains("m", deployed="a", stable="a"), False, "leave", "NothingLeft"),
    "users are led to a canary that nobody is at work on": (
        Remains("m", deployed="a", stable="a", candidate="b", canary_percent=25), False, "reap", "NoHolder",
    ),
    "its run is at work": (
        Remains("m", "r", NOW + 10 * SECOND, temporary=CANARY), False, "leave", "RunAtWork",
    ),
    "its run is at work, and Dagster takes it for ended": (
        Remains("m", "r", NOW + 10 * SECOND, temporary=CANARY), True, "leave", "RunAtWork",
    ),
    "its run is between two stages": (
        Remains("m", "r", NOW + 100 * SECOND, True, CANARY), False, "leave", "RunAtWork",
    ),
    "its run was cancelled between two stages": (
        Remains("m", "r", NOW + 100 * SECOND, True, CANARY), True, "reap", "RunEnded",
    ),
    "its run has died, and may be resumed": (
        Remains("m", "r", NOW - 10 * SECOND, temporary=CANARY), False, "wait", "MayResume",
    ),
    "its run has died, and Dagster knows": (
        Remains("m", "r", NOW - 10 * SECOND, temporary=CANARY), True, "reap", "RunEnded",
    ),
    "its run has died long ago": (
        Remains("m", "r", NOW - GRACE - SECOND, temporary=CANARY), False, "reap", "LeaseRanOut",
    ),
    "its run has died, and the canary has expired": (
        Remains("m", "r", NOW - 10 * SECOND, temporary=CANARY, expires=NOW - SECOND), False, "reap", "ObjectsExpired",
    ),
    "its run is at work although the canary has expired": (
        Remains("m", "r", NOW + 10 * SECOND, temporary=CANARY, expires=NOW - SECOND), False, "leave", "RunAtWork",
    ),
    "only the lease is left": (Remains("m", "r", NOW - GRACE - SECOND), False, "reap", "LeaseRanOut"),
    "a canary that no run holds a lease for": (Remains("m", temporary=CANARY), False, "reap", "NoHolder"),
    "a replica lent to nobody": (Remains("m", deployed="a", stable="a", lent=1), False, "reap", "NoHolder"),
    "a promotion half done": (Remains("m", deployed="b", stable="a"), False, "reap", "NoHolder"),
    "a first promotion half done": (Remains("m", deployed="b", candidate="b"), False, "reap", "NoHolder"),
    "something serves, and the state that says so is lost": (Remains("m", deployed="b"), False, "reap", "NoHolder"),
}  # fmt: skip


@pytest.mark.parametrize(("remains", "ended", "act", "code"), CASES.values(), ids=CASES)
def test_each_case_has_its_decision(remains: Remains, ended: bool, act: Act, code: str) -> None:
    decision = decide(remains, NOW, ended)
    assert (decision.act, decision.code) == (act, code), decision


def test_a_decision_to_wait_says_until_when() -> None:
    died = Remains("m", "r", NOW - 10 * SECOND, temporary=CANARY)
    assert "until 12:04:50 UTC" in decide(died, NOW, False).why


releases = st.none() | st.sampled_from(["a", "b"])
moments = st.integers(-3600, 3600).map(lambda seconds: NOW + seconds * SECOND)
everything = st.builds(
    Remains,
    model=st.just("m"),
    holder=st.none() | st.just("r"),
    until=moments,
    handed_over=st.booleans(),
    temporary=st.sampled_from([(), CANARY]),
    expires=st.none() | moments,
    lent=st.integers(0, 1),
    deployed=releases,
    stable=releases,
    candidate=releases,
)


@given(everything, st.booleans())
def test_a_run_that_renews_its_lease_is_never_touched(remains: Remains, ended: bool) -> None:
    decision = decide(remains, NOW, ended)
    if remains.holder and remains.until and remains.until >= NOW and not (ended and remains.handed_over):
        assert decision.act == "leave"


@given(everything, st.booleans())
def test_all_remains_are_reaped_in_the_end(remains: Remains, ended: bool) -> None:
    """At the latest after the grace that follows the lease; where nothing is left, there is nothing to reap."""
    late = (remains.until or NOW) + GRACE + SECOND
    assert (decide(remains, late, ended).act == "reap") == bool(remains.unfinished)


@given(everything, st.booleans())
def test_a_decision_to_reap_holds_at_any_later_time(remains: Remains, ended: bool) -> None:
    if decide(remains, NOW, ended).act == "reap":
        assert decide(remains, NOW + dt.timedelta(days=1), ended).act == "reap"


def listed(kind: str, component: str, run: str | None = "r", **more: Any) -> dict[str, Any]:
    """An object as the cluster lists it."""
    meta = {"name": "it", "labels": names.labels("m", "a", component, run=run), **more.pop("metadata", {})}
    return {"kind": kind, "metadata": meta, **more}


COMPLETE = {"conditions": [{"type": "Complete", "status": "True"}]}


@pytest.mark.parametrize(
    ("manifest", "temporary"),
    [
        (listed("Deployment", "engine"), True),
        (listed("Service", "engine"), True),
        (listed("Service", "engine", run=None), False),
        (listed("Deployment", "engine", metadata={"deletionTimestamp": "2026-11-25T12:00:00Z"}), False),
        (listed("Job", "evaluation"), True),
        (listed("Job", "evaluation", status=COMPLETE), False),
        (listed("Job", "download"), False),
        (listed("Job", "rehash"), False),
    ],
)
def test_temporary_objects_are_remains(manifest: dict[str, Any], temporary: bool) -> None:
    assert bool(seen(Remains("m"), manifest, 300).temporary) == temporary


def test_the_latest_of_the_times_at_which_things_expire_counts() -> None:
    remains = Remains("m")
    for hour in (3, 5, 4):
        expires = {names.EXPIRES_ANNOTATION: f"2026-11-25T0{hour}:00:00Z"}
        remains = seen(remains, listed("Job", "evaluation", metadata={"annotations": expires}), 300)
    assert remains.expires == dt.datetime(2026, 11, 25, 5, tzinfo=dt.UTC)
