"""The world of triggers: registry and hub over HTTP, a cluster's records, Dagster's runs, and an adjustable clock."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import dagster as dg
from dagster._core.test_utils import create_run_for_test
from llmops_sandbox.standins.hub import HubServer, HubStore
from llmops_sandbox.standins.images import ImageStore
from llmops_sandbox.standins.registry import RegistryServer

from llmops.clients.kubernetes.client import Cluster
from llmops.clients.registry import PinnedImage, RegistryClient
from llmops.config.catalog.spec import ModelSpec
from llmops.config.schema import VerdictValue
from llmops.config.settings import Settings
from llmops.defs.compat import PARTITION_NAME_TAG, RUN_KEY_TAG
from llmops.defs.rollout.jobs import ROLLOUT
from llmops.defs.triggers.sensors import trigger_sensors
from llmops.evaluation.suites import load_suites
from llmops.releases.ledger import opening
from llmops.releases.records import Record, Records
from llmops.releases.release import Release
from llmops.releases.resolve import Hub, resolve
from llmops.rollout.platform import Platform
from llmops.rollout.trial import REQUESTED_BY_TAG
from llmops.triggers import TRIGGERS
from llmops.triggers.inputs import Inputs
from llmops.triggers.trigger import AnyTrigger
from llmops.triggers.trigger import Tick as Decided

IMAGE = "vllm/vllm-openai"
REPO = "acme/tiny"


@dataclass(frozen=True)
class Tick:
    """The result of a sensor's tick: its run requests by model, or why there are none, and the codes of its notes."""

    requests: dict[str, dg.RunRequest]
    reason: str
    codes: tuple[str, ...] = ()

    def config(self, model: str = "tiny") -> Mapping[str, Any]:
        return self.requests[model].run_config["ops"]["release"]["config"]

    def why(self, model: str = "tiny") -> str:
        return self.requests[model].tags[REQUESTED_BY_TAG]

    @property
    def tag(self) -> str | None:
        """The image tag of the one run request; None without a request."""
        if not self.requests:
            return None
        (request,) = self.requests.values()
        return PinnedImage.parse(request.run_config["ops"]["release"]["config"]["image"]).tag


