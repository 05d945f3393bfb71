"""Restored objects are the release's again for a trial, on a real API server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config
from llmops_sandbox.cluster.controlplane import ControlPlane

from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.ownership import owners
from llmops.config import names
from llmops.config.catalog.spec import ModelSpec
from llmops.config.settings import Settings
from llmops.errors import ClusterCannot
from llmops.evaluation.backends.base import Target
from llmops.releases.records import Records
from llmops.releases.release import Release
from llmops.rollout.ops.measured import check_as_released
from llmops.rollout.ops.scaling import apply_stable
from llmops.rollout.platform import Platform
from llmops.rollout.revalidation.restoring import restore_objects
from tests.api.rollout.test_scaling import World
from tests.api.rollout.test_surroundings import release


@dataclass(frozen=True)
class Current:
    platform: Platform
    model: str = "tiny"
    run: str = "run-a"

    @property
    def cluster(self) -> Cluster:
        return self.platform.cluster

    @property
    def settings(self) -> Settings:
        return self.platform.settings

    @property
    def spec(self) -> ModelSpec:
        return self.platform.catalog[self.model]

    @property
    def records(self) -> Records:
        return self.platform.records

    def log(self, message: str) -> None:
        print(message)


@pytest.fixture
def world(plane: ControlPlane, tmp_path: Path, request: pytest.FixtureRequest) -> World:
    name = "restore-" + (request.node.name.partition("[")[2].strip("]").replace(" ", "-") or "agreed")
    world = World(tmp_path, {"kubeconfig": str(plane.kubeconfig), "namespace": name})
    world.declare(replicas=2)
    return world


def apis(world: World) -> tuple[client.AppsV1Api, client.CoreV1Api]:
    connection = config.new_client_from_config(world.platform.settings.kubeconfig)
    return client.AppsV1Api(connection), client.CoreV1Api(connection)


def edit(world: World, *containers: dict[str, Any]) -> None:
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "engine", **engine} for engine in containers]}}}}
    apis(world)[0].patch_namespaced_deployment("tiny", world.cluster.namespace, patch, field_manager="kubectl-edit")


def of_weights(digit: str) -> Release:
    return release().model_copy(update={"weights": release().weights.model_copy(update={"commit": digit * 40})})


def undo(world: World) -> None:
    """As `kubectl rollout undo` to the template of other weights."""
    template = apply_stable(world.platform, of_weights("1"), surge=True)["spec"]["template"]
    world.apply()
    patch = [{"op": "replace", "path": "/spec/template", "value": template}]
    apis(world)[0].patch_namespaced_deployment("tiny", world.cluster.namespace, patch, field_manager="kubectl-rollout")


def edit_service(world: World) -> None:
    ports = [{"name": "other", "port": 9000, "protocol": "TCP"}]
    patch = {"spec": {"ports": ports, "selector": {"example.com/only": "one"}}}
    apis(world)[1].patch_namespaced_service("tiny", world.cluster.namespace, patch, field_manager="kubectl-edit")


HOOK = {"postStart": {"sleep": {"seconds": 1}}}
CHANGES: dict[str, Callable[[World], None]] = {
    "undo": undo,
    "set env": lambda world: edit(world, {"env": [{"name": "EXTRA", "value": "1"}]}),
    "set image": lambda world: edit(world, {"image": "elsewhere/engine:1", "lifecycle": HOOK}),
    "service": edit_service,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_trial_takes_restored_engines_for_the_releases(world: World, change: str) -> None:
    world.apply()
    # A sidecar of a mesh, which stays.
    edit(world, {"name": "mesh", "image": "mesh:1"})
    current, target = Current(world.platform), Target(release(), "stable")
    check_as_released(current, target)
    CHANGES[change](world)
    with pytest.raises(ClusterCannot) as raised:
        check_as_released(current, target)
    assert raised.value.code == "ForeignEngine"
    assert "--restore" in raised.value.remedy
    restore_objects(current, release())
    check_as_released(current, target)
    main = world.main()
    assert main["spec"]["replicas"] == 2
    containers = {container["name"] for container in main["spec"]["template"]["spec"]["containers"]}
    assert containers == {names.ENGINE_CONTAINER, "mesh"}
    # The next release finds no other owner in its way.
    following = of_weights("2")
    apply_stable(world.platform, following, surge=True)
    check_as_released(current, Target(following, "stable"))


def replace_template(world: World, template: dict[str, Any]) -> None:
    patch = [{"op": "replace", "path": "/spec/template", "value": template}]
    apis(world)[0].patch_namespaced_deployment("tiny", world.cluster.namespace, patch, field_manager="kubectl-rollout")


def test_who_agrees_with_the_release_is_not_in_the_way_of_the_next(world: World) -> None:
    """An undo during a promotion puts back what served: another owner, and not one other value."""
    served = world.apply()["spec"]["template"]
    apply_stable(world.platform, of_weights("1"), surge=True)
    replace_template(world, served)
    current = Current(world.platform)
    check_as_released(current, Target(release(), "stable"))
    with pytest.raises(ClusterCannot) as raised:
        apply_stable(world.platform, of_weights("2"), surge=True)
    assert raised.value.code == "FieldsOwned"
    restore_objects(current, release())
    apply_stable(world.platform, of_weights("2"), surge=True)
    check_as_released(current, Target(of_weights("2"), "stable"))
    managers = {owner.manager for owner in owners(world.main()) if owner.subresource != "status"}
    assert "kubectl-rollout" not in managers
