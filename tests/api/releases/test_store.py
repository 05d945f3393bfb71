"""Writes to ConfigMaps survive other writers, and end after a bounded number of attempts with the reason."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.problems import Forbidden
from llmops.errors import ClusterCannot, LlmopsError
from llmops.releases.store import ATTEMPTS, LIMIT_BYTES, Changes, Data, Store, config_map
from tests.api.cluster.conftest import eventually
from tests.api.releases.conftest import Attempts

LABELS = {"example.com/kind": "test"}


def one_more(data: Data) -> Changes:
    return {"count": str(int(data.get("count", "0")) + 1)}


def test_what_is_written_is_read(store: Store) -> None:
    assert store.get("one") is None
    assert store.data("one") == {}
    store.merge("one", LABELS, {"a": "1", "b": "2", "never": None})
    store.merge("one", LABELS, {"b": None, "c": "3"})
    assert store.data("one") == {"a": "1", "c": "3"}
    assert [(stored.name, stored.labels, stored.data) for stored in store.list(LABELS)] == [
        ("one", LABELS, {"a": "1", "c": "3"})
    ]
    assert not store.create(config_map("one", {}, {"a": "other"}))
    assert store.data("one") == {"a": "1", "c": "3"}
    assert (store.delete("one"), store.delete("one")) == (True, False)


def test_an_update_may_change_nothing(store: Store) -> None:
    assert store.update("one", LABELS, lambda _: None) is None
    assert store.get("one") is None
    assert store.update("one", LABELS, lambda _: {}) is not None
    assert store.get("one") is not None


def test_a_conflict_with_a_second_writer_converges(store: Store, attempts: Attempts) -> None:
    seen: list[str] = []

    def change(data: Data) -> Changes:
        seen.append(data.get("count", "0"))
        if len(seen) <= 3:
            # The first update creates the ConfigMap after this writer has found none.
            store.update("one", LABELS, one_more)
        return {**one_more(data), "mine": "yes"}

    stored = Store(attempts.cluster).update("one", LABELS, change)
    assert stored is not None
    assert stored.data == store.data("one") == {"count": "4", "mine": "yes"}
    assert (seen, attempts.made) == (["0", "1", "2", "3"], 4)


def test_a_second_writer_that_deletes_converges(store: Store) -> None:
    store.merge("one", LABELS, {"count": "7"})
    seen: list[Data] = []

    def change(data: Data) -> Changes:
        seen.append(data)
        if len(seen) == 1:
            store.delete("one")
        return one_more(data)

    store.update("one", LABELS, change)
    assert seen == [{"count": "7"}, {}]
    assert store.data("one") == {"count": "1"}


def test_many_writers_at_once_lose_nothing(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        updates = [pool.submit(store.update, "one", LABELS, one_more) for _ in range(24)]
        merges = [pool.submit(store.merge, "one", LABELS, {f"key-{n}": "set"}) for n in range(8)]
    assert [future.exception() for future in (*updates, *merges)] == [None] * 32
    assert store.data("one") == {"count": "24", **{f"key-{n}": "set" for n in range(8)}}


def test_an_update_that_never_wins_ends(store: Store, cluster: Cluster, attempts: Attempts) -> None:
    store.merge("one", LABELS, {})

    def change(data: Data) -> Changes:
        store.update("one", LABELS, one_more)
        return one_more(data)

    with pytest.raises(ClusterCannot) as raised:
        Store(attempts.cluster).update("one", LABELS, change)
    assert attempts.made == ATTEMPTS
    assert store.data("one") == {"count": str(ATTEMPTS)}
    assert (raised.value.code, raised.value.about) == ("TooManyConflicts", "ConfigMap one")
    assert "patch ConfigMap one" in raised.value.message, "the API server's last answer"
    assert f"kubectl get configmap one -n {cluster.namespace}" in raised.value.remedy


def test_a_merge_that_never_wins_ends(store: Store, cluster: Cluster) -> None:
    store.merge("one", LABELS, {})
    made = 0

    def other() -> None:
        """Delete the ConfigMap before each patch, and create it before each creation."""
        nonlocal made
        made += 1
        if not store.delete("one"):
            store.merge("one", LABELS, {})

    with pytest.raises(ClusterCannot) as raised:
        Store(cluster.guarded(other)).merge("one", LABELS, {"a": "1"})
    assert (raised.value.code, raised.value.about) == ("TooManyConflicts", "ConfigMap one")
    assert made == 2 * ATTEMPTS


def writes(store: Store) -> dict[str, Callable[[], object]]:
    return {
        "create": lambda: store.create(config_map("one", LABELS, {"a": "1"})),
        "merge": lambda: store.merge("one", LABELS, {"a": "1"}),
        "update": lambda: store.update("one", LABELS, one_more),
    }


@pytest.mark.parametrize("way", ["create", "merge", "update"])
def test_a_namespace_that_is_gone_ends_a_write(cluster: Cluster, way: str) -> None:
    gone = f"{cluster.namespace}-gone"
    attempts = Attempts(Cluster.connect(cluster.settings.model_copy(update={"namespace": gone})))
    with pytest.raises(ClusterCannot) as raised:
        writes(Store(attempts.cluster))[way]()
    assert raised.value.message == (
        f'create ConfigMap one in namespace {gone}: 404 NotFound: namespaces "{gone}" not found'
    )
    assert raised.value.remedy == f"Create the namespace {gone}."
    # A merge tries to patch first.
    assert attempts.made == (2 if way == "merge" else 1)


@pytest.mark.parametrize("way", ["create", "merge", "update"])
def test_a_namespace_that_terminates_ends_a_write(cluster: Cluster, store: Store, attempts: Attempts, way: str) -> None:
    held = config_map("held", {}, {})
    held["metadata"]["finalizers"] = ["example.com/held"]
    store.create(held)
    store.merge("one", LABELS, {"a": "0"})
    cluster.delete("Namespace", cluster.namespace)
    try:
        eventually(lambda: True if store.get("one") is None else None, seconds=60)
        with pytest.raises(Forbidden) as raised:
            writes(Store(attempts.cluster))[way]()
    finally:
        cluster.patch("ConfigMap", "held", {"metadata": {"finalizers": None}})
    assert "create ConfigMap one" in raised.value.message
    assert f"namespace {cluster.namespace} because it is being terminated" in raised.value.message
    assert raised.value.remedy == "Wait until the namespace is gone, then create it again."
    assert attempts.made == (2 if way == "merge" else 1)


@pytest.mark.parametrize("way", ["merge", "update"])
@pytest.mark.parametrize("before", [0, 600_000])
def test_more_than_a_configmap_holds_is_refused_by_name_and_size(
    cluster: Cluster, store: Store, attempts: Attempts, way: str, before: int
) -> None:
    store.merge("one", LABELS, {"old": "x" * before, "small": "y"})
    # Without old data the change alone is more than the API server reads of a request.
    size = 600_000 if before else 4_000_000
    changes = {"new": "é" * (size // 2)}
    writer = Store(attempts.cluster)
    with pytest.raises(ClusterCannot) as raised:
        writer.merge("one", LABELS, changes) if way == "merge" else writer.update("one", LABELS, lambda _: changes)
    assert (raised.value.code, raised.value.about) == ("RecordTooLarge", "ConfigMap one")
    assert f"{LIMIT_BYTES:,}" in raised.value.message
    assert f"new ({size:,} bytes)" in raised.value.message
    assert f"kubectl edit configmap one -n {cluster.namespace}" in raised.value.remedy
    if before:
        assert f"{before + size + 1:,} bytes" in raised.value.message
    assert store.data("one") == {"old": "x" * before, "small": "y"}
    assert attempts.made <= 1


def test_as_much_as_a_configmap_holds_is_kept(store: Store) -> None:
    store.merge("one", LABELS, {"all": "x" * LIMIT_BYTES})
    store.merge("one", LABELS, {"all": "y" * LIMIT_BYTES})
    assert store.data("one") == {"all": "y" * LIMIT_BYTES}


@pytest.mark.parametrize("way", ["create", "merge", "update"])
def test_a_quota_that_refuses_is_named_in_its_own_words(cluster: Cluster, attempts: Attempts, way: str) -> None:
    eventually(lambda: cluster.get("ConfigMap", "kube-root-ca.crt"), seconds=60)
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few-records"}}
    cluster.apply({**quota, "spec": {"hard": {"count/configmaps": "1"}}})
    # The API server refuses everything until the quota's status is known.
    eventually(
        lambda: (cluster.get("ResourceQuota", "few-records") or {}).get("status", {}).get("used") or None, seconds=60
    )
    with pytest.raises(Forbidden) as raised:
        writes(Store(attempts.cluster))[way]()
    assert raised.value.message.startswith(f"create ConfigMap one in namespace {cluster.namespace}: 403 ")
    assert (
        "exceeded quota: few-records, requested: count/configmaps=1, used: count/configmaps=1, "
        "limited: count/configmaps=1"
    ) in raised.value.message
    assert raised.value.remedy == "Free or raise the quota of the namespace."
    assert attempts.made == (2 if way == "merge" else 1)


def test_an_error_of_the_change_itself_is_not_tried_again(store: Store) -> None:
    calls: list[Data] = []

    def change(data: Data) -> Changes:
        calls.append(data)
        raise LlmopsError("no")

    with pytest.raises(LlmopsError, match="no"):
        store.update("one", LABELS, change)
    assert len(calls) == 1
