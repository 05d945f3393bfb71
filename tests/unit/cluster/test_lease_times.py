"""When a lease has run out, by the times that its holder and the API server wrote."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from llmops.clients.kubernetes.lease import run_out

WRITTEN = "2026-03-01T10:00:00Z"


def lease(renewed: str, *written: str, seconds: float = 15) -> dict[str, Any]:
    fields = [{"manager": f"m{number}", "time": time} for number, time in enumerate(written)]
    spec = {"holderIdentity": "run-a", "renewTime": renewed, "leaseDurationSeconds": seconds}
    return {"metadata": {"managedFields": fields}, "spec": spec}


@pytest.mark.parametrize(
    ("obj", "ends"),
    [
        (lease("2026-03-01T10:00:00.700000Z", WRITTEN), "2026-03-01T10:00:15.700000+00:00"),
        (lease("2026-03-01T09:30:00.000000Z", WRITTEN), "2026-03-01T09:30:15+00:00"),
        (lease("2026-03-02T10:00:00.000000Z", WRITTEN), "2026-03-01T10:00:16+00:00"),
        (lease("2099-01-01T00:00:00.000000Z", "2026-03-01T08:00:00Z", WRITTEN), "2026-03-01T10:00:16+00:00"),
        (lease("2026-03-02T10:00:00.000000Z"), "2026-03-02T10:00:15+00:00"),
    ],
    ids=["clocks agree", "holder behind", "holder a day ahead", "two writers", "no writer known"],
)
def test_no_renewal_is_later_than_its_writing(obj: dict[str, Any], ends: str) -> None:
    assert run_out(obj) == dt.datetime.fromisoformat(ends)


def test_a_free_lease_runs_out_never() -> None:
    assert run_out({"metadata": {}, "spec": {"renewTime": WRITTEN}}) is None
    assert run_out({"metadata": {}}) is None
