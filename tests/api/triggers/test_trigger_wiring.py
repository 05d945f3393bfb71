"""The triggers as Dagster loads and evaluates them."""

from __future__ import annotations

import dagster as dg
import pytest

from llmops.config.settings import SETTINGS_VARIABLE
from llmops.definitions import defs
from llmops.defs.rollout.jobs import ROLLOUT
from llmops.defs.triggers.sensors import trigger_sensors
from llmops.rollout.platform import Platform
from tests.support.triggers_world import World

TRIGGERS = {"image_tags": 60, "model_revisions": 120, "catalog_changes": 30}


@pytest.fixture
def loaded(world: World, monkeypatch: pytest.MonkeyPatch) -> dg.Definitions:
    """The code location over a catalog of one model, which serves nothing yet."""
    world.push("v0.32.0")
    world.commit("first")
    world.settings.models_dir.mkdir()
    (world.settings.models_dir / "tiny.yaml").write_text(world.declare().model_dump_json())
    file = world.settings.models_dir.parent / "settings.yaml"
    file.write_text(world.settings.model_dump_json())
    monkeypatch.setenv(SETTINGS_VARIABLE, str(file))
    return defs()


def test_the_triggers_run_from_the_start_and_lead_to_the_rollout(loaded: dg.Definitions) -> None:
    repository = loaded.get_repository_def()
    for name, seconds in TRIGGERS.items():
        sensor = repository.get_sensor_def(name)
        assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
        assert sensor.minimum_interval_seconds == seconds
        assert sensor.job_name == ROLLOUT


def test_dagster_takes_what_a_trigger_asks_for(loaded: dg.Definitions, world: World) -> None:
    repository = loaded.get_repository_def()
    with dg.build_sensor_context(instance=world.instance, repository_def=repository) as context:
        data = repository.get_sensor_def("catalog_changes").evaluate_tick(context)
    assert data.run_requests is not None
    (request,) = data.run_requests
    assert (request.partition_key, request.tags["dagster/partition"]) == ("tiny", "tiny")
    assert request.tags["llmops.dev/requested-by"] == "sensor catalog_changes: models/tiny.yaml is new"
    job = loaded.resolve_job_def(ROLLOUT)
    dg.validate_run_config(job, request.run_config)
    exact = {"image": f"v0.32.0@sha256:{'0' * 64}", "revision": "a" * 40}
    dg.validate_run_config(job, {"ops": {"release": {"config": exact}}})


def test_loading_asks_nobody(world: World) -> None:
    world.declare()
    away = world.settings.model_copy(update={"kubeconfig": "/nowhere", "registry_secret": "gone"})
    sensors = trigger_sensors(Platform.of(away, world.specs), job_name=ROLLOUT)
    assert [sensor.name for sensor in sensors] == list(TRIGGERS)
    assert world.registry.seen() == []
