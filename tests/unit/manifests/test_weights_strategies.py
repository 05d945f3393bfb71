"""The engine's pod and the Jobs of each weights strategy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmops.config import names
from llmops.config.catalog.spec import Engine, ModelSpec, SecretKey, Weights
from llmops.config.settings import Settings
from llmops.manifests import engine, weights
from llmops.manifests.companions import network
from llmops.manifests.jobs import image_checksum_job
from llmops.releases.release import ImagePin, Release

IMAGE = ImagePin(repository="r.example/weights", tag="1", digest=f"sha256:{'a' * 64}", path="/llama")


def by(release: Release, strategy: str, image: ImagePin | None = None) -> Release:
    pins = release.weights.model_copy(
        update={"strategy": strategy, "image": image, "token": SecretKey(name="hub", key="token")}
    )
    return release.model_copy(update={"weights": pins})


def baked(release: Release) -> Release:
    own = ImagePin(
        repository=release.engine.image, tag=release.engine.tag, digest=release.engine.digest, path="/weights"
    )
    return by(release, "image", own)


def pod(release: Release, settings: Settings) -> dict[str, Any]:
    return engine.deployment(release, settings, "stable", 1, surge=True)["spec"]["template"]["spec"]


def weights_mounts(container: dict[str, Any]) -> list[dict[str, Any]]:
    return [mount for mount in container["volumeMounts"] if mount["name"] == "weights"]


def source(pod: dict[str, Any]) -> dict[str, Any]:
    return next(volume for volume in pod["volumes"] if volume["name"] == "weights")


@pytest.mark.parametrize("strategy", ["volume", "init", "image"])
def test_the_engine_has_its_release_and_nothing_else_read_only(
    release: Release, settings: Settings, strategy: str
) -> None:
    chosen = by(release, strategy, IMAGE if strategy == "image" else None)
    spec = pod(chosen, settings)
    (mounted,) = weights_mounts(spec["containers"][0])
    assert mounted["readOnly"] is True
    assert f"--model={mounted['mountPath']}" in spec["containers"][0]["args"]
    assert mounted["subPath"] == ("llama" if strategy == "image" else names.weights_path("tiny", chosen.weights.key))


def test_only_the_download_container_has_the_hub_token(release: Release, settings: Settings) -> None:
    spec = pod(by(release, "init"), settings)
    having = [
        container["name"]
        for container in (*spec["initContainers"], *spec["containers"])
        if any(mount["name"] == "hub-token" for mount in container["volumeMounts"])
    ]
    assert having == [names.WEIGHTS_CONTAINERS[0]]
    assert "HF_TOKEN" not in {variable["name"] for variable in spec["containers"][0]["env"]}
    assert spec["securityContext"]["fsGroup"] == 2000, "the token's file is the group's alone"


def test_a_pods_own_copy_has_a_size_limit_and_a_checksum(release: Release, settings: Settings) -> None:
    chosen = by(release, "init")
    spec = pod(chosen, settings)
    room = weights.room_mib(chosen)
    assert source(spec)["emptyDir"] == {"sizeLimit": f"{room}Mi"}
    assert room * 2**20 > chosen.weights.size * 1.01 + (16 << 20), "what the download asks for"
    download, checksum = spec["initContainers"]
    assert download["resources"]["requests"]["ephemeral-storage"] == f"{room}Mi"
    assert {"checksum", "--verify-only"} <= set(checksum["args"])
    assert all(container["securityContext"]["runAsUser"] == 2000 for container in (download, checksum))


def test_time_for_the_weights_to_arrive_is_allowed(release: Release) -> None:
    volume, init = (engine.progress_seconds(by(release, strategy)) for strategy in ("volume", "init"))
    image = engine.progress_seconds(by(release, "image", IMAGE))
    assert init > image > volume


def test_an_image_is_mounted_by_its_digest(release: Release, settings: Settings) -> None:
    spec = pod(by(release, "image", IMAGE), settings)
    assert source(spec)["image"] == {"reference": IMAGE.reference, "pullPolicy": "IfNotPresent"}
    assert "initContainers" not in spec


def test_baked_weights_need_no_volume(release: Release, settings: Settings) -> None:
    chosen = baked(release)
    spec = pod(chosen, settings)
    assert "--model=/weights" in spec["containers"][0]["args"]
    assert weights_mounts(spec["containers"][0]) == []
    assert "weights" not in {volume["name"] for volume in spec["volumes"]}


def test_the_checksum_job_of_an_image_is_shared_and_its_rehash_is_the_runs(
    release: Release, settings: Settings
) -> None:
    chosen = by(release, "image", IMAGE)
    proof = image_checksum_job(chosen, IMAGE, settings, "run-one")
    again = image_checksum_job(chosen, IMAGE, settings, "run-two", read_mb_per_second=50)
    assert proof["metadata"]["name"] == names.job_name("tiny", "checksum", chosen.weights.key)
    assert again["metadata"]["name"] == names.job_name("tiny", "rehash", f"{chosen.weights.key}-run-two")
    spec = proof["spec"]["template"]["spec"]
    assert source(spec)["image"]["reference"] == IMAGE.reference
    args = spec["containers"][0]["args"]
    assert {"--verify-only", f"--root={names.VOLUME_MOUNT}", "--target=llama"} <= set(args)
    assert "persistentVolumeClaim" not in str(spec), "a site with images alone has no claim"


def test_the_root_of_an_image_can_be_the_folder(release: Release, settings: Settings, tmp_path: Path) -> None:
    root = IMAGE.model_copy(update={"path": "/"})
    chosen = by(release, "image", root)
    assert "subPath" not in weights_mounts(pod(chosen, settings)["containers"][0])[0]
    job = image_checksum_job(chosen, root, settings, "run")
    assert "--target=." in job["spec"]["template"]["spec"]["containers"][0]["args"]


def test_pods_that_fetch_their_own_weights_reach_the_hub_and_others_do_not(
    release: Release, settings: Settings
) -> None:
    spec = ModelSpec(name="tiny", weights=Weights(repo="a/b"), engine=Engine(version="1.0"))
    at = settings.model_copy(update={"hub_endpoint": "https://hub.example:8443"})
    (closed,) = network.objects(spec, release, at)
    (opened,) = network.objects(spec, by(release, "init"), at)
    assert "ipBlock" not in str(closed["spec"]["egress"])
    hub = opened["spec"]["egress"][-1]
    assert hub["ports"] == [{"port": 8443, "protocol": "TCP"}]
    assert hub["to"][0]["ipBlock"]["except"] == ["169.254.169.254/32"]
