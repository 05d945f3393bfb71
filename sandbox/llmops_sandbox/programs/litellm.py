"""LiteLLM's proxy on this machine, with the packages of its image: installed once into the cache folder, on request."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llmops.config.settings.router import RouterSettings
from llmops_sandbox.cluster.binaries import cache_folder
from llmops_sandbox.programs.venvs import Venv, read_requirements
from llmops_sandbox.standins.images import ImageStore, Reference

PROJECT = Path(__file__).parents[3]
REQUIREMENTS = PROJECT / "k8s" / "router" / "requirements.txt"
MARK = "made"


@dataclass(frozen=True)
class LiteLlm:
    """An environment with LiteLLM's proxy."""

    venv: Venv

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.venv.python

    @property
    def program(self) -> tuple[str, ...]:
        """The program of an image in the sandbox's image store."""
        return (str(self.python.with_name("litellm")),)

    @property
    def environment(self) -> Mapping[str, str]:
        """What the image sets."""
        return {"LITELLM_NON_ROOT": "true"}

    def add_to(self, images: ImageStore) -> None:
        """Add it as the image that the settings name by default."""
        image = Reference.parse(RouterSettings().image)
        images.add(image.repository, image.tag or "", self.program, self.environment)


def find() -> LiteLlm | None:
    """The environment, if `install` has made it from today's requirements."""
    venv = _venv()
    return LiteLlm(venv) if venv.has(MARK, read_requirements(REQUIREMENTS)) else None


def install() -> LiteLlm:
    """Install the environment, unless `find` has it: about a minute and 650 MB.

    Raises:
        ClusterCannot: A step failed; the message has the end of its output.
    """
    venv = _venv()
    with venv.locked():
        if find() is None:
            venv.create()
            # Bytecode is made here, once: compiling takes half of each start otherwise.
            venv.install_pinned("--compile", "--requirement", str(REQUIREMENTS))
            venv.mark(MARK, read_requirements(REQUIREMENTS))
    return LiteLlm(venv)


def _venv() -> Venv:
    return Venv(cache_folder() / "litellm", "LiteLLM", "650 MB of disk and PyPI")


def main() -> None:
    """`python -m llmops_sandbox.programs.litellm`: install, and print the folder."""
    sys.stdout.write(f"{install().venv.folder}\n")


if __name__ == "__main__":
    main()
