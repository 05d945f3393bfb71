"""llmops rejects each bad release for its own reason, leaves stable alone, and removes the canary.

Slow: each test is a rollout.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from llmops_sandbox.sandbox import Sandbox
from llmops_sandbox.standins.images import ImageStore
from llmops_sandbox.standins.registry import RegistryServer
from llmops_sandbox.standins.standin import in_thread
from llmops_sandbox.standins.weights import flip_bit, truncate

from llmops.cli.exits import Exit
from llmops.config import names
from tests.support.world import ONLY_GPU, Model, new_model, put_faults, watched

Asked = Mapping[str, Any]


@dataclass(frozen=True)
class Case:
    """A bad release.

    A defect that cannot heal is itself the reason of the rejection, not a deadline: the rollout does not wait for it.

    Args:
        make: Makes it; what to ask the rollout for.
        stage: Where the rollout rejects it.
        code: Of its record; empty where a gate decides.
        why: Names, numbers and words of the engine in the reason.
    """

    make: Callable[[Model], Asked]
    stage: str
    code: str
    why: tuple[str, ...] = ()


def engine(**behaviour: Any) -> Callable[[Model], Asked]:
    def make(model: Model) -> Asked:
        model.push("v0.99.0", **behaviour)
        return {"engine_version": "0.99.0"}

    return make


def weights(**changes: Any) -> Callable[[Model], Asked]:
    return lambda model: {"revision": model.commit(branch="bad", **changes)}


def unknown_tag(model: Model) -> Asked:
    return {"engine_version": "0.98.0"}


def removed_flag(model: Model) -> Asked:
    # The preflight knows that vLLM 0.32.0 has no such flag; here the engine says so.
    model.declare(engine={"args": ["--disable-log-requests"], "allow": ["flags"]})
    return {}


def broken_shard(folder: Path) -> None:
    truncate(folder / "model.safetensors", 4096)


def only_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


CASES = {
    "unknown tag": Case(unknown_tag, "release", "", ("0.98.0",)),
    "removed flag": Case(removed_flag, "canary", "ArgumentsRefused", ("--disable-log-requests",)),
    "crash on load": Case(engine(crash_on_load="device-side assert"), "canary", "CrashLoop", ("device-side assert",)),
    "GPU out of memory": Case(engine(oom_on_load="gpu"), "canary", "CrashLoop", ("OutOfMemoryError",)),
    "killed for memory": Case(engine(oom_on_load="host"), "canary", "OutOfMemory"),
    "never healthy": Case(engine(hang_on_load=True), "canary", "StartupProbeFailed"),
    "completions fail": Case(engine(completions="error"), "canary", "CompletionFailed", ("500",)),
    "garbage text": Case(engine(garbage=True), "evaluation", "", ("text.unbroken",)),
    "5xx at a rate": Case(engine(error_rate=0.25), "evaluation", "", ("error_rate",)),
    # Sixty requests are what it answers first; it is started again, and answers the rest.
    "crash under load": Case(engine(crash_after_requests=60), "evaluation", "EngineCrashed", ("exit code 1",)),
    "10 points lower": Case(weights(quality=0.85), "evaluation", "", ("sums/score",)),
    "three times slower": Case(engine(ttft_factor=3), "evaluation", "", ("p95_ttft_ms", "stable")),
    "truncated shard": Case(weights(change=broken_shard), "checksum", "WeightsMismatch", ("model.safetensors",)),
    "pickle": Case(weights(change=only_pickle), "release", "", ("pytorch_model.bin", "safetensors")),
}


@pytest.mark.parametrize("name", CASES)
def test_a_bad_release_is_rejected_for_its_own_reason(serving: Model, name: str) -> None:
    case = CASES[name]
    good = serving.serving()
    assert good is not None
    options = case.make(serving)
    try:
        with watched(serving) as seen:
            ended = serving.rollout(**options)
    finally:
        serving.declare()
        serving.sandbox.images.remove(serving.image, "v0.99.0")
    assert ended.code == Exit.REJECTED, ended.line
    if ended.record is not None:
        assert (ended.record.verdict, ended.record.stage, ended.record.code) == ("Failed", case.stage, case.code)
        assert "\n" not in ended.record.reason
        [event] = [
            event["message"]
            for event in serving.cluster.list("Event")
            if event["reason"] == "Failed"
            and f" {ended.record.release} (" in event["message"]
            and " rejected at " in event["message"]
        ]
        assert event.endswith(f"({good} serves)")
    text = ended.line + (ended.record.details if ended.record else "")
    assert all(part in text for part in case.why), text
    assert seen == [good]
    assert serving.canary_gone()
    assert serving.records.state(serving.name).stable == good


def test_an_image_that_the_nodes_cannot_pull_is_rejected_with_the_event(serving: Model, tmp_path: Path) -> None:
    """llmops finds the image in its registry; the nodes pull from another one, which lacks it."""
    good = serving.serving()
    elsewhere = ImageStore(tmp_path / "images.json")
    elsewhere.add(serving.image, "v0.99.0", ("nothing",))
    with in_thread(RegistryServer(elsewhere)) as registry:
        settings = json.loads(serving.settings_file.read_text())
        serving.settings_file.write_text(json.dumps(settings | {"registry_mirrors": {"docker.io": registry.url}}))
        try:
            ended = serving.rollout(engine_version="0.99.0")
        finally:
            serving.settings_file.write_text(json.dumps(settings))
    assert ended.code == Exit.REJECTED, ended.line
    assert ended.record is not None
    assert ended.record.stage == "canary"
    assert ended.record.code == "ImageNotFound"
    assert serving.serving() == good
    assert serving.canary_gone()


def flipped(folder: Path) -> None:
    flip_bit(folder / "model.safetensors", 8 * 500_000 + 3)


def shortened(folder: Path) -> None:
    truncate(folder / "model.safetensors", 1)


def removed(folder: Path) -> None:
    (folder / "config.json").unlink()


def added(folder: Path) -> None:
    (folder / "surprise.json").write_text("{}")


DAMAGE = {
    "flipped bit": (flipped, "model.safetensors", "altered"),
    "truncated file": (shortened, "model.safetensors", "truncated"),
    "missing file": (removed, "config.json", "missing"),
    "extra file": (added, "surprise.json", "extra"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_weights_damaged_on_the_volume_never_reach_a_canary(serving: Model, name: str) -> None:
    """The download is right; the files are damaged on the volume before the checksum reads them."""
    damage, file, kind = DAMAGE[name]
    good = serving.serving()
    commit = serving.commit(branch="bad", quality=0.94, seed=list(DAMAGE).index(name))
    for tag in ("v0.99.0", "v0.99.1"):
        serving.push(tag, crash_on_load="so that it gets no further than its verified weights")
    try:
        first = serving.rollout(revision=commit, engine_version="0.99.0")
        assert first.record is not None
        assert first.record.stage == "canary"
        release = serving.records.release(serving.name, first.record.release)
        key = release.weights.key
        serving.records.forget_weights(serving.name, key)
        serving.cluster.delete("Job", names.job_name(serving.name, "checksum", key), wait=30)
        damage(serving.volume / names.weights_path(serving.name, key))
        # Another release with the same weights adopts the finished download.
        ended = serving.rollout(revision=commit, engine_version="0.99.1")
    finally:
        for tag in ("v0.99.0", "v0.99.1"):
            serving.sandbox.images.remove(serving.image, tag)
    assert ended.code == Exit.REJECTED, ended.line
    assert ended.record is not None
    assert ended.record.stage == "checksum"
    assert ended.record.code == "WeightsMismatch"
    assert file in ended.record.reason
    assert kind in ended.record.reason
    assert serving.serving() == good
    assert serving.canary_gone()
    assert not (serving.volume / names.weights_path(serving.name, key)).exists()


@pytest.mark.parametrize("bit", [3, 8 * 900_000])
def test_wrong_bytes_of_the_right_size_from_the_hub_are_refused(serving: Model, bit: int) -> None:
    good = serving.serving()
    commit = serving.commit(branch="bad", quality=0.93, seed=bit)
    fault = {"path": "*model.safetensors*", "method": "GET", "flip_bit": bit}
    put_faults(serving.sandbox, [fault])
    try:
        ended = serving.rollout(revision=commit)
    finally:
        put_faults(serving.sandbox, [])
    assert ended.code == Exit.REJECTED, ended.line
    assert ended.record is not None
    assert (ended.record.stage, ended.record.code) == ("weights", "WeightsMismatch")
    assert "model.safetensors" in ended.record.reason
    assert serving.serving() == good


def test_without_a_free_gpu_and_without_surge_nothing_is_started(sandbox: Sandbox, tmp_path: Path) -> None:
    """The fault is the cluster's: the verdict is Inconclusive, and the next request starts a new trial."""
    with new_model(sandbox, tmp_path) as only:
        only.declare(gpu={"product": ONLY_GPU, "count": 1}, rollout={"strategy": "surge"})
        assert only.rollout().code == Exit.DONE
        good = only.serving()
        only.push("v0.33.0")
        ended = only.rollout()
        assert ended.code == Exit.INCONCLUSIVE, ended.line
        assert ended.record is not None
        assert (ended.record.stage, ended.record.code) == ("release", "PreflightFailed")
        assert ONLY_GPU in ended.record.reason
        assert only.serving() == good
        assert only.canary_gone()


def test_a_retry_fetches_a_file_that_somebody_deleted_after_the_proof(model: Model) -> None:
    """Stable has the file in memory; the next release with these weights crashes, which says nothing of the release."""
    assert model.rollout().code == Exit.DONE
    good = model.serving()
    assert good is not None
    key = model.records.release(model.name, good).weights.key
    (model.volume / names.weights_path(model.name, key) / "tokenizer.json").unlink()
    (model.volume / names.weights_path(model.name, key) / "model.safetensors").unlink()
    model.push("v0.33.0")
    crashed = model.rollout()
    assert crashed.record is not None
    assert (crashed.record.verdict, crashed.record.stage) == ("Failed", "canary"), crashed.line
    again = model.rollout(retry=True)
    assert again.code == Exit.DONE, again.line
    assert model.serving() == crashed.record.release
