"""Replicas change hands between the pipeline and a real HPA controller, in a real API server."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from llmops_sandbox.controlplane import ControlPlane

from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.ownership import owners
from llmops.clients.kubernetes.problems import Conflict
from llmops.config import names
from llmops.config.settings import load_settings
from llmops.errors import ClusterCannot
from llmops.manifests.volume import namespace
from llmops.rollout.ops.companions import surround
from llmops.rollout.ops.scaling import apply_stable, autoscaler_of, is_scaled, preview
from llmops.rollout.platform import Platform
from tests.api.cluster.conftest import eventually
from tests.api.rollout.test_surroundings import release

SCALED = {"replicas": 2, "autoscaling": {"max": 6}}


class World:
    """A model of the test's own, as the catalog and the cluster have it."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.models = folder / "models"
        self.models.mkdir()
        self.file = folder / "settings.yaml"
        self.file.write_text(json.dumps(settings | {"models_dir": str(self.models)}))
        self.cluster.apply(namespace(load_settings(self.file)))

    @property
    def platform(self) -> Platform:
        return Platform(settings_file=str(self.file))

    @property
    def cluster(self) -> Cluster:
        return self.platform.cluster

    def declare(self, **sections: Any) -> None:
        base = {"name": "tiny", "weights": {"repo": "a/b"}, "engine": {"version": "0.32.0"}}
        (self.models / "tiny.yaml").write_text(json.dumps(base | sections))

    def apply(self, *, surge: bool = True) -> dict[str, Any]:
        """What a rollout applies, in its order."""
        platform = self.platform
        found = apply_stable(platform, release(), surge=surge)
        surround(platform, platform.catalog["tiny"], release(), print)
        return found

    def main(self) -> dict[str, Any]:
        found = self.cluster.get("Deployment", "tiny")
        assert found is not None
        return found

    def replicas(self) -> int:
        return self.main()["spec"]["replicas"]

    def owns(self) -> set[str]:
        """Who owns the replicas."""
        return {each.manager for each in owners(self.main()) if ("f:spec", "f:replicas") in each.paths}

    def autoscale_to(self, number: int) -> None:
        """Have the HPA's controller set this number: within its bounds it would need figures to go by."""
        self.cluster.patch("HorizontalPodAutoscaler", "tiny", {"spec": {"minReplicas": number, "maxReplicas": number}})
        eventually(lambda: self.replicas() == number or None, seconds=30)


@pytest.fixture
def world(plane: ControlPlane, tmp_path: Path, request: pytest.FixtureRequest) -> World:
    where = request.node.name.replace("_", "-")[5:60].strip("-")
    monitoring = {"prometheus_url": "http://127.0.0.1:1"}
    return World(tmp_path, {"kubeconfig": str(plane.kubeconfig), "namespace": where, "monitoring": monitoring})


@contextmanager
def numbers(world: World) -> Generator[list[int]]:
    """Each number of replicas that the Deployment was given meanwhile."""
    seen: list[int] = []
    feed = world.cluster.open_watch("Deployment", name="tiny", timeout=120)

    def follow() -> None:
        for event in feed:
            if event.object and (not seen or seen[-1] != event.object["spec"]["replicas"]):
                seen.append(event.object["spec"]["replicas"])

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield seen
        world.cluster.apply({**_mark(world), "data": {}})
        eventually(lambda: seen or None, seconds=10)
    finally:
        feed.close()
        thread.join()


def _mark(world: World) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "mark", "namespace": world.cluster.namespace}}


def test_a_model_begins_at_the_least_number_and_its_autoscaler_is_never_fought(world: World) -> None:
    world.declare(**SCALED)
    with numbers(world) as seen:
        assert world.apply()["spec"]["replicas"] == 2
        assert world.owns() == {names.REPLICAS_MANAGER}
        world.autoscale_to(5)
        assert world.owns() == {"kube-controller-manager"}
        for surge in (True, False):
            world.apply(surge=surge)
            assert world.replicas() == 5
        assert world.owns() == {"kube-controller-manager"}
        assert is_scaled(world.main(), world.platform.catalog["tiny"])
    assert seen == [2, 5]


