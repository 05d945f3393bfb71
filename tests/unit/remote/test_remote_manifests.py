"""The measuring Job and its order against Kubernetes' published schemas, and the few rights of its pod."""

from __future__ import annotations

import base64
import datetime
import json
from typing import Any

import kubernetes_validate
import pytest

from llmops.config import names
from llmops.config.catalog.spec import SecretKey
from llmops.config.settings import Settings
from llmops.errors import Unavailable
from llmops.evaluation.remote.__main__ import main
from llmops.evaluation.remote.ending import EXIT_CODES
from llmops.manifests.evaluation import COMPONENT, FINAL_EXIT_CODES, evaluation_job, order_config_maps, ownership

SETTINGS = Settings.model_validate({"namespace": "serving"})
LABELS = names.labels("tiny", "0123456789ab", COMPONENT, run="run")
EXPIRES = datetime.datetime(2026, 11, 25, 12, tzinfo=datetime.UTC)
PARTS = [("order-000", b"\x00\xff"), ("order-001", b"more")]
KEYS = {"LLMOPS_API_KEY": SecretKey(name="access", key="token")}


def job() -> dict[str, Any]:
    return evaluation_job("tiny-evaluation-measure-1", LABELS, len(PARTS), KEYS, "image:1", SETTINGS, EXPIRES)


@pytest.mark.parametrize("version", ["1.34", "1.37"])
def test_every_object_fits_the_schema(version: str) -> None:
    manifest = job()
    manifest["metadata"]["uid"] = "0" * 8
    for config_map in order_config_maps(manifest, PARTS):
        config_map["metadata"] |= ownership(manifest)["metadata"]
        kubernetes_validate.validate(config_map, version, strict=True)
    kubernetes_validate.validate(job(), version, strict=True)


def test_the_pod_has_no_rights_and_few_resources() -> None:
    pod = job()["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "nvidia.com/gpu" not in json.dumps(pod)
    assert "persistentVolumeClaim" not in json.dumps(pod)
    key = next(variable for variable in container["env"] if variable["name"] == "LLMOPS_API_KEY")
    assert key == {"name": "LLMOPS_API_KEY", "valueFrom": {"secretKeyRef": {"name": "access", "key": "token"}}}


def test_the_reaper_sees_the_labels_and_the_expiry() -> None:
    meta = job()["metadata"]
    assert meta["labels"] == LABELS
    assert meta["annotations"][names.EXPIRES_ANNOTATION] == "2026-11-25T12:00:00+00:00"
    assert all(config_map["metadata"]["labels"] == LABELS for config_map in order_config_maps(job(), PARTS))


def test_an_order_is_mounted_whole() -> None:
    [volume] = [mount for mount in job()["spec"]["template"]["spec"]["volumes"] if "projected" in mount]
    mounted = [source["configMap"]["name"] for source in volume["projected"]["sources"]]
    config_maps = order_config_maps(job(), PARTS)
    assert mounted == [config_map["metadata"]["name"] for config_map in config_maps]
    assert [config_map["binaryData"] for config_map in config_maps] == [
        {name: base64.b64encode(content).decode()} for name, content in PARTS
    ]
    assert all(config_map["immutable"] for config_map in config_maps)


def test_every_exit_code_that_a_retry_cannot_help_is_final() -> None:
    retried = {code for kind, code in EXIT_CODES if kind is Unavailable}
    assert set(FINAL_EXIT_CODES) == {1, *(code for _, code in EXIT_CODES)} - retried


def test_the_program_takes_the_arguments_that_the_job_gives(capsys: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    arguments = [
        argument.replace("/etc", str(tmp_path)).replace("/dev", str(tmp_path))
        for argument in job()["spec"]["template"]["spec"]["containers"][0]["args"]
    ]
    assert main(arguments) == 2
    assert "order" in capsys.readouterr().out
