"""Fixtures for every folder: one control plane and one sandbox for each process of pytest.

Each test has its own namespace or model in them. A test that would harm others starts its own plane
(`tests.support.planes`): a whole installation, the audit log, joining nodes.
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
from llmops_sandbox.cluster.controlplane import ControlPlane
from llmops_sandbox.cluster.crds import install_crds
from llmops_sandbox.sandbox import Sandbox

from llmops.cli.exits import Exit
from llmops.clients.kubernetes.client import Cluster
from llmops.config.settings import Settings
from tests.support.planes import control_plane, sandbox_at
from tests.support.world import Model, new_model

# The time of an example depends on the machine's load; tests of speed measure it themselves.
hypothesis.settings.register_profile("any-machine", deadline=None)
hypothesis.settings.load_profile("any-machine")


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """The control plane of this process: no nodes, and the kinds of all operators."""
    with control_plane(tmp_path_factory.mktemp("plane")) as plane:
        install_crds(Cluster.connect(settings_for(plane.kubeconfig)))
        yield plane


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """The sandbox of this process, which runs pods."""
    with sandbox_at(tmp_path_factory.mktemp("sandbox")) as sandbox:
        yield sandbox


@pytest.fixture
def settings(plane: ControlPlane) -> Settings:
    """Settings with a namespace of the test."""
    return settings_for(plane.kubeconfig, f"t-{secrets.token_hex(4)}")


@pytest.fixture
def cluster(settings: Settings) -> Cluster:
    """A client for the test's namespace; makes the namespace."""
    cluster = Cluster.connect(settings)
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": settings.namespace}})
    return cluster


@pytest.fixture
def model(sandbox: Sandbox, tmp_path: Path) -> Iterator[Model]:
    """A model of the test, not rolled out yet."""
    with new_model(sandbox, tmp_path) as model:
        yield model


@pytest.fixture(scope="module")
def serving(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """A serving model for the tests of a file, which must not change it."""
    with new_model(sandbox, tmp_path_factory.mktemp("serving")) as model:
        ended = model.rollout()
        assert ended.code == Exit.DONE, ended.line
        yield model


@pytest.fixture
def free_port() -> int:
    """A free port."""
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
    """Count the control planes that this process starts, by their etcd; and let SIGINT act."""
    sys.addaudithook(_count)
    # A shell without job control ignores SIGINT in background jobs. Dagster gives SIGTERM the action of SIGINT; each
    # process that a test starts would inherit that both are ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send the count to the reporting process."""
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["control_planes"] = _STARTED["here"]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add a worker's count."""
    _STARTED["workers"] += getattr(node, "workeroutput", {}).get("control_planes", 0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the number of started control planes."""
    terminalreporter.write_line(f"control planes started: {sum(_STARTED.values())}")
