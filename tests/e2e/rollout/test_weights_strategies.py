"""Each strategy by which weights reach the engines, from a release to production, and its failures.

Slow: each test is at least one rollout.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from llmops_sandbox.sandbox import ENGINE_PROGRAM
from llmops_sandbox.standins.weights import flip_bit

from llmops.cli.exits import Exit
from llmops.cli.rollouts import run_revalidation
from llmops.clients.hub import HubFile, select
from llmops.config import names
from llmops.config.catalog.spec import DEFAULT_INCLUDE
from tests.support.world import Model, put_faults

pytestmark = pytest.mark.timeout(400)
UNJUDGED: dict[str, Any] = {"suites": [], "gates": [], "protocol": False}


def pinned_files(model: Model, root: Path) -> Path:
    """A folder for an image with exactly the files that a release of the model's last weights pins."""
    (source,) = model.folder.glob("weights-*")
    folder = root / "models" / "tiny"
    files = [
        HubFile(path.relative_to(source).as_posix(), path.stat().st_size)
        for path in source.rglob("*")
        if path.is_file()
    ]
    for file in select(files, DEFAULT_INCLUDE):
        (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / file.path, folder / file.path)
    return folder


def in_an_image(model: Model, root: Path, tag: str = "1") -> str:
    """Put the weights into an image, and declare it; returns its reference."""
    repository = f"r.example/weights-{model.name}"
    reference = model.sandbox.images.add(repository, tag, root=root).reference
    image = {"repository": repository, "tag": tag, "path": "/models/tiny"}
    model.declare(weights={"strategy": "image", "image": image}, evaluation=UNJUDGED)
    at_the_sandbox(model)
    return reference


def at_the_sandbox(model: Model) -> None:
    """Make the sandbox's registry the mirror of every registry."""
    settings = json.loads(model.settings_file.read_text())
    mirrors = settings["registry_mirrors"]
    settings["registry_mirrors"] = {**mirrors, "r.example": mirrors["docker.io"]}
    model.settings_file.write_text(json.dumps(settings))


def engine_pods(model: Model) -> list[dict[str, Any]]:
    return model.cluster.list("Pod", labels=names.engine_selector(model.name, "stable"))


def jobs(model: Model, stage: str) -> list[str]:
    labels = {names.MODEL_LABEL: model.name, names.COMPONENT_LABEL: stage}
    return [job["metadata"]["name"] for job in model.cluster.list("Job", labels=labels)]


def weights_check(model: Model) -> tuple[str, str]:
    """Value and line of the weights check. The drift check must pass with every strategy."""
    validation = run_revalidation(model.records, model.name, repair=True, restore=False).validation
    assert validation is not None
    checks = {check.check: check for check in validation.checks}
    assert checks["drift"].value == "Passed", checks["drift"].line
    return checks["weights"].value, checks["weights"].line


def test_each_pod_fetches_and_proves_its_own_weights(model: Model) -> None:
    """Wrong bytes from the hub reject the release at once; the right bytes serve and pass validation."""
    model.declare(weights={"strategy": "init"}, evaluation=UNJUDGED)
    bad = model.commit(branch="bad", seed=5)
    put_faults(model.sandbox, [{"path": "*model.safetensors*", "method": "GET", "flip_bit": 8 * 500_000}])
    try:
        refused = model.rollout(revision=bad)
    finally:
        put_faults(model.sandbox, [])
    assert refused.code == Exit.REJECTED, refused.line
    assert refused.record is not None
    assert (refused.record.stage, refused.record.code) == ("canary", "WeightsBad")
    assert "model.safetensors" in refused.record.reason
    ended = model.rollout()
    assert ended.code == Exit.DONE, ended.line
    assert jobs(model, "download") == jobs(model, "checksum") == []
    (pod,) = engine_pods(model)
    assert [status["state"]["terminated"]["exitCode"] for status in pod["status"]["initContainerStatuses"]] == [0, 0]
    assert weights_check(model)[0] == "Passed"


