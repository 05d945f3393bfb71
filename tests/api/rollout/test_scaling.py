"""llmops hands the replicas over to a real HPA controller and takes them back, on a real API server."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from llmops_sandbox.cluster.controlplane import ControlPlane

from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.ownership import owners
from llmops.clients.kubernetes.problems import Conflict
from llmops.config import names
from llmops.config.settings import load_settings
from llmops.errors import ClusterCannot
from llmops.manifests.volume import namespace
from llmops.rollout.ops.companions import apply_companions
from llmops.rollout.ops.scaling import apply_stable, autoscaler_of, dry_run_stable, is_scaled, preview
from llmops.rollout.platform import Platform
from tests.api.cluster.conftest import eventually
from tests.api.rollout.test_surroundings import release

SCALED = {"replicas": 2, "autoscaling": {"max": 6}}


class World:
    """A model in a catalog and a namespace of the test."""

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
        """Apply what a rollout applies, in the same order."""
        platform = self.platform
        main = apply_stable(platform, release(), surge=surge)
        apply_companions(platform, platform.catalog["tiny"], release(), print)
        return main

    def main(self) -> dict[str, Any]:
        main = self.cluster.get("Deployment", "tiny")
        assert main is not None
        return main

    def replicas(self) -> int:
        return self.main()["spec"]["replicas"]

    def replica_owners(self) -> set[str]:
        """Field managers that own the replicas."""
        return {owner.manager for owner in owners(self.main()) if ("f:spec", "f:replicas") in owner.paths}

    def autoscale_to(self, number: int) -> None:
        """Have the HPA's controller set this number. With equal bounds it needs no metrics."""
        self.cluster.patch("HorizontalPodAutoscaler", "tiny", {"spec": {"minReplicas": number, "maxReplicas": number}})
        eventually(lambda: self.replicas() == number or None, seconds=30)


@pytest.fixture
def world(plane: ControlPlane, tmp_path: Path, request: pytest.FixtureRequest) -> World:
    name = request.node.name.replace("_", "-")[5:60].strip("-")
    monitoring = {"prometheus_url": "http://127.0.0.1:1"}
    return World(tmp_path, {"kubeconfig": str(plane.kubeconfig), "namespace": name, "monitoring": monitoring})


@contextmanager
def watched_replicas(world: World) -> Generator[list[int]]:
    """Every number of replicas that the Deployment has during the block."""
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


def test_a_model_starts_with_its_minimum_and_later_applies_keep_the_autoscalers_number(world: World) -> None:
    world.declare(**SCALED)
    with watched_replicas(world) as seen:
        assert world.apply()["spec"]["replicas"] == 2
        assert world.replica_owners() == {names.REPLICAS_MANAGER}
        world.autoscale_to(5)
        assert world.replica_owners() == {"kube-controller-manager"}
        for surge in (True, False):
            world.apply(surge=surge)
            assert world.replicas() == 5
        assert world.replica_owners() == {"kube-controller-manager"}
        assert is_scaled(world.main(), world.platform.catalog["tiny"])
    assert seen == [2, 5]


def test_autoscaling_is_switched_on_and_off_on_a_serving_model(world: World) -> None:
    world.declare(replicas=3)
    world.apply()
    with watched_replicas(world) as seen:
        world.declare(**SCALED | {"autoscaling": {"max": 6}})
        assert not is_scaled(world.main(), world.platform.catalog["tiny"])
        world.apply()
        assert world.replicas() == 3
        world.autoscale_to(6)
        world.declare(replicas=4)
        assert not is_scaled(world.main(), world.platform.catalog["tiny"])
        apply_stable(world.platform, release(), surge=True)
        # llmops removes it first: within 2 s it would set its own number again.
        assert world.cluster.get("HorizontalPodAutoscaler", "tiny") is None
        world.apply()
        assert autoscaler_of(world.main()) is None
        assert names.FIELD_MANAGER in world.replica_owners()
        # From now on llmops alone sets the number.
        world.declare(replicas=2)
        world.apply()
    assert seen == [3, 6, 4, 2]


