"""The cost of the sensors: a thousand models over three image repositories of nine thousand tags each.

Runs on a real API server, and on a stand-in registry and hub over HTTP, whose logs count the requests.
"""

from __future__ import annotations

import json
import secrets
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
from llmops_sandbox.cluster.binaries import find_or_build
from llmops_sandbox.cluster.controlplane import ControlPlane
from llmops_sandbox.standins.hub import HubServer, HubStore
from llmops_sandbox.standins.images import ImageStore
from llmops_sandbox.standins.registry import RegistryServer
from llmops_sandbox.standins.standin import in_thread

from llmops.clients.kubernetes.client import Cluster
from llmops.config import names
from llmops.config.catalog.spec import ModelSpec
from llmops.config.settings import Settings
from llmops.defs.rollout.jobs import ROLLOUT
from llmops.defs.triggers.sensors import trigger_sensors
from llmops.releases.ledger import STATE_LABELS, Decided, ending, opening
from llmops.releases.release import EnginePin, Release, WeightsPin
from llmops.rollout.platform import Platform

MODELS = 1000
HISTORY = 20
REPOSITORIES = ("docker.io/vllm/vllm-openai", "ghcr.io/acme/engine", "quay.io/example/engine")
TAGS = 9000
VERSIONS = ">=0.20,<0.50"
SERVING = "v0.40.0"
REPO = "acme/tiny"
IDLE_TICKS = 20
SMALL: dict[str, Any] = {"models": 20, "tags": 1000}
"""Arguments of `run` for the shortest run."""


@dataclass(frozen=True)
class Fleet:
    """The catalog of the bench, its sensors, and the services that they ask."""

    registry: RegistryServer
    hub: HubServer
    instance: dg.DagsterInstance
    sensors: Mapping[str, dg.SensorDefinition]
    cursors: dict[str, str | None]

    def tick(self, name: str) -> tuple[dg.SensorResult, float, int]:
        """Evaluate a sensor: its result, the seconds, and the requests that registry and hub got, without tokens."""
        self.registry.forget_requests()
        self.hub.forget_requests()
        context = dg.build_sensor_context(instance=self.instance, cursor=self.cursors.get(name))
        started = time.perf_counter()
        result = self.sensors[name](context)
        seconds = time.perf_counter() - started
        assert isinstance(result, dg.SensorResult)
        self.cursors[name] = result.cursor
        return result, seconds, len(self.registry.seen("/v2/*")) + len(self.hub.seen())


def tag_names(tags: int) -> list[str]:
    """`tags` tags of a repository with nightly builds: most of them name commits."""
    listed = ["latest", "nightly", *(f"v0.{minor}.{patch}" for minor in range(41) for patch in range(5))]
    listed = [tag for tag in listed if tag == SERVING or not tag.startswith("v0.40")]
    listed += [f"{tag}-cu130" for tag in listed if tag.startswith("v")]
    return listed + [f"nightly-{number:040x}" for number in range(tags - len(listed))]


def write_images(path: Path, tags: int) -> dict[str, str]:
    """Put the repositories into an image store; returns repository -> digest of `SERVING`."""
    store = ImageStore(path)
    digests = {repository: store.add(repository, SERVING, ("engine", repository)).digest for repository in REPOSITORIES}
    content = json.loads(path.read_text())
    for repository, digest in digests.items():
        content[repository]["tags"] = dict.fromkeys(tag_names(tags), digest)
    path.write_text(json.dumps(content))
    return digests


def make_specs(models: int) -> dict[str, ModelSpec]:
    """`models` models, spread over the repositories, with a few version policies."""
    content = [
        {
            "name": f"model-{number}",
            "weights": {"repo": REPO},
            "engine": {
                "image": REPOSITORIES[number % len(REPOSITORIES)],
                "version": VERSIONS if number % 2 else f"{VERSIONS},!=0.30.{number % 5}",
            },
        }
        for number in range(models)
    ]
    return {spec.name: spec for spec in map(ModelSpec.model_validate, content)}


