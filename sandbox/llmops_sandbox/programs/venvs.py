"""Python environments of programs that the sandbox runs for real: made once, in the cache folder."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from llmops.errors import ClusterCannot

# The first would put the checkout's packages before the environment's; the second would keep pip from compiling.
DROPPED_VARIABLES = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")


@dataclass(frozen=True)
class Venv:
    """A virtual environment at `FOLDER/venv`, beside its lock, its log and the marks of finished steps.

    Args:
        folder: Where all of it is kept.
        program: What it is for, such as `LiteLLM`.
        needs: What an installation needs, such as `650 MB of disk and PyPI`.
    """

    folder: Path
    program: str
    needs: str

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "venv" / "bin" / "python"

    def has(self, mark: str, content: bytes) -> bool:
        """Whether a step finished, with this content as its input."""
        path = self.folder / mark
        return path.is_file() and path.read_bytes() == content

    def mark(self, mark: str, content: bytes) -> None:
        """Note that a step finished."""
        (self.folder / mark).write_bytes(content)

    @contextmanager
    def locked(self) -> Generator[None]:
        """Let one process install; others wait for it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def create(self) -> None:
        """Make the environment anew, with pip alone in it; raises as `run` does."""
        shutil.rmtree(self.folder / "venv", ignore_errors=True)
        self.run("environment", sys.executable, "-m", "venv", str(self.folder / "venv"))

    def install_pinned(self, *arguments: str) -> None:
        """Install wheels by hash and nothing else, with further arguments of `pip install`; raises as `run` does."""
        pip = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps")
        wheels = ("--require-hashes", "--only-binary", ":all:")
        self.run("packages", str(self.python), *pip, *wheels, *arguments)

    def run(self, step: str, *command: str) -> None:
        """Run one step of the installation; its output goes to `FOLDER/install.log`.

        Raises:
            ClusterCannot: InstallationFailed, with the end of the log.
        """
        log = self.folder / "install.log"
        environment = {key: value for key, value in os.environ.items() if key not in DROPPED_VARIABLES}
        with log.open("ab") as output:
            done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=environment, check=False)
        if done.returncode:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise ClusterCannot(
                f"{self.program} could not be installed: {step} ended with exit code {done.returncode}:\n{tail}",
                code="InstallationFailed",
                about=self.program,
                remedy=f"It needs {self.needs}; all output is in {log}.",
            )


def read_requirements(path: Path) -> bytes:
    """The pinned requirements in a checkout of llmops.

    Raises:
        ClusterCannot: CheckoutMissing.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ClusterCannot(
            f"{path} cannot be read: {error}",
            code="CheckoutMissing",
            about=str(path),
            remedy="Run it from a checkout of llmops.",
        ) from error