@dataclass
class World:
    cluster: Cluster
    settings: Settings
    images: ImageStore
    registry: RegistryServer
    store: HubStore
    hub: HubServer
    instance: dg.DagsterInstance
    now: float
    specs: dict[str, ModelSpec] = field(default_factory=dict[str, ModelSpec])
    cursors: dict[str, str | None] = field(default_factory=dict[str, "str | None"])
    sensors: dict[str, dg.SensorDefinition] = field(default_factory=dict[str, dg.SensorDefinition])
    run_keys: set[str] = field(default_factory=set[str])
    codes: tuple[str, ...] = ()
    """Codes of the notes of the last tick."""

    @property
    def records(self) -> Records:
        return Records(self.cluster)

    # Acts of people

    def declare(self, name: str = "tiny", **changes: Any) -> ModelSpec:
        """Add a model to the catalog, or change it, and reload the code location."""
        content: dict[str, Any] = {
            "name": name,
            "weights": {"repo": REPO},
            "engine": {"image": IMAGE, "version": ">=0.31,<0.40"},
            "gpu": {"product": "NVIDIA-L40S", "count": 1},
            "evaluation": {"suites": ["sums"], "gates": [{"metric": "sums/score", "min": 0.5}]},
        }
        for key, change in changes.items():
            content[key] = {**content[key], **change} if isinstance(content.get(key), dict) else change
        self.specs[name] = ModelSpec.model_validate(content)
        self.reload()
        return self.specs[name]

    def reload(self, **settings: Any) -> None:
        """Reload the code location, with changed settings if given."""
        self.settings = self.settings.model_copy(update=settings)
        platform = Platform.of(self.settings, dict(self.specs))
        triggers = [replace(trigger, tick=self._noting(trigger)) for trigger in TRIGGERS]
        sensors = trigger_sensors(platform, job_name=ROLLOUT, triggers=triggers, clock=lambda: self.now)
        self.sensors = {sensor.name: sensor for sensor in sensors}

    def _noting(self, trigger: AnyTrigger) -> Callable[[Inputs, Any], Decided[Any]]:
        """The tick of a trigger, which also leaves the codes of its notes here."""

        def tick(inputs: Inputs, cursor: Any) -> Decided[Any]:
            decided = trigger.tick(inputs, cursor)
            self.codes = tuple(note.code for note in decided.notes)
            return decided

        return tick

    def push(self, tag: str, content: str = "", image: str = IMAGE) -> str:
        """Push an image; other content under the same tag has another digest."""
        return self.images.add(image, tag, ("engine", tag, content)).digest

    def commit(self, text: str, branch: str = "main", repo: str = REPO) -> str:
        files = {"config.json": json.dumps({"text": text}), "model.safetensors": text.encode() * 100}
        return self.store.commit(repo, files, branch=branch)

    def write_suite(self, name: str, expected: int = 4) -> None:
        self.settings.evals_dir.mkdir(parents=True, exist_ok=True)
        definition = {"kind": "quality", "scorer": "number"}
        case = {"id": "one", "prompt": "What is it?", "expected": expected, "answer": str(expected)}
        (self.settings.evals_dir / f"{name}.yaml").write_text(json.dumps(definition))
        (self.settings.evals_dir / f"{name}.jsonl").write_text(json.dumps(case) + "\n")

    # Acts of runs

    def resolve(self, name: str = "tiny", *, image: str | None = None, revision: str | None = None) -> Release:
        spec = self.specs[name]
        suites = {suite.name: suite.sha256 for suite in load_suites(self.settings.evals_dir, spec.evaluation.suites)}
        with RegistryClient(self.settings.registry_mirrors) as registry:
            return resolve(
                spec,
                hub=Hub(self.settings.hub_endpoint),
                registry=registry,
                suites=suites,
                image=PinnedImage.parse(image) if image else None,
                revision=revision,
            )

    def roll_out(
        self,
        name: str = "tiny",
        verdict: VerdictValue | None = "Passed",
        *,
        stage: str = "promotion",
        config: Mapping[str, Any] | None = None,
    ) -> Release:
        """Write the records that a run of the stages writes for its request; None: the run died on the way."""
        release = self.resolve(name, **(config or {}))
        records = self.records
        records.update_state(name, **opening(release, self.specs[name]))
        records.update_state(name, candidate=release.id)
        if verdict == "Passed":
            records.update_state(name, previous=records.state(name).stable, stable=release.id)
        if verdict is not None:
            records.save_record(
                Record(
                    model=name,
                    release=release.id,
                    verdict=verdict,
                    reason="as the test wants it",
                    stage=stage,
                    image=f"{release.engine.image}:{release.engine.tag}@{release.engine.digest}",
                    commit=release.weights.commit,
                    finished=datetime.datetime.now(datetime.UTC),
                )
            )
        return release

    def end_run(self, name: str = "tiny", status: dg.DagsterRunStatus = dg.DagsterRunStatus.SUCCESS) -> None:
        """End the model's unfinished runs."""
        for run in self.instance.get_runs():
            if run.tags[PARTITION_NAME_TAG] == name and not run.is_finished:
                self.instance.delete_run(run.run_id)
                create_run_for_test(self.instance, job_name=ROLLOUT, status=status, tags=run.tags)

    def carry_out(self, tick: Tick, verdict: VerdictValue | None = "Passed", *, stage: str = "evaluation") -> None:
        """Carry out the runs that a tick requested, with this end."""
        for name in tick.requests:
            self.roll_out(name, verdict, stage=stage, config=tick.config(name))
            self.end_run(name)

    # Acts of Dagster's daemon

    def tick(self, sensor: str = "image_tags", *, later: float = 60) -> Tick:
        """Evaluate a sensor this many seconds after its last tick, and start the runs that it requests."""
        self.now += later
        context = dg.build_sensor_context(instance=self.instance, cursor=self.cursors.get(sensor))
        result = self.sensors[sensor](context)
        if isinstance(result, dg.SkipReason):
            return Tick({}, result.skip_message or "")
        assert isinstance(result, dg.SensorResult)
        self.cursors[sensor] = result.cursor
        requests: dict[str, dg.RunRequest] = {}
        for request in result.run_requests or ():
            assert request.run_key
            assert request.partition_key
            if request.run_key in self.run_keys:
                continue
            self.run_keys.add(request.run_key)
            requests[request.partition_key] = request
            tags = {**request.tags, PARTITION_NAME_TAG: request.partition_key, RUN_KEY_TAG: request.run_key}
            create_run_for_test(self.instance, job_name=ROLLOUT, status=dg.DagsterRunStatus.STARTED, tags=tags)
        return Tick(requests, result.skip_reason.skip_message or "" if result.skip_reason else "", self.codes)

    def registry_requests(self) -> list[str]:
        """Take the log of the registry's requests, without tokens and requests refused for lack of one."""
        seen = [f"{item.method} {item.path}" for item in self.registry.seen("/v2/*") if item.status != 401]
        self.registry.forget_requests()
        return seen