def write_ledgers(cluster: Cluster, specs: Mapping[str, ModelSpec], digests: Mapping[str, str], commit: str) -> None:
    """Write records by which every model serves `SERVING`, with a history of trials."""

    def write(spec: ModelSpec) -> None:
        image = spec.engine.image
        data: dict[str, str | None] = {}
        for number in reversed(range(HISTORY)):
            pin = EnginePin(
                image=image, tag=SERVING, digest=digests[image], args=(f"--seed={number}",) if number else ()
            )
            release = _release(spec, pin, commit)
            data |= opening(release, spec) | ending(release.id, Decided(verdict="Passed", stage="promotion"))
            data |= {"stable": release.id, "candidate": release.id}
        metadata = {"name": names.state_name(spec.name), "labels": names.labels(spec.name, "", "record") | STATE_LABELS}
        cluster.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, specs.values()))


def _release(spec: ModelSpec, engine: EnginePin, commit: str) -> Release:
    return Release(
        model=spec.name,
        weights=WeightsPin(repo=spec.weights.repo, commit=commit, files=()),
        engine=engine,
        gpu=spec.gpu,
        resources=spec.resources,
        evaluation=spec.evaluation,
        suites=(),
        rollout=spec.rollout,
        access=spec.access,
    )


def make_sensors(settings: Settings, specs: Mapping[str, ModelSpec]) -> dict[str, dg.SensorDefinition]:
    """The trigger sensors of these models."""
    return {sensor.name: sensor for sensor in trigger_sensors(Platform.of(settings, specs), job_name=ROLLOUT)}


def measure(fleet: Fleet) -> dict[str, float]:
    """Tick each sensor, for the first time and then with nothing new.

    Raises:
        RuntimeError: A sensor requested a rollout, though nothing was new.
    """
    figures: dict[str, float] = {}
    for name in fleet.sensors:
        ticks = [fleet.tick(name) for _ in range(IDLE_TICKS + 1)]
        if requested := [request.partition_key for result, _, _ in ticks for request in result.run_requests or ()]:
            raise RuntimeError(
                f"{name} requested {len(requested)} rollouts, such as of {requested[0]}, though nothing was new"
            )
        figures |= {
            f"sensors.{name}.first_seconds": round(ticks[0][1], 3),
            f"sensors.{name}.first_requests": ticks[0][2],
            f"sensors.{name}.idle_seconds": round(statistics.median(seconds for _, seconds, _ in ticks[1:]), 4),
            f"sensors.{name}.idle_seconds_most": round(max(seconds for _, seconds, _ in ticks[1:]), 4),
            f"sensors.{name}.idle_requests_most": max(requests for _, _, requests in ticks[1:]),
            f"sensors.{name}.cursor_bytes": len(fleet.cursors[name] or ""),
        }
    return figures


def run(models: int = MODELS, tags: int = TAGS) -> dict[str, float]:
    """Seconds and requests of the first tick, and of ticks with nothing new.

    Args:
        models: Number of models in the catalog.
        tags: Number of tags of each image repository.
    """
    with tempfile.TemporaryDirectory() as folder:
        plane = ControlPlane(Path(folder) / "plane", find_or_build())
        try:
            plane.up()
            return run_on(plane.kubeconfig, Path(folder), models, tags)
        finally:
            plane.down()


def run_on(kubeconfig: Path, folder: Path, models: int = MODELS, tags: int = TAGS) -> dict[str, float]:
    """Measure on a running control plane, in a new namespace."""
    digests = write_images(folder / "images.json", tags)
    store = HubStore(folder / "hub")
    commit = store.commit(REPO, {"config.json": "{}"})
    with (
        in_thread(RegistryServer(ImageStore(folder / "images.json"))) as registry,
        in_thread(HubServer(store)) as hub,
        dg.instance_for_test() as instance,
    ):
        hosts: Sequence[str] = [repository.partition("/")[0] for repository in REPOSITORIES]
        settings = Settings.model_validate({
            "kubeconfig": str(kubeconfig),
            "namespace": f"bench-{secrets.token_hex(4)}",
            "hub_endpoint": hub.url,
            "registry_mirrors": dict.fromkeys(hosts, registry.url),
        })  # fmt: skip
        cluster = Cluster.connect(settings)
        namespace: dict[str, Any] = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": settings.namespace}}
        cluster.apply(namespace)
        specs = make_specs(models)
        write_ledgers(cluster, specs, digests, commit)
        return measure(Fleet(registry, hub, instance, make_sensors(settings, specs), {}))
