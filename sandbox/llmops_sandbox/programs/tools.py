"""The evaluation image's programs on this machine, installed once into the cache folder, on request.

The environment has the packages of the image (k8s/evaluation/requirements.txt, by hash): lm-evaluation-harness, and
what measuring imports. llmops itself comes from the checkout.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llmops.evaluation.formats.tool import OFFLINE
from llmops_sandbox.cluster.binaries import cache_folder
from llmops_sandbox.programs.venvs import Venv, read_requirements

PROJECT = Path(__file__).parents[3]
REQUIREMENTS = PROJECT / "k8s" / "evaluation" / "requirements.txt"
WITHOUT_WHEELS = "rouge-score,sqlitedict,word2number"
BUILDS = "setuptools"
MARK = "made"


@dataclass(frozen=True)
class Tools:
    """An environment with the evaluation image's programs."""

    venv: Venv

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.venv.python

    @property
    def program(self) -> tuple[str, ...]:
        """The program of an image in the sandbox's image store: what measures, with the tools beside it."""
        return (str(self.python), "-m", "llmops.evaluation.remote")

    @property
    def environment(self) -> Mapping[str, str]:
        """What the image sets."""
        return {**OFFLINE, "PYTHONPATH": str(PROJECT), "PYTHONDONTWRITEBYTECODE": "1"}


def find() -> Tools | None:
    """The environment, if `install` has made it from today's requirements."""
    venv = _venv()
    return Tools(venv) if venv.has(MARK, read_requirements(REQUIREMENTS)) else None


def install() -> Tools:
    """Install the environment, unless `find` has it: about a minute and 600 MB.

    Raises:
        ClusterCannot: A step failed; the message has the end of its output.
    """
    venv = _venv()
    with venv.locked():
        if find() is None:
            requirements = read_requirements(REQUIREMENTS)
            venv.create()
            # Packages without wheels are built by the pinned setuptools, and by no other.
            build = venv.folder / "build.txt"
            build.write_text(_pin(requirements.decode(), BUILDS))
            venv.install_pinned("--requirement", str(build))
            venv.install_pinned(
                "--no-binary", WITHOUT_WHEELS, "--no-build-isolation", "--requirement", str(REQUIREMENTS)
            )
            venv.mark(MARK, requirements)
    return Tools(venv)


def _venv() -> Venv:
    return Venv(cache_folder() / "evaluation", "the evaluation tools", "600 MB of disk and PyPI")


def _pin(requirements: str, name: str) -> str:
    """The lines of one requirement: its version and its hashes."""
    lines = requirements.splitlines(keepends=True)
    start = next(index for index, line in enumerate(lines) if line.startswith(f"{name}=="))
    end = next(index for index in range(start, len(lines)) if not lines[index].rstrip().endswith("\\"))
    return "".join(lines[start : end + 1])


def main() -> None:
    """`python -m llmops_sandbox.programs.tools`: install, and print the folder."""
    sys.stdout.write(f"{install().venv.folder}\n")


if __name__ == "__main__":
    main()
