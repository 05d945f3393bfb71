"""What a second actor does to a rollout: each act is a function that changes something, and names what it changed.

An act that takes something away for some seconds brings it back itself.
"""

from __future__ import annotations

import datetime as dt
import random
import signal
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from kubernetes import client, config, dynamic

from llmops.clients.kubernetes.kinds import kind_of
from llmops.clients.kubernetes.progress import has_condition
from llmops.config import names
from llmops.config.settings import load_settings
from llmops.releases.stages import STAGES
from tests.support.dying import Run
from tests.support.world import ENGINE, Model, put_faults

MANAGER = "second-actor"
"""Its field manager."""
APPEARS_SECONDS = 5.0
"""How long an act waits for its object: the stage that makes it has begun."""
AWAY_SECONDS = (2.0, 8.0)
NEVER = 1000
"""More replicas than any model has."""
# The models of this bench declare no traffic steps.
MOMENTS = tuple(stage for stage in STAGES if stage != "traffic")
WITH_CANARY = ("canary", "evaluation")
UNTIL_CANARY = ("weights", "checksum", "canary")

Changed = tuple[str, ...]
"""The changed objects, as `Kind name`; empty if there was nothing to change."""


@dataclass(frozen=True)
class Scene:
    """What an act can touch.

    Args:
        model: The model.
        run: The run of its rollout.
        seconds: How long to take something away.
    """

    model: Model
    run: Run
    seconds: float

    @property
    def candidate(self) -> str:
        """The release under trial; empty without one."""
        return self.model.records.state(self.model.name).candidate or ""

    def patch(self, kind: str, name: str, body: object) -> None:
        """Change an object under the actor's field manager, as kubectl does; a list is a JSON patch."""
        how = "json-patch" if isinstance(body, list) else "merge-patch" if kind == "Lease" else "strategic-merge-patch"
        self._resources.get(api_version=kind_of(kind).api, kind=kind).patch(
            name=name,
            namespace=self.model.cluster.namespace if kind_of(kind).namespaced else None,
            body=body,
            content_type=f"application/{how}+json",
            field_manager=MANAGER,
        )

    @cached_property
    def _resources(self) -> Any:
        settings = load_settings(self.model.settings_file)
        return dynamic.DynamicClient(config.new_client_from_config(settings.kubeconfig)).resources

    def appears(self, kind: str, name: str) -> dict[str, Any] | None:
        """The object, as soon as it exists; None if it does not appear."""
        deadline = time.monotonic() + APPEARS_SECONDS
        while (existing := self.model.cluster.get(kind, name)) is None and time.monotonic() < deadline:
            time.sleep(0.05)
        return existing


@dataclass(frozen=True)
class Act:
    """Something that a second actor does.

    Args:
        name: Name in the table.
        do: Does it.
        stages: The stages in which it makes sense.
        spares_from: Number of replicas from which the act alone leaves users an engine.
    """

    name: str
    do: Callable[[Scene], Changed]
    stages: tuple[str, ...] = MOMENTS
    spares_from: int = 1


@dataclass(frozen=True)
class Drawn:
    """One case: an act and its moment.

    Args:
        act: The act.
        stage: The stage in which it falls.
        fraction: Share of the stage's usual time that passes before.
        seconds: How long to take something away.
    """

    act: Act
    stage: str
    fraction: float
    seconds: float


def draw(seed: int, index: int, acts: Sequence[Act]) -> Drawn:
    """The case of this number; each act comes once before any comes again."""
    turn, place = divmod(index, len(acts))
    order = random.Random(f"{seed} order {turn}").sample(acts, len(acts))  # noqa: S311 - repeatable, not secret
    chance = random.Random(f"{seed} case {index}")  # noqa: S311
    act = order[place]
    return Drawn(act, chance.choice(act.stages), chance.random(), chance.uniform(*AWAY_SECONDS))


def _delete(kind: str, name: Callable[[Model], str]) -> Callable[[Scene], Changed]:
    def do(scene: Scene) -> Changed:
        target = name(scene.model)
        if scene.appears(kind, target) is None or not scene.model.cluster.delete(kind, target):
            return ()
        return (f"{kind} {target}",)

    return do


def _lose(
    record: str, which: Callable[[str | None, str], bool] = lambda release, candidate: True
) -> Callable[[Scene], Changed]:
    """Deletes the records of a kind, of the releases that `which` chooses by their id and the candidate's."""

    def do(scene: Scene) -> Changed:
        cluster, candidate = scene.model.cluster, scene.candidate
        labels = {names.MODEL_LABEL: scene.model.name, names.RECORD_LABEL: record}
        chosen = [
            config_map["metadata"]["name"]
            for config_map in cluster.list("ConfigMap", labels=labels)
            if which(config_map["metadata"]["labels"].get(names.RELEASE_LABEL), candidate)
        ]
        return tuple(f"ConfigMap {name}" for name in chosen if cluster.delete("ConfigMap", name))

    return do


