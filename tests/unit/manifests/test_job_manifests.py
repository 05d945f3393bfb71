"""The Jobs on the volume, against the worker that runs in them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.config.catalog.spec import NAME
from llmops.config.names import job_name
from llmops.config.settings import Settings
from llmops.manifests.jobs import checksum_job, collect_job, download_job
from llmops.manifests.records import pins_config_map
from llmops.manifests.volume import claim, namespace
from llmops.releases.release import Release
from llmops.worker.__main__ import main
from llmops.worker.report import EXIT_CODES

KEEP = ["k2", "k1", "k1"]


def jobs(release: Release, settings: Settings) -> dict[str, dict[str, Any]]:
    return {
        "download": download_job(release, settings, "run"),
        "checksum": checksum_job(release, settings, 3, "run"),
        "collect": collect_job(release.model, KEEP, settings, "run", release.id),
    }


def pod(job: dict[str, Any]) -> dict[str, Any]:
    return job["spec"]["template"]["spec"]


def args(job: dict[str, Any]) -> list[str]:
    return pod(job)["containers"][0]["args"]


def environment(job: dict[str, Any]) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in pod(job)["containers"][0]["env"]}


def test_names_are_the_same_for_the_same_work(release: Release, settings: Settings) -> None:
    key = release.weights.key
    assert download_job(release, settings, "one")["metadata"]["name"] == f"tiny-download-{key}"
    assert checksum_job(release, settings, 1, "two")["metadata"]["name"] == f"tiny-checksum-{key}"
    assert collect_job("tiny", [], settings, "r", release.id)["metadata"]["name"] == f"tiny-collect-{release.id}"


@given(
    model=st.from_regex(NAME, fullmatch=True),
    stage=st.sampled_from(["download", "checksum", "collect"]),
    keys=st.tuples(*[st.from_regex(r"[0-9a-f]{12}-[0-9a-f]{8}", fullmatch=True)] * 2),
)
def test_names_of_jobs_are_host_names_and_never_those_of_other_weights(
    model: str, stage: Literal["download", "checksum", "collect"], keys: tuple[str, str]
) -> None:
    one, other = (job_name(model, stage, key) for key in keys)
    assert (one == other) == (keys[0] == keys[1])
    # Kubernetes appends the index of the shard.
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", f"{one}-99")
    assert len(f"{one}-99") <= 63


def test_a_long_name_keeps_the_keys_of_one_commit_apart() -> None:
    model = "m" * 40
    one, other = (job_name(model, "checksum", f"0123456789ab-{files}") for files in ("11111111", "22222222"))
    assert one != other


def test_the_download_writes_to_staging_and_may_write(release: Release, settings: Settings) -> None:
    # The article's Job wrote to a claim that was read-only.
    job = download_job(release, settings, "run")
    key = release.weights.key
    assert args(job) == [
        "download",
        "--release=/etc/llmops/release.json",
        "--root=/models",
        f"--target=weights/tiny/{key}",
        f"--staging=staging/tiny/{key}",
        "--termination-log=/dev/termination-log",
    ]
    (mount,) = [mount for mount in pod(job)["containers"][0]["volumeMounts"] if mount["name"] == "weights"]
    assert mount == {"name": "weights", "mountPath": "/models"}
    assert claim(settings)["spec"]["accessModes"] == ["ReadWriteMany"]


def test_only_the_download_has_the_hub_token(release: Release, settings: Settings) -> None:
    rendered = jobs(release, settings)
    assert environment(rendered["download"])["HF_TOKEN_PATH"] == "/etc/llmops-hub/token"
    (volume,) = [volume for volume in pod(rendered["download"])["volumes"] if "secret" in volume]
    assert volume["secret"] == {
        "secretName": "hub",
        "items": [{"key": "hub-token", "path": "token"}],
        "defaultMode": 0o440,
    }
    for name in ("checksum", "collect"):
        text = json.dumps(rendered[name])
        assert "HF_TOKEN" not in text
        assert "secret" not in text


def test_a_public_repository_needs_no_token(release: Release, settings: Settings) -> None:
    weights = release.weights.model_copy(update={"token": None})
    job = download_job(release.model_copy(update={"weights": weights}), settings, "run")
    assert "secret" not in json.dumps(job)
    assert "HF_TOKEN_PATH" not in environment(job)


def test_the_hub_is_that_of_the_settings(release: Release, settings: Settings) -> None:
    assert environment(download_job(release, settings, "run"))["HF_ENDPOINT"] == "http://127.0.0.1:1"


@pytest.mark.parametrize(
    ("name", "action"), [("download", "FailJob"), ("checksum", "FailIndex"), ("collect", "FailJob")]
)
def test_only_what_a_retry_can_change_is_retried(release: Release, settings: Settings, name: str, action: str) -> None:
    job = jobs(release, settings)[name]
    drained, final = job["spec"]["podFailurePolicy"]["rules"]
    assert drained == {
        "action": "Ignore",
        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
    }
    assert final["action"] == action
    assert final["onExitCodes"]["containerName"] == pod(job)["containers"][0]["name"]
    assert set(final["onExitCodes"]["values"]) == set(EXIT_CODES.values()) - {0, 4} | {2}
    assert pod(job)["restartPolicy"] == "Never"
    assert job["spec"]["podReplacementPolicy"] == "Failed"


def test_a_checksum_has_a_pod_for_each_shard(release: Release, settings: Settings) -> None:
    job = checksum_job(release, settings, 3, "run")
    assert job["spec"]["completionMode"] == "Indexed"
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == 3
    assert "--shards=3" in args(job)
    assert "--run=run" in args(job)
    assert "--from-volume" in args(job)
    assert "backoffLimit" not in job["spec"]


def test_deadlines_grow_with_the_weights(release: Release, settings: Settings) -> None:
    small = release.weights.model_copy(update={"files": release.weights.files[:1]})
    less = release.model_copy(update={"weights": small})
    for name, job in jobs(release, settings).items():
        if name != "collect":
            deadline = jobs(less, settings)[name]["spec"]["activeDeadlineSeconds"]
            assert deadline < job["spec"]["activeDeadlineSeconds"]


def test_a_collection_keeps_the_given_keys(release: Release, settings: Settings, tmp_path: Path) -> None:
    for key in ("k1", "k2", "k3"):
        (tmp_path / "weights" / "tiny" / key).mkdir(parents=True)
    job = collect_job("tiny", KEEP, settings, "run", release.id)
    assert main(here(args(job), tmp_path)) == 0
    assert sorted(path.name for path in (tmp_path / "weights" / "tiny").glob("k*")) == ["k1", "k2"]
    assert main(here(args(collect_job("tiny", [], settings, "run", release.id)), tmp_path)) == 0
    assert not list((tmp_path / "weights" / "tiny").glob("k*"))


def test_the_worker_takes_the_checksum_jobs_arguments(settings: Settings, release: Release, tmp_path: Path) -> None:
    # Exit code 3: every file is missing from the empty folder. Unknown arguments have exit code 2.
    (tmp_path / "release.json").write_text(pins_config_map(release)["data"]["release.json"])
    (tmp_path / "weights" / "tiny" / release.weights.key).mkdir(parents=True)
    assert main(here(args(checksum_job(release, settings, 1, "run")), tmp_path)) == 3
    result = json.loads((tmp_path / "termination-log").read_text())
    assert result["kind"] == "mismatch"


def here(arguments: list[str], folder: Path) -> list[str]:
    """A container's arguments, with its paths in a folder of this machine."""
    paths = {"/models": folder, "/etc/llmops": folder, "/dev": folder}
    changed = [*arguments]
    for path, place in paths.items():
        changed = [argument.replace(f"={path}", f"={place}") for argument in changed]
    return changed


