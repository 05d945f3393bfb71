"""Threads and processes contend for the lease of a model."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from llmops_sandbox.cluster.controlplane import ControlPlane

from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.lease import ATTEMPTS, LeaseContested, LeaseHeld, RolloutLease, holders
from llmops.clients.kubernetes.watch import Object
from llmops.config import names
from llmops.config.settings.lease import LeaseSettings
from llmops.errors import ClusterCannot
from tests.api.cluster.conftest import api_server_away, eventually


def brief(
    cluster: Cluster, holder: str, *, release: str = "", ended: str | None = None, renew_seconds: float = 0.5
) -> RolloutLease:
    """A lease that runs out after two seconds."""
    return RolloutLease(with_brief_leases(cluster, renew_seconds), "m", holder, release=release, ended=ended)


def with_brief_leases(cluster: Cluster, renew_seconds: float = 0.5) -> Cluster:
    # Without validation: a test renews less often than the lease runs out.
    times = LeaseSettings.model_construct(duration_seconds=2, renew_seconds=renew_seconds, handover_seconds=300)
    return Cluster.connect(cluster.settings.model_copy(update={"lease": times}))


def spec(cluster: Cluster) -> Object:
    lease = cluster.get("Lease", names.lease_name("m"))
    assert lease is not None
    return lease["spec"]


def test_only_one_holder_at_a_time(cluster: Cluster) -> None:
    with brief(cluster, "run-a", release="abc"):
        since = spec(cluster)["acquireTime"]
        time.sleep(3)
        with pytest.raises(LeaseHeld) as raised:
            brief(cluster, "run-b").acquire()
        assert raised.value.about == f"Lease {names.lease_name('m')}"
        assert all(shown in raised.value.message for shown in ("run-a", since, "abc"))
    with brief(cluster, "run-b"):
        assert spec(cluster)["holderIdentity"] == "run-b"
        lease = cluster.get("Lease", names.lease_name("m"))
        assert lease is not None
        assert lease["metadata"]["annotations"][names.RUN_LABEL] == "run-b"
    assert "holderIdentity" not in spec(cluster)


def test_the_same_holder_shares_it_and_the_last_one_keeps_it(cluster: Cluster) -> None:
    with brief(cluster, "run-a") as outer:
        with brief(cluster, "run-a"):
            pass
        eventually(lambda: True if spec(cluster).get("holderIdentity") == "run-a" else None, seconds=3)
        time.sleep(1)
        assert not outer.lost()


def test_a_kept_lease_waits_for_its_holder(cluster: Cluster) -> None:
    lease = brief(cluster, "run-a")
    lease.acquire()
    lease.stop(give_up=False)
    time.sleep(2.5)
    with pytest.raises(LeaseHeld):
        brief(cluster, "run-b").acquire()
    with brief(cluster, "run-a"):
        assert spec(cluster)["leaseDurationSeconds"] == 2


def test_a_dead_holder_is_succeeded(cluster: Cluster, plane: ControlPlane) -> None:
    holder = hold_in_process(cluster, plane, "run-dead")
    holder.kill()
    holder.wait()
    with pytest.raises(LeaseHeld):
        brief(cluster, "run-b").acquire()
    time.sleep(2.2)
    with brief(cluster, "run-b"):
        assert spec(cluster)["leaseTransitions"] == 1


def test_a_holder_whose_clock_is_behind_is_not_pushed_out(cluster: Cluster) -> None:
    absent = brief(cluster, "run-a")
    absent.acquire()
    absent.stop(give_up=False)
    stop = threading.Event()

    def live_in_the_past() -> None:
        for number in itertools.count():
            past = f"2020-01-01T00:00:00.{number:06}Z"
            cluster.patch("Lease", names.lease_name("m"), {"spec": {"renewTime": past}})
            if stop.wait(0.2):
                return

    thread = threading.Thread(target=live_in_the_past)
    thread.start()
    try:
        time.sleep(0.5)
        with pytest.raises(LeaseHeld):
            brief(cluster, "run-b").acquire()
    finally:
        stop.set()
        thread.join()


AHEAD = "2099-01-01T00:00:00.000000Z"


def test_a_dead_holder_whose_clock_was_ahead_is_succeeded(cluster: Cluster) -> None:
    dead = brief(cluster, "run-a")
    dead.acquire()
    dead.stop(give_up=False)
    ahead = {"renewTime": AHEAD, "acquireTime": AHEAD, "leaseDurationSeconds": 2}
    cluster.patch("Lease", names.lease_name("m"), {"spec": ahead})
    assert holders(cluster) == {"m": "run-a"}
    with pytest.raises(LeaseHeld):
        brief(cluster, "run-b").acquire()
    time.sleep(3.5)
    assert holders(cluster) == {}
    with brief(cluster, "run-b"):
        assert spec(cluster)["holderIdentity"] == "run-b"


def test_a_live_holder_whose_clock_is_ahead_keeps_its_lease(cluster: Cluster) -> None:
    absent = brief(cluster, "run-a")
    absent.acquire()
    absent.stop(give_up=False)
    stop = threading.Event()

    def live_in_the_future() -> None:
        for number in itertools.count():
            ahead = {"renewTime": f"2099-01-01T00:00:00.{number:06}Z", "leaseDurationSeconds": 2}
            cluster.patch("Lease", names.lease_name("m"), {"spec": ahead})
            if stop.wait(0.3):
                return

    thread = threading.Thread(target=live_in_the_future)
    thread.start()
    try:
        contender = brief(cluster, "run-b")
        for _ in range(4):
            with pytest.raises(LeaseHeld):
                contender.acquire()
            time.sleep(1)
    finally:
        stop.set()
        thread.join()


def test_one_of_many_that_decide_at_once_wins(cluster: Cluster) -> None:
    """They read the same version of a free lease, and write at the same moment."""
    with brief(cluster, "run-before"):
        pass
    start = threading.Barrier(8)
    won: list[RolloutLease] = []

    def contend(number: int) -> None:
        lease = brief(cluster, f"run-{number}")
        start.wait()
        with contextlib.suppress(ClusterCannot):
            lease.acquire()
            won.append(lease)

    threads = [threading.Thread(target=contend, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(won) == 1
    won[0].stop(give_up=True)


def test_one_of_many_processes_wins_a_dead_holders_lease(cluster: Cluster, plane: ControlPlane) -> None:
    """Each contender prints whether it won; all see the lease run out at the same time."""
    dead = brief(cluster, "run-dead")
    dead.acquire()
    dead.stop(give_up=False)
    cluster.patch("Lease", names.lease_name("m"), {"spec": {"leaseDurationSeconds": 1}})
    contenders = [hold_in_process(cluster, plane, f"run-{number}", wait=False) for number in range(3)]
    try:
        results = [contender.stdout.readline().strip() for contender in contenders if contender.stdout]
        assert sorted(results) == ["held", "refused", "refused"]
        winner = spec(cluster)["holderIdentity"]
        assert results[int(winner.removeprefix("run-"))] == "held"
    finally:
        for contender in contenders:
            contender.kill()
            contender.wait()


def test_a_lease_that_another_took_is_lost(cluster: Cluster) -> None:
    lease = brief(cluster, "run-a")
    lease.acquire()
    cluster.patch("Lease", names.lease_name("m"), {"spec": {"holderIdentity": "run-b"}})
    time.sleep(2.2)
    assert lease.lost()
    lease.stop(give_up=True)
    assert spec(cluster)["holderIdentity"] == "run-b"


def test_a_lease_that_runs_out_while_nobody_can_take_it_goes_on(cluster: Cluster, plane: ControlPlane) -> None:
    lease = brief(cluster, "run-a")
    lease.acquire()
    with api_server_away(plane):
        time.sleep(3)
    assert not lease.lost()
    assert spec(cluster)["holderIdentity"] == "run-a"
    time.sleep(2.5)
    assert not lease.lost()
    lease.stop(give_up=True)


@pytest.mark.parametrize("holder", ["run-b", None], ids=["by another", "by another that has ended since"])
def test_a_lease_that_has_run_out_and_was_taken_is_lost(cluster: Cluster, holder: str | None) -> None:
    # The test holds up its renewals, as if the process were suspended.
    lease = brief(cluster, "run-a", renew_seconds=60)
    lease.acquire()
    cluster.patch("Lease", names.lease_name("m"), {"spec": {"holderIdentity": holder}})
    time.sleep(2.2)
    assert lease.lost()
    lease.stop(give_up=True)
    assert spec(cluster).get("holderIdentity") == holder


HOLDER = """
import sys, time
from pathlib import Path
from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.lease import RolloutLease
from llmops.errors import ClusterCannot
from llmops.config.settings import Settings

