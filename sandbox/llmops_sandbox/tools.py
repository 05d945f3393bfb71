"""The evaluation image's programs on this machine, installed once into the cache folder, on request.

What is installed is what the image has (k8s/evaluation/requirements.txt, by hash): lm-evaluation-harness, and what
measuring imports. llmops itself comes from the checkout.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llmops.errors import ClusterCannot
from llmops.evaluation.formats.tool import OFFLINE
from llmops_sandbox.binaries import cache_folder

PROJECT = Path(__file__).parents[2]
REQUIREMENTS = PROJECT / "k8s" / "evaluation" / "requirements.txt"
WITHOUT_WHEELS = "rouge-score,sqlitedict,word2number"
BUILDS = "setuptools"


@dataclass(frozen=True)
class Tools:
    """An environment with the evaluation image's programs."""

    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "venv" / "bin" / "python"

    @property
    def program(self) -> tuple[str, ...]:
        """The program of an image in the sandbox's image store: what measures, with the tools beside it."""
        return (str(self.python), "-m", "llmops.evaluation.remote")

    @property
    def environment(self) -> Mapping[str, str]:
        """What the image sets."""
        return {**OFFLINE, "PYTHONPATH": str(PROJECT), "PYTHONDONTWRITEBYTECODE": "1"}


def find() -> Tools | None:
    """What `install` made, if it did, and made it of the requirements of now."""
    made = _place()
    mark = made.folder / "made"
    return made if mark.is_file() and mark.read_bytes() == _wanted() else None


def install() -> Tools:
    """Install the environment, as far as that has not been done: about a minute and 600 MB.

    Raises:
        ClusterCannot: A step failed, with the end of what it said.
    """
    made = _place()
    made.folder.mkdir(parents=True, exist_ok=True)
    with (made.folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if find() is None:
            shutil.rmtree(made.folder / "venv", ignore_errors=True)
            _run(made, sys.executable, "-m", "venv", str(made.folder / "venv"))
            build = made.folder / "build.txt"
            build.write_text(_pin(_wanted().decode(), BUILDS))
            # Dependencies without wheels are built by what is pinned, and by none else.
            pip = (str(made.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps")
            wheels = ("--require-hashes", "--only-binary", ":all:")
            _run(made, *pip, *wheels, "--requirement", str(build))
            _run(
                made,
                *(*pip, *wheels, "--no-binary", WITHOUT_WHEELS, "--no-build-isolation"),
                *("--requirement", str(REQUIREMENTS)),
            )
            (made.folder / "made").write_bytes(_wanted())
    return made


def _place() -> Tools:
    return Tools(cache_folder() / "evaluation")


def _wanted() -> bytes:
    try:
        return REQUIREMENTS.read_bytes()
    except OSError as error:
        raise ClusterCannot(
            f"{REQUIREMENTS} cannot be read: {error}", remedy="Run it from a checkout of llmops."
        ) from error


def _pin(requirements: str, name: str) -> str:
    """The lines of one requirement: its version and its hashes."""
    lines = requirements.splitlines(keepends=True)
    start = next(index for index, line in enumerate(lines) if line.startswith(f"{name}=="))
    end = next(index for index in range(start, len(lines)) if not lines[index].rstrip().endswith("\\"))
    return "".join(lines[start : end + 1])


def _run(made: Tools, *command: str) -> None:
    log = made.folder / "install.log"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    with log.open("ab") as output:
        code = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=environment, check=False).returncode
    if code:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise ClusterCannot(
            f"the evaluation tools could not be installed: exit code {code}:\n{tail}",
            remedy=f"It needs 600 MB of disk and PyPI; all output is in {log}.",
        )


def main() -> None:
    """`python -m llmops_sandbox.tools`: install, and say where."""
    sys.stdout.write(f"{install().folder}\n")


if __name__ == "__main__":
    main()