def _main(body: Callable[[dict[str, Any]], object]) -> Callable[[Scene], Changed]:
    def do(scene: Scene) -> Changed:
        name = scene.model.name
        if (main := scene.model.deployment()) is None:
            return ()
        scene.patch("Deployment", name, body(main))
        return (f"Deployment {name}",)

    return do


def _template(container: dict[str, Any]) -> dict[str, Any]:
    return {"spec": {"template": {"spec": {"containers": [container]}}}}


def _set_image(track: names.Track, tag: str, **behaviour: Any) -> Callable[[Scene], Changed]:
    def do(scene: Scene) -> Changed:
        name = names.engine_name(scene.model.name, track)
        image = f"{scene.model.image}@{scene.model.push(tag, **behaviour)}"
        if scene.appears("Deployment", name) is None:
            return ()
        scene.patch("Deployment", name, _template({"name": names.ENGINE_CONTAINER, "image": image}))
        return (f"Deployment {name}",)

    return do


def undo(scene: Scene) -> Changed:
    """As `kubectl rollout undo`: the template of the second newest ReplicaSet replaces that of main."""
    model = scene.model
    sets = model.cluster.list("ReplicaSet", labels=names.engine_selector(model.name, "stable"))
    revisions = sorted(sets, key=lambda item: int(item["metadata"]["annotations"]["deployment.kubernetes.io/revision"]))
    if len(revisions) < 2:
        return ()
    template = revisions[-2]["spec"]["template"]
    template["metadata"]["labels"].pop("pod-template-hash")
    scene.patch("Deployment", model.name, [{"op": "replace", "path": "/spec/template", "value": template}])
    return (f"Deployment {model.name}",)


def _pod_of_main(scene: Scene) -> str | None:
    pods = scene.model.cluster.list("Pod", labels=names.engine_selector(scene.model.name, "stable"))
    return min((pod["metadata"]["name"] for pod in pods if has_condition(pod, "Ready")), default=None)


def delete_pod(scene: Scene) -> Changed:
    """A pod of main."""
    pod = _pod_of_main(scene)
    return (f"Pod {pod}",) if pod is not None and scene.model.cluster.delete("Pod", pod) else ()


def evict_pod(scene: Scene) -> Changed:
    """A pod of main, as `kubectl drain` does: its disruption budget may refuse."""
    if (pod := _pod_of_main(scene)) is None:
        return ()
    settings = load_settings(scene.model.settings_file)
    api = client.CoreV1Api(config.new_client_from_config(settings.kubeconfig))
    body = client.V1Eviction(metadata=client.V1ObjectMeta(name=pod, namespace=settings.namespace))
    try:
        api.create_namespaced_pod_eviction(pod, settings.namespace, body)
    except client.ApiException as error:
        if error.status in (404, 429):
            return ()
        raise
    return (f"Pod {pod}",)


def cordon(scene: Scene) -> Changed:
    """All nodes with GPUs, for some seconds."""
    nodes = [
        node["metadata"]["name"]
        for node in scene.model.cluster.list("Node")
        if "nvidia.com/gpu" in node["status"]["capacity"]
    ]
    for name in nodes:
        scene.patch("Node", name, {"spec": {"unschedulable": True}})
    try:
        time.sleep(scene.seconds)
    finally:
        for name in nodes:
            scene.patch("Node", name, {"spec": {"unschedulable": None}})
    return tuple(f"Node {name}" for name in nodes)


def forbid_pods(scene: Scene) -> Changed:
    """By a quota, for some seconds."""
    cluster = scene.model.cluster
    quota = {"metadata": {"name": MANAGER}, "spec": {"hard": {"pods": "0"}}}
    cluster.apply({"apiVersion": "v1", "kind": "ResourceQuota", **quota}, manager=MANAGER)
    try:
        time.sleep(scene.seconds)
    finally:
        cluster.delete("ResourceQuota", MANAGER)
    return (f"ResourceQuota {MANAGER}",)


def add_sidecar(scene: Scene) -> Changed:
    """A container that crashes, beside the canary's engine."""
    image, name = f"{ENGINE}-sidecar", names.engine_name(scene.model.name, "canary")
    scene.model.sandbox.images.add(image, "v1", ("{python}", "-c", "raise SystemExit(3)"))
    if scene.appears("Deployment", name) is None:
        return ()
    scene.patch("Deployment", name, _template({"name": "sidecar", "image": f"{image}:v1"}))
    return (f"Deployment {name}",)


def delete_job(scene: Scene) -> Changed:
    """The Job that downloads or compares now."""
    deadline = time.monotonic() + APPEARS_SECONDS
    while time.monotonic() < deadline:
        for job in scene.model.cluster.list("Job", labels={names.MODEL_LABEL: scene.model.name}):
            name = job["metadata"]["name"]
            if not has_condition(job, "Complete") and scene.model.cluster.delete("Job", name):
                return (f"Job {name}",)
        time.sleep(0.05)
    return ()


