"""Fixtures for every folder: one control plane and one sandbox for each process of pytest.

Each test has a namespace or a model for itself in them. A plane for one test alone is for what would harm others:
a whole installation, the audit log, nodes that join (`tests.support.planes`).
"""

from __future__ import annotations

import secrets
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from llmops_sandbox.controlplane import ControlPlane
from llmops_sandbox.crds import install_crds
from llmops_sandbox.sandbox import Sandbox

from llmops.cli.exits import Exit
from llmops.clients.kubernetes.client import Cluster
from llmops.config.settings import Settings
from tests.support.planes import control_plane, sandbox_at
from tests.support.world import Model, new_model

# The load of the machine changes how long an example takes; a test that must be fast measures that itself.
hypothesis.settings.register_profile("any-machine", deadline=None)
hypothesis.settings.load_profile("any-machine")


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """The control plane of this process: no nodes, and all kinds that others than Kubernetes define."""
    with control_plane(tmp_path_factory.mktemp("plane")) as plane:
        install_crds(Cluster.connect(settings_for(plane.kubeconfig)))
        yield plane


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """The sandbox of this process: it runs pods."""
    with sandbox_at(tmp_path_factory.mktemp("sandbox")) as sandbox:
        yield sandbox


@pytest.fixture
def settings(plane: ControlPlane) -> Settings:
    """Settings with a namespace for the test alone."""
    return settings_for(plane.kubeconfig, f"t-{secrets.token_hex(4)}")


@pytest.fixture
def cluster(settings: Settings) -> Cluster:
    """A client of the test's namespace, which exists."""
    cluster = Cluster.connect(settings)
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": settings.namespace}})
    return cluster


@pytest.fixture
def model(sandbox: Sandbox, tmp_path: Path) -> Iterator[Model]:
    """A model for the test alone, not yet rolled out."""
    with new_model(sandbox, tmp_path) as model:
        yield model


@pytest.fixture(scope="module")
def serving(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """A model that serves; the tests of the file leave it as it is."""
    with new_model(sandbox, tmp_path_factory.mktemp("serving")) as model:
        ended = model.rollout()
        assert ended.code == Exit.DONE, ended.line
        yield model


@pytest.fixture
def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def settings_for(kubeconfig: Path, namespace: str = "default", context: str | None = None) -> Settings:
    """Settings of one cluster."""
    return Settings.model_validate({"kubeconfig": str(kubeconfig), "namespace": namespace, "context": context})


_STARTED = {"here": 0, "workers": 0}


def _count(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "subprocess.Popen" and Path(str(arguments[0])).name == "etcd":
        _STARTED["here"] += 1


def pytest_configure(config: pytest.Config) -> None:
    """Count each etcd that this process starts: so many control planes. And let signals act."""
    sys.addaudithook(_count)
    # A shell without job control ignores SIGINT in its background. Dagster sets SIGTERM to what SIGINT is, and each
    # process that a test starts would inherit that both are ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the count to the process that reports."""
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["control_planes"] = _STARTED["here"]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take a worker's count."""
    _STARTED["workers"] += getattr(node, "workeroutput", {}).get("control_planes", 0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many control planes were started."""
    terminalreporter.write_line(f"control planes started: {sum(_STARTED.values())}")