def test_switched_on_and_off_on_a_model_that_serves(world: World) -> None:
    world.declare(replicas=3)
    world.apply()
    with numbers(world) as seen:
        world.declare(**SCALED | {"autoscaling": {"max": 6}})
        assert not is_scaled(world.main(), world.platform.catalog["tiny"])
        world.apply()
        assert world.replicas() == 3
        world.autoscale_to(6)
        world.declare(replicas=4)
        assert not is_scaled(world.main(), world.platform.catalog["tiny"])
        apply_stable(world.platform, release(), surge=True)
        # It went first: within 2 s it would have put its own number back.
        assert world.cluster.get("HorizontalPodAutoscaler", "tiny") is None
        world.apply()
        assert autoscaler_of(world.main()) is None
        assert names.FIELD_MANAGER in world.owns()
        # From now on it is a plain number again, that the pipeline alone sets.
        world.declare(replicas=2)
        world.apply()
    assert seen == [3, 6, 4, 2]


def test_what_a_killed_run_left_half_way_is_taken_up(world: World) -> None:
    world.declare(**SCALED)
    world.apply()
    world.autoscale_to(5)
    # Off: its autoscaler was removed, and then the run was killed.
    world.cluster.delete("HorizontalPodAutoscaler", "tiny")
    world.declare(replicas=3)
    world.apply()
    assert world.replicas() == 3
    # On: another owner held the number, and then the run was killed.
    held = {"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 3}}
    meta = {"name": "tiny", "namespace": world.cluster.namespace}
    world.cluster.apply(held | {"metadata": meta}, manager=names.REPLICAS_MANAGER)
    world.declare(replicas=1)
    world.apply()
    assert world.replicas() == 1
    world.declare(**SCALED)
    world.apply()
    eventually(lambda: world.replicas() == 2 or None, seconds=30)


def test_a_model_at_zero_is_brought_back_and_one_that_is_scaled_by_hand_is_reported(world: World) -> None:
    world.declare(**SCALED)
    world.apply()
    world.cluster.patch("Deployment", "tiny", {"spec": {"replicas": 0}}, subresource="scale")
    assert not is_scaled(world.main(), world.platform.catalog["tiny"])
    assert world.apply()["spec"]["replicas"] == 2
    world.declare(replicas=2)
    world.apply()
    held = {"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 7}}
    meta = {"name": "tiny", "namespace": world.cluster.namespace}
    world.cluster.apply(held | {"metadata": meta}, force=True, manager="somebody")
    with pytest.raises(Conflict, match="somebody"):
        world.apply()


def test_from_the_adapter_s_to_keda_and_the_number_stays(world: World) -> None:
    world.declare(**SCALED)
    world.apply()
    world.autoscale_to(5)
    world.declare(replicas=2, autoscaling={"kind": "keda", "max": 6})
    assert not is_scaled(world.main(), world.platform.catalog["tiny"])
    apply_stable(world.platform, release(), surge=True)
    # KEDA refuses a Deployment that another HPA scales.
    assert world.cluster.get("HorizontalPodAutoscaler", "tiny") is None
    world.apply()
    assert world.cluster.get("ScaledObject", "tiny") is not None
    assert (world.replicas(), autoscaler_of(world.main())) == (5, "ScaledObject")


def test_a_plan_shows_no_change_and_nothing_is_lent(world: World) -> None:
    world.declare(**SCALED)
    platform = world.platform
    shown = preview(platform, release(), platform.catalog["tiny"])[-1]
    assert shown["spec"]["replicas"] == 2
    world.apply()
    world.autoscale_to(5)
    then = world.cluster.apply(preview(platform, release(), platform.catalog["tiny"])[-1], dry_run=True)
    assert then["spec"]["replicas"] == 5
    with pytest.raises(ClusterCannot, match="put it back"):
        apply_stable(platform, release(), surge=False, lent=1)
