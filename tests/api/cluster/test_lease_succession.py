"""A new holder succeeds an ended one at once, and a process that lost a lease writes nothing."""

from __future__ import annotations

import threading

import pytest

from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.lease import LeaseHeld
from llmops.config import names
from llmops.errors import ClusterCannot
from tests.api.cluster.test_rollout_lease import brief


def test_a_lease_that_was_kept_for_a_stage_that_never_came_is_not_waited_for(cluster: Cluster) -> None:
    kept = brief(cluster, "run-a")
    kept.acquire()
    kept.stop(give_up=False)
    with pytest.raises(LeaseHeld):
        brief(cluster, "run-b", ended="run-c").acquire()
    # The lease is kept for `handover_seconds`, which is longer than the test.
    with brief(cluster, "run-b", ended="run-a"):
        lease = cluster.get("Lease", names.lease_name("m"))
        assert lease is not None
        assert lease["spec"]["holderIdentity"] == "run-b"


def test_a_holder_that_is_said_to_have_ended_and_renews_its_lease_keeps_it(cluster: Cluster) -> None:
    with brief(cluster, "run-a") as lives:
        with pytest.raises(LeaseHeld):
            brief(cluster, "run-b", ended="run-a").acquire()
        assert not lives.lost()


def test_a_guard_keeps_every_change_from_being_made_and_lets_questions_pass(cluster: Cluster) -> None:
    lost = threading.Event()

    def guard() -> None:
        if lost.is_set():
            raise ClusterCannot("the lease is lost", code="LeaseLost")

    guarded = cluster.guarded(guard)
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "guarded"}, "data": {"a": "1"}}
    guarded.create(body)
    lost.set()
    changed = body | {"data": {"a": "2"}}
    for change in (
        lambda: guarded.apply(changed),
        lambda: guarded.create(changed),
        lambda: guarded.patch("ConfigMap", "guarded", {"data": {"a": "2"}}),
        lambda: guarded.delete("ConfigMap", "guarded"),
        lambda: guarded.patient(1).delete("ConfigMap", "guarded"),
    ):
        with pytest.raises(ClusterCannot) as raised:
            change()
        assert raised.value.code == "LeaseLost"
    config_map = guarded.get("ConfigMap", "guarded")
    assert config_map is not None
    assert config_map["data"] == {"a": "1"}
    assert cluster.delete("ConfigMap", "guarded")
