"""The images of a node: the repository's Dockerfiles, built by buildah on a base of Debian's packages.

Everything comes from Debian's packages and PyPI. Run by `build` as a process of its own, below
`llmops_sandbox.containers.packages`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from llmops import __version__
from llmops.errors import ClusterCannot
from llmops_sandbox.cluster.binaries import cache_folder
from llmops_sandbox.containers import configs
from llmops_sandbox.programs import debian
from llmops_sandbox.seeding import ENGINE_IMAGE, ENGINE_TAG

# Debian 13 has the Python that the images' `python:3.12-slim` is nearest to.
SUITE, MIRROR = "trixie", "http://deb.debian.org/debian"
BASE = f"localhost/python:{SUITE}"
PUSH_PORT = 20050
ENGINE_DOCKERFILE = Path(__file__).parent / "engine.Dockerfile"


def dockerfiles(project: Path) -> Mapping[str, tuple[Path, str]]:
    """Dockerfile and base of each image, in the order in which they are built."""
    own = {
        f"ghcr.io/llmops-dev/{name}:{__version__}": (project / "k8s" / name / "Dockerfile", BASE)
        for name in ("worker", "orchestrator", "evaluation")
    }
    # The simulated engine needs what the orchestrator has; a container of vLLM has another 20 GB.
    engine = {
        f"docker.io/{ENGINE_IMAGE}:{ENGINE_TAG}": (ENGINE_DOCKERFILE, next(n for n in own if "orchestrator" in n))
    }
    return {**own, **engine}


def content() -> Path:
    """The folder of the registry with the images."""
    return cache_folder() / "containers" / "registry"


def build(project: Path) -> None:
    """Build the images, and push them to the registry in `content`.

    Raises:
        ClusterCannot: ProgramFailed or NotReady.
    """
    folder = cache_folder() / "containers"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "storage.conf").write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{folder / "store"}"\nrunroot = "{folder / "store-run"}"\n'
    )
    settings = debian.unpacked("buildah") / "etc/containers"
    os.environ["CONTAINERS_STORAGE_CONF"] = str(folder / "storage.conf")
    os.environ["CONTAINERS_REGISTRIES_CONF"] = str(settings / "registries.conf")
    os.environ["BUILDAH_ISOLATION"] = "chroot"
    policy = f"--signature-policy={settings / 'policy.json'}"
    if not _buildah("images", "--quiet", "--filter", f"reference={BASE}"):
        _timed(BASE, lambda: _make_base(policy))
    with _registry(folder) as address:
        pause = ":".join(configs.PAUSE)
        _buildah(
            "bud", policy, "--quiet", "--layers", "--tag", pause, "--file", str(_pause(folder)), str(folder / "pause")
        )
        _push(policy, pause, address)
        for name, (dockerfile, base) in dockerfiles(project).items():
            # The checkout's .dockerignore leaves the sandbox out, which the engine's image is made of.
            context = project / "sandbox" if dockerfile == ENGINE_DOCKERFILE else project
            _timed(name, partial(_build, policy, name, dockerfile, base, context, folder))
            _push(policy, name, address)


def _timed(what: str, work: Callable[[], None]) -> None:
    began = time.monotonic()
    work()
    print(f"{what}: {time.monotonic() - began:.0f} s", flush=True)  # noqa: T201 - a command's output


def _build(policy: str, name: str, dockerfile: Path, base: str, context: Path, folder: Path) -> None:
    """Build one image. Only while it is built, pip trusts whom this machine trusts."""
    pip = folder / "pip.conf"
    certificates = "/etc/ssl/certs/ca-certificates.crt"
    pip.write_text(f"[global]\ncert = {certificates}\ntimeout = 180\ndisable-pip-version-check = true\n")
    _buildah(
        "bud", policy, "--quiet", "--layers", "--pull-never", "--build-arg", f"BASE={base}",
        "--volume", f"{certificates}:{certificates}:ro", "--volume", f"{pip}:/etc/pip.conf:ro",
        "--file", str(dockerfile), "--tag", name, str(context),
    )  # fmt: skip


def _push(policy: str, name: str, address: str) -> None:
    path = name.partition("/")[2]
    # Both ends are on this machine: to compress would cost more than it saves.
    _buildah(
        "push", policy, "--quiet", "--tls-verify=false", "--disable-compression", name, f"docker://{address}/{path}"
    )


def _make_base(policy: str) -> None:
    """An image with Debian, Python and pip alone, as `python:3.12-slim` is."""
    container = _buildah("from", policy, "scratch")
    try:
        root = Path(_buildah("mount", container))
        _run([
            "debootstrap", "--variant=minbase", "--include=python3,python3-pip-whl,ca-certificates", SUITE, str(root),
            MIRROR,
        ])  # fmt: skip
        (library,) = (root / "usr/lib").glob("python3.*")
        (library / "EXTERNALLY-MANAGED").unlink(missing_ok=True)
        local = root / "usr/local"
        (local / "bin/python").symlink_to("/usr/bin/python3")
        (wheel,) = (root / "usr/share/python-wheels").glob("pip-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(local / "lib" / library.name / "dist-packages")
        pip = local / "bin/pip"
        pip.write_text(
            "#!/usr/local/bin/python\nimport sys\nfrom pip._internal.cli.main import main\nsys.exit(main())\n"
        )
        pip.chmod(0o755)
        for rubbish in ("var/cache/apt/archives", "var/lib/apt/lists"):
            shutil.rmtree(root / rubbish)
        _buildah(
            "config", "--env", "PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", "--env",
            "LANG=C.UTF-8", "--cmd", "python3", container,
        )  # fmt: skip
        _buildah("commit", policy, "--quiet", container, BASE)
    finally:
        _buildah("rm", container)


def _pause(folder: Path) -> Path:
    """The Dockerfile of the container that holds a pod's namespaces."""
    dockerfile = folder / "pause" / "Dockerfile"
    dockerfile.parent.mkdir(exist_ok=True)
    dockerfile.write_text(f'FROM {BASE}\nENTRYPOINT ["sleep", "infinity"]\n')
    return dockerfile


@contextmanager
def _registry(folder: Path) -> Generator[str]:
    """Serve `content` on loopback; gives the address."""
    address = f"127.0.0.1:{PUSH_PORT}"
    file = folder / "registry.yaml"
    file.write_text(configs.registry(content(), address))
    with subprocess.Popen(["docker-registry", "serve", str(file)], stderr=subprocess.DEVNULL) as process:
        try:
            _await(f"http://{address}/v2/", process)
            yield address
        finally:
            process.terminate()


def _await(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - our own http URL
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise ClusterCannot(f"docker-registry does not answer on {url}", code="NotReady", about=url)


def _buildah(*arguments: str) -> str:
    return _run(["buildah", *arguments])


def _run(command: list[str]) -> str:
    """The output, without white space around it. It goes to a file first: a build that hangs can be looked at."""
    log = cache_folder() / "containers" / "build.log"
    with log.open("w") as errors:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, text=True, check=False)
    if done.returncode:
        tail = "\n".join([*done.stdout.splitlines(), *log.read_text(errors="replace").splitlines()][-25:])
        raise ClusterCannot(
            f"`{' '.join(command[:2])}` failed with exit code {done.returncode}; its output ends:\n{tail}",
            code="ProgramFailed",
            about=command[0],
        )
    return done.stdout.strip()


def main() -> None:
    """Build the images of a checkout."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("project", type=Path)
    build(arguments.parse_args().project)


if __name__ == "__main__":
    main()
