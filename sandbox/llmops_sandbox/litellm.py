"""LiteLLM's proxy on this machine, as its image has it: installed once into the cache folder, on request."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llmops.config.settings.router import RouterSettings
from llmops.errors import ClusterCannot
from llmops_sandbox.binaries import cache_folder
from llmops_sandbox.images import ImageStore, Reference

PROJECT = Path(__file__).parents[2]
REQUIREMENTS = PROJECT / "k8s" / "router" / "requirements.txt"


@dataclass(frozen=True)
class LiteLlm:
    """An environment with LiteLLM's proxy."""

    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "venv" / "bin" / "python"

    @property
    def program(self) -> tuple[str, ...]:
        """The program of an image in the sandbox's image store."""
        return (str(self.python.with_name("litellm")),)

    @property
    def environment(self) -> Mapping[str, str]:
        """What the image sets."""
        return {"LITELLM_NON_ROOT": "true"}

    def add_to(self, images: ImageStore) -> None:
        """Have it stand for the image that the settings name by default."""
        image = Reference.parse(RouterSettings().image)
        images.add(image.repository, image.tag or "", self.program, self.environment)


def find() -> LiteLlm | None:
    """What `install` made, if it did, and made it of the requirements of now."""
    made = _place()
    mark = made.folder / "made"
    return made if mark.is_file() and mark.read_bytes() == _wanted() else None


def install() -> LiteLlm:
    """Install the environment, as far as that has not been done: about a minute and 650 MB.

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
            pip = (str(made.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps")
            pinned = ("--require-hashes", "--only-binary", ":all:", "--requirement", str(REQUIREMENTS))
            # Bytecode is made here, once: to compile it takes half of each start otherwise.
            _run(made, *pip, "--compile", *pinned)
            (made.folder / "made").write_bytes(_wanted())
    return made


def _place() -> LiteLlm:
    return LiteLlm(cache_folder() / "litellm")


def _wanted() -> bytes:
    try:
        return REQUIREMENTS.read_bytes()
    except OSError as error:
        raise ClusterCannot(
            f"{REQUIREMENTS} cannot be read: {error}", remedy="Run it from a checkout of llmops."
        ) from error


def _run(made: LiteLlm, *command: str) -> None:
    log = made.folder / "install.log"
    dropped = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
    environment = {key: value for key, value in os.environ.items() if key not in dropped}
    with log.open("ab") as output:
        code = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=environment, check=False).returncode
    if code:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise ClusterCannot(
            f"LiteLLM could not be installed: exit code {code}:\n{tail}",
            remedy=f"It needs 650 MB of disk and PyPI; all output is in {log}.",
        )


def main() -> None:
    """`python -m llmops_sandbox.litellm`: install, and say where."""
    sys.stdout.write(f"{install().folder}\n")


if __name__ == "__main__":
    main()