def take_lease(scene: Scene) -> Changed:
    """By a holder that nobody knows, and whose clock is a day ahead."""
    name = names.lease_name(scene.model.name)
    if scene.appears("Lease", name) is None:
        return ()
    ahead = (dt.datetime.now(dt.UTC) + dt.timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    scene.patch("Lease", name, {"spec": {"holderIdentity": MANAGER, "renewTime": ahead, "acquireTime": ahead}})
    return (f"Lease {name}",)


@contextmanager
def _broken(path: Path) -> Generator[None]:
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    try:
        yield
    finally:
        path.write_text(whole)


def _break_file(name: Callable[[Model], str]) -> Callable[[Scene], Changed]:
    def do(scene: Scene) -> Changed:
        path = scene.model.folder / "models" / f"{name(scene.model)}.yaml"
        with _broken(path):
            time.sleep(scene.seconds)
        return (f"file {path.name}",)

    return do


def delete_shard(scene: Scene) -> Changed:
    """A file of the candidate's weights, where engines mount them or where the download puts them."""
    return _unlink(scene, "{key}/model-00002-of-00002.safetensors")


def delete_manifest(scene: Scene) -> Changed:
    """The manifest beside the candidate's weights, which says that they are verified."""
    return _unlink(scene, "{key}.json")


def _unlink(scene: Scene, path: str) -> Changed:
    model = scene.model
    key = model.records.release(model.name, scene.candidate).weights.key
    paths = [model.volume / folder / model.name / path.format(key=key) for folder in ("weights", "staging")]
    deadline = time.monotonic() + APPEARS_SECONDS
    while time.monotonic() < deadline:
        for target in paths:
            with suppress(FileNotFoundError):
                target.unlink()
                return (f"file {target.relative_to(model.volume)}",)
        time.sleep(0.05)
    return ()


def break_hub(scene: Scene) -> Changed:
    """It answers each request with HTTP 503 for some seconds."""
    put_faults(scene.model.sandbox, [{"status": 503}])
    try:
        time.sleep(scene.seconds)
    finally:
        put_faults(scene.model.sandbox, [])
    return ("the hub",)


def push_again(scene: Scene) -> Changed:
    """The tag of the engine's image, with other content."""
    scene.model.push("v0.32.0", tokens_factor=1.0 + scene.seconds / 1000)
    return (f"image {scene.model.image}:v0.32.0",)


def kill_run(scene: Scene) -> Changed:
    """SIGKILL to the process of the rollout."""
    scene.run.send(signal.SIGKILL)
    return ("the run",)


def _canary(model: Model) -> str:
    return names.engine_name(model.name, "canary")


def neighbour(model: Model) -> str:
    """The other model in the catalog; nobody rolls it out."""
    return f"{model.name}-neighbour"


def _label(main: dict[str, Any]) -> object:
    marks = {"example.com/team": "search"}
    return {"metadata": {"annotations": marks, "labels": marks}}


ACTS = (
    Act("state deleted", _delete("ConfigMap", lambda model: names.state_name(model.name))),
    Act("pins deleted", _lose("pins")),
    Act("candidate's record deleted", _lose("trial", lambda release, candidate: release == candidate)),
    Act("earlier records deleted", _lose("trial", lambda release, candidate: release != candidate)),
    Act("proofs of weights deleted", _lose("weights")),
    Act("lease deleted", _delete("Lease", lambda model: names.lease_name(model.name))),
    Act("lease taken, clock a day ahead", take_lease),
    Act("main rolled back by undo", undo),
    Act("main paused", _main(lambda main: {"spec": {"paused": True}})),
    Act("main scaled to 0", _main(lambda main: {"spec": {"replicas": 0}}), spares_from=NEVER),
    Act("main scaled up", _main(lambda main: {"spec": {"replicas": main["spec"]["replicas"] + 1}})),
    Act("main gets another image", _set_image("stable", "v0.1.0")),
    Act("main gets a broken image", _set_image("stable", "v0.1.1", crash_on_load="no such kernel")),
    Act("main gets label and annotation", _main(_label)),
    Act("main's pod deleted", delete_pod, spares_from=2),
    Act("main's pod evicted", evict_pod, spares_from=2),
    Act("disruption budget deleted", _delete("PodDisruptionBudget", lambda model: model.name)),
    Act("canary gets another image", _set_image("canary", "v0.1.2"), WITH_CANARY),
    Act("canary gets a crashing sidecar", add_sidecar, WITH_CANARY),
    Act("canary's Deployment deleted", _delete("Deployment", _canary), WITH_CANARY),
    Act("canary's Service deleted", _delete("Service", _canary), WITH_CANARY),
    Act("GPU nodes cordoned", cordon),
    Act("quota forbids pods", forbid_pods),
    Act("Job deleted", delete_job, ("weights", "checksum")),
    Act("model's file broken", _break_file(lambda model: model.name)),
    Act("another model's file broken", _break_file(neighbour)),
    Act("shard of the weights deleted", delete_shard, (*UNTIL_CANARY, "evaluation", "promotion")),
    Act("manifest of the weights deleted", delete_manifest, (*UNTIL_CANARY, "evaluation", "promotion")),
    Act("hub answers 503", break_hub, ("release", "weights")),
    Act("tag pushed again", push_again),
    Act("run killed", kill_run),
)