def test_weights_of_an_image_are_proven_mounted_and_gone_back_to(model: Model, tmp_path: Path) -> None:
    pinned_files(model, tmp_path)
    reference = in_an_image(model, tmp_path)
    first = model.rollout()
    assert first.code == Exit.DONE, first.line
    assert first.record is not None
    assert jobs(model, "download") == []
    assert len(jobs(model, "checksum")) == 1
    (pod,) = engine_pods(model)
    assert reference.removeprefix("r.example/") in str(pod["spec"]["volumes"])
    assert weights_check(model)[0] == "Passed"
    model.push("v0.33.0")
    second = model.rollout()
    assert second.code == Exit.DONE, second.line
    assert model.rollback().code == Exit.DONE
    assert model.serving() == first.record.release
    flip_bit(tmp_path / "models" / "tiny" / "model.safetensors", 8 * 500_000)
    value, line = weights_check(model)
    assert value == "Failed"
    assert "model.safetensors is altered" in line


def test_a_byte_flipped_in_the_image_never_reaches_a_canary(model: Model, tmp_path: Path) -> None:
    folder = pinned_files(model, tmp_path)
    flip_bit(folder / "model.safetensors", 8 * 500_000)
    in_an_image(model, tmp_path)
    refused = model.rollout()
    assert refused.code == Exit.REJECTED, refused.line
    assert refused.record is not None
    assert (refused.record.stage, refused.record.code) == ("checksum", "WeightsMismatch")
    assert "model.safetensors" in refused.record.reason
    assert model.records.verified_keys(model.name) == []
    flip_bit(folder / "model.safetensors", 8 * 500_000)
    in_an_image(model, tmp_path, tag="2")
    assert model.rollout().code == Exit.DONE


def test_weights_baked_into_the_engines_image_serve_by_pins_from_a_file(model: Model, tmp_path: Path) -> None:
    """As at a site without a hub: the pins come from a manifest that another site has verified."""
    at_another_site = model.rollout()
    assert at_another_site.code == Exit.DONE, at_another_site.line
    assert at_another_site.record is not None
    release = model.records.release(model.name, at_another_site.record.release)
    manifest = model.volume / f"{names.weights_path(model.name, release.weights.key)}.json"
    shutil.copyfile(manifest, model.folder / "models" / "pins.json")
    pinned_files(model, tmp_path)
    model.sandbox.images.add(model.image, "v0.34.0", ENGINE_PROGRAM, {"TAG": "v0.34.0"}, tmp_path)
    image = {"repository": model.image, "path": "/models/tiny"}
    weights = {"strategy": "image", "image": image, "pins": "pins.json", "revision": release.weights.commit}
    model.declare(weights=weights, evaluation=UNJUDGED)
    settings = json.loads(model.settings_file.read_text())
    model.settings_file.write_text(json.dumps(settings | {"hub_endpoint": "http://127.0.0.1:9"}))
    ended = model.rollout()
    assert ended.code == Exit.DONE, ended.line
    (pod,) = engine_pods(model)
    assert "--model=/models/tiny" in pod["spec"]["containers"][0]["args"]
    assert "persistentVolumeClaim" not in str(pod["spec"]["volumes"])


def test_a_hub_that_limits_the_rate_is_no_verdict_on_the_release(model: Model) -> None:
    model.declare(weights={"strategy": "init"}, evaluation=UNJUDGED)
    # Longer than all waits of a download together.
    limit = {"path": "*model.safetensors*", "status": 429, "retry_after": 3600, "message": "too many requests"}
    put_faults(model.sandbox, [limit])
    try:
        ended = model.rollout()
    finally:
        put_faults(model.sandbox, [])
    assert ended.record is not None
    assert (ended.record.verdict, ended.record.code) == ("Inconclusive", "WeightsUnavailable")
    assert model.canary_gone()
    assert model.rollout().code == Exit.DONE