lease_settings = {"duration_seconds": 2, "renew_seconds": 0.5}
settings = Settings.model_validate({"kubeconfig": sys.argv[1], "namespace": sys.argv[2], "lease": lease_settings})
lease = RolloutLease(Cluster.connect(settings), "m", sys.argv[3])
try:
    lease.acquire()
except ClusterCannot:
    print("refused", flush=True)
else:
    print("held", flush=True)
    time.sleep(30)
"""


def hold_in_process(cluster: Cluster, plane: ControlPlane, holder: str, *, wait: bool = True) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLDER, str(plane.kubeconfig), cluster.namespace, holder]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path.cwd())
    if wait and process.stdout is not None:
        assert process.stdout.readline().strip() == "held"
    return process


def test_a_lease_that_each_stage_takes_again_is_renewed_once_and_freed_once(cluster: Cluster) -> None:
    """A second renewing thread would take the lease again after the holder gave it up."""
    lease = brief(cluster, "run-a", renew_seconds=0.01)
    for _ in range(6):
        lease.acquire()
    assert sum(thread.name == "lease of m" for thread in threading.enumerate()) == 1
    lease.stop(give_up=True)
    time.sleep(0.5)
    assert "holderIdentity" not in spec(cluster)


def test_a_lease_that_somebody_changes_before_each_write_is_given_up(cluster: Cluster) -> None:
    """As a loop of an operator does: each write then names an old version."""
    writes = itertools.count(1)
    meddles = threading.Event()

    def meddle() -> None:
        if meddles.is_set():
            mark = {"metadata": {"annotations": {"test/write": str(next(writes))}}}
            cluster.patch("Lease", names.lease_name("m"), mark)

    lease = RolloutLease(with_brief_leases(cluster, renew_seconds=1).guarded(meddle), "m", "run-a")
    with brief(cluster, "run-before"):
        pass
    meddles.set()
    with pytest.raises(LeaseContested) as raised:
        lease.acquire()
    assert raised.value.about == f"Lease {names.lease_name('m')}"
    assert next(writes) == 1 + ATTEMPTS
    assert "holderIdentity" not in spec(cluster)
    # The holder misses renewals, and renews as soon as the other writer stops.
    meddles.clear()
    with lease:
        meddles.set()
        eventually(lambda: True if lease.lost() else None, seconds=10)
        assert spec(cluster)["holderIdentity"] == "run-a"
        meddles.clear()
        assert not lease.lost()
