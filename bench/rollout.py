"""The cost of the seven stages over a bare script that applies the same objects and waits with kubectl."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmops_sandbox.cluster.binaries import find_or_build_kubectl
from llmops_sandbox.sandbox import ENGINE_PROGRAM, Sandbox
from llmops_sandbox.seeding import ENGINE_IMAGE, ENGINE_TAG
from llmops_sandbox.standins.weights import make_model

from bench.side_by_side import call
from llmops.cli.rollouts import run_rollout
from llmops.clients.kubernetes.client import Cluster
from llmops.config import names
from llmops.config.settings import SETTINGS_VARIABLE, Settings, load_settings
from llmops.evaluation.endpoint import Endpoint
from llmops.evaluation.proving import prove
from llmops.manifests.engine import objects
from llmops.manifests.jobs import checksum_job, download_job
from llmops.manifests.records import pins_config_map
from llmops.manifests.volume import claim
from llmops.releases.records import Records
from llmops.releases.release import Release
from llmops.releases.stages import STAGES
from llmops.rollout.ops.pinning import pin
from llmops.rollout.platform import Platform

ROUNDS = 5
REPO = "bench/model"
SMALL: dict[str, Any] = {"rounds": 1}
"""Arguments of `run` for the shortest run."""


def run(rounds: int = ROUNDS) -> dict[str, float]:
    """Seconds of a first rollout without suites, by llmops and bare, and their difference. Medians of the rounds.

    llmops' time is that of the stages; `rollout.run_seconds` includes the run's start (imports, Dagster's instance).
    """
    with tempfile.TemporaryDirectory(prefix="bench-rollout-") as folder:
        project = Path(folder)
        sandbox = Sandbox(project / "sandbox", project=project)
        sandbox.up()
        try:
            return _measure(sandbox, project, rounds)
        finally:
            sandbox.down(erase=True)


def _measure(sandbox: Sandbox, project: Path, rounds: int) -> dict[str, float]:
    (project / "evals").mkdir()
    (project / "models").mkdir()
    make_model(project / "weights", size_bytes=1 << 20, suites_dir=None, load_seconds=0.1)
    sandbox.hub_store.commit(REPO, project / "weights")
    sandbox.images.add(ENGINE_IMAGE, ENGINE_TAG, ENGINE_PROGRAM)
    os.environ[SETTINGS_VARIABLE] = str(sandbox.settings_file)
    settings = load_settings()
    cluster = Cluster.connect(settings)
    cluster.apply(claim(settings))
    ours: list[float] = []
    runs: list[float] = []
    bare: list[float] = []
    for number in range(rounds):
        for name, contest in ((f"ours-{number}", "ours"), (f"bare-{number}", "bare")):
            declare(project, name)
            if contest == "ours":
                started = time.monotonic()
                ended = run_rollout(Records(cluster), name, engine_version=None, revision=None, retry=False)
                runs.append(time.monotonic() - started)
                assert ended.record is not None, ended.line
                assert ended.record.verdict == "Passed", ended.line
                seconds = Records(cluster).seconds(name, ended.record.release)
                ours.append(sum(seconds[stage] for stage in STAGES))
            else:
                release = pin(Platform(), name)
                started = time.monotonic()
                _bare(cluster, settings, release, _kubectl(sandbox))
                bare.append(time.monotonic() - started)
            cluster.delete("Deployment", name, propagation="Foreground", wait=60)
    figures = {
        "rollout.seconds": statistics.median(ours),
        "rollout.bare_seconds": statistics.median(bare),
        "rollout.overhead_seconds": statistics.median(ours) - statistics.median(bare),
        "rollout.run_seconds": statistics.median(runs),
    }
    return {key: round(value, 3) for key, value in figures.items()}


def declare(project: Path, name: str) -> None:
    """Put a model without suites into the project's catalog."""
    entry = {
        "name": name,
        "weights": {"repo": REPO},
        "engine": {"image": ENGINE_IMAGE, "version": "0.32.0"},
        "gpu": {"count": 0},
        "resources": {"cpu": "100m", "memory": "1Gi", "shm": "64Mi"},
        "rollout": {"stabilization_seconds": 0, "unroute_seconds": 1, "drain_seconds": 5},
    }
    (project / "models" / f"{name}.yaml").write_text(json.dumps(entry))


def _bare(cluster: Cluster, settings: Settings, release: Release, kubectl: Callable[..., None]) -> None:
    """The same path as a bare script: apply, wait, ask once, clean up."""
    kubectl("apply", manifest=pins_config_map(release) | {"metadata": _metadata_in(settings, pins_config_map(release))})
    for job in (download_job(release, settings, "bare"), checksum_job(release, settings, 1, "bare")):
        kubectl("apply", manifest=job)
        kubectl("wait", "--for=condition=complete", "--timeout=120s", f"job/{job['metadata']['name']}")
    tracks: tuple[names.Track, ...] = ("canary", "stable")
    for track in tracks:
        name = names.engine_name(release.model, track)
        for obj in objects(release, settings, track, 1, surge=True):
            kubectl("apply", manifest=obj)
        kubectl("rollout", "status", "--timeout=120s", f"deployment/{name}")
        prove(Endpoint(cluster.endpoint(name, names.ENGINE_PORT), release.model), timeout=30)
        if track == "canary":
            kubectl("delete", "service", name)
            kubectl("delete", "deployment", name, "--cascade=foreground", "--timeout=120s")


def _metadata_in(settings: Settings, obj: dict[str, Any]) -> dict[str, Any]:
    return obj["metadata"] | {"namespace": settings.namespace}


def _kubectl(sandbox: Sandbox) -> Callable[..., None]:
    program = str(find_or_build_kubectl())
    common = (program, f"--kubeconfig={sandbox.kubeconfig}", f"--namespace={load_settings().namespace}")

    def kubectl(verb: str, *arguments: str, manifest: dict[str, Any] | None = None) -> None:
        files = ("--server-side", "-f", "-") if manifest else ()
        call(*common, verb, *arguments, *files, stdin=json.dumps(manifest) if manifest else None)

    return kubectl
