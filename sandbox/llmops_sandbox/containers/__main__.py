"""`python -m llmops_sandbox.containers check`, `build` or `run COMMAND...`."""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from llmops.errors import ClusterCannot, LlmopsError
from llmops_sandbox.cluster.binaries import cache_folder, find_or_build, find_or_build_kubectl, line_progress
from llmops_sandbox.containers import cgroups, packages, programs, requirements
from llmops_sandbox.sandbox import default_folder

_INSIDE = "inside"


def main() -> int:
    """Run one of the commands; returns the exit code."""
    arguments = argparse.ArgumentParser(prog="python -m llmops_sandbox.containers", description=__doc__)
    arguments.add_argument("--dir", type=Path, default=default_folder("containers"), help="folder of the cluster; new")
    arguments.add_argument("--project", type=Path, default=Path.cwd(), help="the checkout")
    arguments.add_argument("what", choices=("check", "build", "run", _INSIDE))
    arguments.add_argument("command", nargs=argparse.REMAINDER, help="what runs beside the node")
    given = arguments.parse_args()
    folder, project = given.dir.resolve(), given.project.resolve()
    command: list[str] = given.command
    try:
        if given.what == _INSIDE:
            return _inside(folder, project, command)
        requirements.require()
        if given.what == "build":
            _build(project)
        elif given.what == "run":
            return _run(folder, project, command)
    except LlmopsError as error:
        _say(f"containers: {error}")
        return 1
    return 0


def _build(project: Path) -> None:
    began = time.monotonic()
    progress = line_progress(_say)
    packages.unpack()
    programs.build(progress)
    find_or_build(progress)
    find_or_build_kubectl(progress)
    _say(f"programs: {time.monotonic() - began:.0f} s")
    built = subprocess.run(
        packages.command(sys.executable, "-m", "llmops_sandbox.containers.images", project), check=False
    )
    if built.returncode:
        raise ClusterCannot("the images were not built; see above", code="ProgramFailed", about="images")
    _say(f"programs and images: {time.monotonic() - began:.0f} s")


def _run(folder: Path, project: Path, command: list[str]) -> int:
    """Run a command beside a new node, in namespaces that end with it."""
    signal.signal(signal.SIGTERM, _terminated)
    with _only_one():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        cgroups.make()
        try:
            return subprocess.run(
                [
                    "unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc",
                    "--propagation", "private", sys.executable, "-m", "llmops_sandbox.containers",
                    "--dir", folder, "--project", project, _INSIDE, *command,
                ],
                check=False,
            ).returncode  # fmt: skip
        finally:
            cgroups.remove()


def _terminated(*_: object) -> None:
    sys.exit(128 + signal.SIGTERM)


def _inside(folder: Path, project: Path, command: list[str]) -> int:
    """Start the node, and run the command. This process is the first of its namespace: all others end with it."""
    # It imports what a machine without Linux does not have.
    from llmops_sandbox.containers.node import Node

    node = Node(folder, project)
    node.up(_say)
    child = os.posix_spawnp(command[0], command, {**os.environ, **node.environment()})
    # Processes whose parents ended become this one's children.
    while True:
        pid, status = os.wait()
        if pid == child:
            return os.waitstatus_to_exitcode(status)


@contextmanager
def _only_one() -> Generator[None]:
    """The node's cgroup and the images' store are one for each machine."""
    path = cache_folder() / "containers" / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ClusterCannot(
                "another node with containers runs on this machine", code="NodeRuns", about=str(path),
                remedy="Wait until its command has ended.",
            ) from error  # fmt: skip
        yield


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - a command's output


if __name__ == "__main__":
    sys.exit(main())