def test_a_jobs_pod_has_few_rights(release: Release, settings: Settings) -> None:
    for job in jobs(release, settings).values():
        spec = pod(job)
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["fsGroup"] == spec["securityContext"]["runAsGroup"]
        assert spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
        assert spec["containers"][0]["terminationMessagePolicy"] == "FallbackToLogsOnError"
        assert "command" not in spec["containers"][0]


def test_a_job_has_its_run_its_model_and_a_ttl(release: Release, settings: Settings) -> None:
    for job in jobs(release, settings).values():
        assert job["metadata"]["labels"]["llmops.dev/run"] == "run"
        assert job["metadata"]["labels"]["llmops.dev/model"] == "tiny"
        assert job["spec"]["ttlSecondsAfterFinished"] >= 3600


def test_pins_are_complete_and_immutable(release: Release) -> None:
    pins = pins_config_map(release)
    assert pins["immutable"] is True
    assert pins["metadata"]["name"] == f"tiny.release.{release.id}"
    assert Release.model_validate_json(pins["data"]["release.json"]) == release
    assert Release.model_validate_json(pins["data"]["release.json"]).id == release.id


def test_a_claim_follows_the_settings(settings: Settings) -> None:
    assert "storageClassName" not in claim(settings)["spec"]
    other = settings.model_copy(update={"storage_class": "nfs", "storage": "2Ti", "claim": "other"})
    volume_claim = claim(other)
    assert volume_claim["metadata"]["name"] == "other"
    assert volume_claim["spec"]["storageClassName"] == "nfs"
    assert volume_claim["spec"]["resources"]["requests"]["storage"] == "2Ti"
    assert namespace(other)["metadata"]["name"] == "serving"
