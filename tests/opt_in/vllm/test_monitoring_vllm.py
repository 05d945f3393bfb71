"""The real vLLM 0.32.0 under a real Prometheus: the rules record its figures, and its alerts fire."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from llmops_sandbox.engine.exchanges import MODEL
from llmops_sandbox.engine.process import EngineProcess
from llmops_sandbox.programs import prometheus
from llmops_sandbox.users import users

from llmops.clients.prometheus import Prometheus, Sample
from llmops.config.catalog.objectives import Objectives
from llmops.config.catalog.spec import Access, Evaluation, Gpu, Resources, Rollout
from llmops.config.settings import Settings
from llmops.evaluation.endpoint import Endpoint
from llmops.manifests.companions import rules
from llmops.releases.release import EnginePin, FilePin, Release, WeightsPin

pytestmark = pytest.mark.timeout(900)

KEY = "a-key-of-the-engine"
RELEASE = Release(
    model=MODEL,
    weights=WeightsPin(repo="a/b", commit="0" * 40, files=(FilePin(path="m.safetensors", size=1, sha256="0" * 64),)),
    engine=EnginePin(image="vllm/vllm-openai", tag="v0.32.0", digest="sha256:" + "0" * 64),
    gpu=Gpu(count=0),
    resources=Resources(),
    evaluation=Evaluation(),
    suites=(),
    rollout=Rollout(),
    access=Access(),
)
SETTINGS = Settings.model_validate({"monitoring": {"interval_seconds": 1}})


@contextmanager
def scraping(port: int, folder: Path) -> Generator[Prometheus]:
    """A Prometheus with the model's rules, which scrapes an engine on this machine like a pod."""
    levels = Objectives(p95_e2e_seconds=0.5, slow_for_seconds=3, waiting_requests=20, waiting_for_seconds=3)
    (folder / "rules.yml").write_text(json.dumps({"groups": rules.groups(RELEASE, SETTINGS, levels)}))
    labels = {"namespace": SETTINGS.namespace, "pod": "p", "model": MODEL, "track": "stable", "release": RELEASE.id}
    job = {"job_name": "engine", "static_configs": [{"targets": [f"127.0.0.1:{port}"], "labels": labels}]}
    every = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    config = folder / "prometheus.yml"
    config.write_text(json.dumps({"global": every, "rule_files": ["rules.yml"], "scrape_configs": [job]}))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        own = f"127.0.0.1:{probe.getsockname()[1]}"
    command: list[Any] = [
        prometheus.find_or_unpack() / "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={own}",
    ]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stderr=log) as server:
        try:
            with Prometheus(f"http://{own}") as client:
                yield client
        finally:
            server.terminate()


def until(ask: Callable[[], list[Sample]], what: str, seconds: float = 90) -> list[Sample]:
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < deadline, what
        time.sleep(0.5)
    return answer


def test_figures_are_recorded_and_alerts_fire_behind_an_api_key(
    launch_real: Callable[..., EngineProcess], tmp_path: Path
) -> None:
    with launch_real(VLLM_API_KEY=KEY) as engine, scraping(engine.port, tmp_path) as client:
        # The key guards the API, not /metrics.
        until(lambda: client.query("llmops:engines_up:count == 1"), "a scrape")
        endpoint = Endpoint(f"http://127.0.0.1:{engine.port}", MODEL, KEY)
        with users(endpoint, count=26, tokens=12) as counted:
            for alert in ("LlmQueueLong", "LlmLatencyHigh"):
                until(lambda alert=alert: client.query(f'ALERTS{{alertname="{alert}",alertstate="firing"}}'), alert)
            for group in rules.groups(RELEASE, SETTINGS, Objectives()):
                for figure in (rule["record"] for rule in group["rules"] if "record" in rule):
                    until(lambda figure=figure: client.query(f"{figure} >= 0"), figure)
        assert any(request.outcome == "completed" for request in counted.ended), counted.troubles
