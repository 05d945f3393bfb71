from __future__ import annotations

from typing import Any

import pytest

from llmops.config.catalog.spec import Access, Evaluation, Gpu, Resources, Rollout, SecretKey
from llmops.config.settings import Settings
from llmops.releases.release import EnginePin, FilePin, Release, SuitePin, WeightsPin


@pytest.fixture
def settings() -> Settings:
    return Settings.model_validate({"namespace": "serving", "hub_endpoint": "http://127.0.0.1:1"})


@pytest.fixture
def release() -> Release:
    """A release that sets every field."""
    return Release(
        model="tiny",
        weights=WeightsPin(
            repo="acme/tiny",
            commit="0123456789abcdef0123456789abcdef01234567",
            files=(
                FilePin(path="config.json", size=1000, git_sha1="9" * 40),
                FilePin(path="model.safetensors", size=39_799_999_000, sha256="8" * 64),
            ),
            token=SecretKey(name="hub", key="hub-token"),
        ),
        engine=EnginePin(
            image="vllm/vllm-openai",
            tag="v0.32.0",
            digest="sha256:" + "7" * 64,
            args=("--gpu-memory-utilization=0.9", "--max-model-len=8192", "--quantization=awq_marlin"),
            env=(("VLLM_LOGGING_LEVEL", "INFO"),),
        ),
        gpu=Gpu(product="NVIDIA-L40S", count=1, memory="45Gi"),
        resources=Resources(cpu="6", memory="48Gi", shm="8Gi"),
        evaluation=Evaluation(suites=("json",)),
        suites=(SuitePin(name="json", sha256="6" * 64),),
        rollout=Rollout(load_mb_per_second=100, startup_seconds=300, drain_seconds=120, unroute_seconds=10),
        access=Access(api_key=SecretKey(name="key", key="api-key")),
    )


def pod_of(manifest: dict[str, Any]) -> dict[str, Any]:
    """The pod's spec in a Deployment or Job."""
    return manifest["spec"]["template"]["spec"]
