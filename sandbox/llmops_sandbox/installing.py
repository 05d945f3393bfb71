"""Installs llmops in the sandbox as on any cluster: Dagster's parts as pods, with `k8s/overlays/sandbox`.

A kustomization on top of the overlay adds the sandbox's addresses and a password.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from llmops import __version__
from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.wait import wait_for_rollout
from llmops.config.settings import load_settings
from llmops.errors import BadInput, ClusterCannot, Unavailable
from llmops_sandbox.cluster.binaries import find_or_build, find_or_build_kubectl, line_progress
from llmops_sandbox.cluster.controlplane import ControlPlane
from llmops_sandbox.programs import postgresql
from llmops_sandbox.sandbox import Sandbox
from llmops_sandbox.ui import Ui

NAMESPACE = "llmops"
K8S = Path(__file__).parents[2] / "k8s"
OVERLAY, INSTANCE = K8S / "overlays" / "sandbox", K8S / "base" / "dagster.yaml"
ORCHESTRATOR = ("ghcr.io/llmops-dev/orchestrator", __version__)
# The image has no entrypoint: a pod's arguments are the program.
ORCHESTRATOR_PROGRAM = ("env",)
POSTGRESQL = ("docker.io/library/postgres", "17.6")
DEPLOYMENTS = ("code-location", "webserver", "daemon", "service")
UI_PORT = 3000
# The tenth address of the Services' range: the API server assigns addresses from its upper part first.
UI_ADDRESS = 10
READY_SECONDS = 240


def install(
    sandbox: Sandbox, settings: Mapping[str, Any] | None = None, *, tell: Callable[[str], None] = lambda line: None
) -> str:
    """Install or update llmops in a running sandbox, and wait until it serves.

    Args:
        sandbox: A running sandbox.
        settings: Settings that differ from the sandbox's own.
        tell: Called with a line whenever the state changes.

    Returns:
        URL of Dagster's UI.

    Raises:
        BadInput: CheckoutMissing: this llmops has no `k8s/` beside it.
        ClusterCannot: PackageUnavailable, ProgramFailed or NotReady.
        BadRelease: A part of llmops does not start; the message has the end of its log.
    """
    if not OVERLAY.is_dir():
        raise BadInput(
            f"{OVERLAY} does not exist",
            code="CheckoutMissing",
            about=str(OVERLAY),
            remedy="Install from a checkout of llmops.",
        )
    programs = postgresql.find_or_unpack()
    sandbox.images.add(*ORCHESTRATOR, ORCHESTRATOR_PROGRAM)
    sandbox.images.add(*POSTGRESQL, postgresql.PROGRAM, postgresql.environment(programs))
    plane = ControlPlane(sandbox.folder, find_or_build())
    address = str(ipaddress.ip_network(plane.network().services)[UI_ADDRESS])
    url = f"http://{address}:{UI_PORT}"
    folder = sandbox.folder / "install"
    _write(folder, {**sandbox.pod_settings(), "dagster_url": url, **(settings or {})}, address)
    kubectl = [str(find_or_build_kubectl(line_progress(tell))), "--kubeconfig", str(sandbox.kubeconfig)]
    _run([*kubectl, "apply", "--server-side", "--force-conflicts", "--kustomize", str(folder)])
    _run([*kubectl, "rollout", "status", "--namespace", NAMESPACE, f"--timeout={READY_SECONDS}s",
          "statefulset/postgresql"])  # fmt: skip
    cluster = Cluster.connect(load_settings(sandbox.settings_file).model_copy(update={"namespace": NAMESPACE}))
    for name in DEPLOYMENTS:
        wait_for_rollout(
            cluster,
            name,
            timeout=READY_SECONDS,
            on_progress=lambda line, name=name: tell(f"{name}: {line}"),
            ours=(name,),
        )
    _await_work(url, tell)
    return url


def without_containers(instance: Mapping[str, Any]) -> dict[str, Any]:
    """Dagster's configuration for pods that are processes: two on one machine cannot both have their account's path."""
    launcher = instance["run_launcher"]
    config = {**launcher["config"], "load_incluster_config": False}
    return {**instance, "run_launcher": {**launcher, "config": config}}


def _write(folder: Path, settings: Mapping[str, Any], address: str) -> None:
    """Write the kustomization; the first call makes the password."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    password = folder / "password"
    if not password.exists():
        password.write_text(secrets.token_urlsafe(24))
    (folder / "settings.yaml").write_text(json.dumps(settings, indent=2))
    (folder / "dagster.yaml").write_text(json.dumps(without_containers(yaml.safe_load(INSTANCE.read_text())), indent=2))
    where = f"postgresql+psycopg2://dagster:{password.read_text()}@postgresql.{NAMESPACE}.svc:5432/dagster"
    (folder / "database.env").write_text(f"DAGSTER_PG_URL={where}\n")
    annotations = {"llmops.dev/settings": hashlib.sha256(f"{settings}{where}".encode()).hexdigest()[:12]}
    # kustomize takes no absolute paths.
    kustomization: dict[str, Any] = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(OVERLAY, folder)],
        "generatorOptions": {"disableNameSuffixHash": True},
        "configMapGenerator": [
            {"name": name, "namespace": NAMESPACE, "behavior": "merge", "files": [file]}
            for name, file in (("llmops-settings", "settings.yaml"), ("dagster-instance", "dagster.yaml"))
        ],
        "secretGenerator": [
            {"name": "postgresql-password", "namespace": NAMESPACE, "files": ["password"]},
            {"name": "dagster-postgresql", "namespace": NAMESPACE, "envs": ["database.env"]},
        ],
        "patches": [
            # Changed settings restart the pods.
            _patch("Deployment", ".*", "/spec/template/metadata/annotations", annotations),
            _patch("Service", "webserver", "/spec/clusterIP", address),
        ],
    }
    (folder / "kustomization.yaml").write_text(json.dumps(kustomization, indent=2))


def _await_work(url: str, tell: Callable[[str], None]) -> None:
    """Wait until the webserver has loaded the definitions and every required daemon is healthy."""
    deadline = time.monotonic() + READY_SECONDS
    told = ""
    while what := _missing(Ui(url)):
        if time.monotonic() > deadline:
            raise ClusterCannot(
                f"{url}: Dagster does not work {READY_SECONDS} s after its start: {what}", code="NotReady", about=url
            )
        if what != told:
            tell(what)
            told = what
        time.sleep(0.3)


def _missing(ui: Ui) -> str:
    try:
        return ", ".join(ui.missing())
    except Unavailable as error:
        return error.message


def _patch(kind: str, name: str, path: str, value: object) -> dict[str, Any]:
    return {
        "target": {"kind": kind, "name": name},
        "patch": json.dumps([{"op": "add", "path": path, "value": value}]),
    }


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterCannot(
            f"kubectl {' '.join(command[3:])} failed: {done.stderr.strip() or done.stdout.strip()}",
            code="ProgramFailed",
            about=f"kubectl {command[3]}",
            remedy=f"Look at the pods: kubectl --kubeconfig {command[2]} get pods --namespace {NAMESPACE}",
        )
