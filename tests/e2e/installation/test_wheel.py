"""The wheel and the images have llmops without the sandbox, and it works without it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DOCKERFILES = sorted((ROOT / "k8s").glob("*/Dockerfile"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = ["pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT]
    subprocess.run([sys.executable, "-m", *command], check=True, cwd=folder)
    (built,) = folder.glob("llmops-*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with the wheel and its dependencies, and without this checkout's packages."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    (packages,) = folder.glob("lib/python*/site-packages")
    ours = next(Path(path) for path in sys.path if path.endswith("site-packages"))
    # Python searches the paths of a .pth file for modules, and ignores the .pth files of editable installs there.
    (packages / "dependencies.pth").write_text(f"{ours}\n")
    target = ["--quiet", "--no-deps", "--no-index", "--target", packages, wheel]
    subprocess.run([sys.executable, "-m", "pip", "install", *target], check=True)
    return folder / "bin" / "python"


def run(python: Path, folder: Path, *arguments: str) -> str:
    done = subprocess.run([python, "-I", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_has_llmops_alone(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"llmops"}
    assert not [name for name in names if "sandbox" in name]


def test_it_runs_without_a_checkout(python: Path, tmp_path: Path) -> None:
    for name in ("models", "evals"):
        shutil.copytree(ROOT / name, tmp_path / name)
    where = run(python, tmp_path, "-c", "import llmops; print(llmops.__file__)")
    assert Path(where.strip()).is_relative_to(python.parents[1])
    absent = "import importlib.util as u; print(u.find_spec('llmops_sandbox'), u.find_spec('demos'))"
    assert run(python, tmp_path, "-c", absent).split() == ["None", "None"]
    loaded = "from llmops.definitions import defs; print(len(defs().resolve_all_asset_specs()))"
    assert int(run(python, tmp_path, "-c", loaded)) > 8
    assert "models and their suites are valid" in run(python, tmp_path, "-m", "llmops.cli", "check")


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)
def test_no_image_copies_anything_else(dockerfile: Path) -> None:
    sources = re.findall(r"^COPY (?!--from)(\S+)", dockerfile.read_text(), re.MULTILINE)
    assert {source.split("/")[0] for source in sources} <= {"llmops", "models", "evals", "k8s"}
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert all(line.split("/")[0] in {"llmops", "models", "evals", "k8s"} for line in allowed)