def test_a_run_finishes_the_handover_of_a_killed_run(world: World) -> None:
    world.declare(**SCALED)
    world.apply()
    world.autoscale_to(5)
    # Switching off: the run was killed after it removed the autoscaler.
    world.cluster.delete("HorizontalPodAutoscaler", "tiny")
    world.declare(replicas=3)
    world.apply()
    assert world.replicas() == 3
    # Switching on: the run was killed after the second manager took the number over.
    held = {"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 3}}
    meta = {"name": "tiny", "namespace": world.cluster.namespace}
    world.cluster.apply(held | {"metadata": meta}, manager=names.REPLICAS_MANAGER)
    world.declare(replicas=1)
    world.apply()
    assert world.replicas() == 1
    world.declare(**SCALED)
    world.apply()
    eventually(lambda: world.replicas() == 2 or None, seconds=30)


def test_a_model_at_zero_is_scaled_up_and_a_manual_scale_is_a_conflict(world: World) -> None:
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
    with pytest.raises(Conflict) as conflict:
        world.apply()
    assert conflict.value.managers == ("somebody",)


def test_a_change_from_hpa_to_keda_keeps_the_number(world: World) -> None:
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


def test_a_preview_keeps_the_number_and_an_autoscaled_model_lends_no_replica(world: World) -> None:
    world.declare(**SCALED)
    platform = world.platform
    shown = preview(platform, release(), platform.catalog["tiny"])[-1]
    assert shown["spec"]["replicas"] == 2
    world.apply()
    world.autoscale_to(5)
    then = world.cluster.apply(preview(platform, release(), platform.catalog["tiny"])[-1], dry_run=True)
    assert then["spec"]["replicas"] == 5
    with pytest.raises(ClusterCannot) as refused:
        apply_stable(platform, release(), surge=False, lent=1)
    assert (refused.value.code, refused.value.about) == ("AutoscalerPreventsLending", "Deployment tiny")


@pytest.mark.parametrize("edit", ["scale", "set image"])
def test_a_trial_ends_before_its_measurements_if_somebody_has_edited_stable(world: World, edit: str) -> None:
    world.declare(replicas=2)
    world.apply()
    platform = world.platform
    dry_run_stable(platform, platform.catalog["tiny"], release())
    containers = [{"name": names.ENGINE_CONTAINER, "image": "elsewhere/engine:1"}]
    spec = {"replicas": 5} if edit == "scale" else {"template": {"spec": {"containers": containers}}}
    meta = {"name": "tiny", "namespace": world.cluster.namespace}
    edited = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec}
    world.cluster.apply(edited, force=True, manager="kubectl-set")
    with pytest.raises(ClusterCannot) as raised:
        dry_run_stable(platform, platform.catalog["tiny"], release())
    assert raised.value.code == "StableChanged"
    assert "kubectl-set" in raised.value.message
    assert "`llmops revalidate tiny --restore`" in raised.value.remedy
    apply_stable(platform, release(), surge=True, force=True)
    dry_run_stable(platform, platform.catalog["tiny"], release())


@pytest.mark.parametrize(
    ("change", "code"), [({"paused": True}, "DeploymentPaused"), ({"replicas": 0}, "ScaledToZero")]
)
def test_a_trial_ends_before_its_measurements_if_somebody_has_halted_stable(
    world: World, change: dict[str, Any], code: str
) -> None:
    world.declare(replicas=2)
    world.apply()
    world.cluster.patch("Deployment", "tiny", {"spec": change})
    platform = world.platform
    with pytest.raises(ClusterCannot) as raised:
        dry_run_stable(platform, platform.catalog["tiny"], release())
    assert (raised.value.code, raised.value.about) == (code, "Deployment tiny")
    assert "kubectl " in raised.value.remedy
    # An apply leaves what somebody else has set.
    world.cluster.delete("Deployment", "tiny")
