"""The program of the image `postgres` in the sandbox: Debian's PostgreSQL, started as the image starts it.

It reads the image's variables POSTGRES_USER, POSTGRES_PASSWORD, POSTGRES_DB and PGDATA. It uses installed programs; if
there are none, it unpacks Debian's packages into the cache, without root.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from llmops.errors import BadInput, ClusterCannot
from llmops_sandbox.cluster.binaries import cache_folder
from llmops_sandbox.programs import debian

PROGRAM = ("{python}", "-m", "llmops_sandbox.programs.postgresql", "--host", "{pod_ip}")
PACKAGE = "postgresql"
VERSIONED = "usr/lib/postgresql"
# PostgreSQL refuses to run as root; every machine has the user nobody.
USER = 65534
PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, PR_SET_KEEPCAPS = 47, 2, 8
CAP_DAC_OVERRIDE, CAPABILITY_VERSION_3 = 1, 0x20080522
PR_SET_PDEATHSIG = 1


def find_or_unpack() -> Path:
    """The folder with PostgreSQL's server programs.

    Raises:
        ClusterCannot: PackageUnavailable.
    """
    if (program := shutil.which("postgres")) and shutil.which("initdb"):
        return Path(program).resolve().parent
    for root in (Path("/"), cache_folder() / PACKAGE):
        if versions := sorted((root / VERSIONED).glob("*/bin/postgres"), key=_version):
            return versions[-1].parent
    return next((debian.unpacked(PACKAGE) / VERSIONED).glob("*/bin"))


def environment(programs: Path) -> dict[str, str]:
    """What the image sets: the paths of the programs and of the libraries in their packages."""
    variables = {"PATH": f"{programs}:{os.environ.get('PATH', os.defpath)}"}
    root = programs.parents[4] if len(programs.parents) > 4 else Path("/")
    if root != Path("/") and (libraries := [str(path) for path in root.glob("usr/lib/*-linux-gnu*")]):
        variables["LD_LIBRARY_PATH"] = ":".join(libraries)
    return variables


def serve(host: str, settings: Mapping[str, str]) -> int:
    """Make the database, unless it exists, and run the server until SIGTERM; return its exit code.

    Args:
        host: Address to listen on.
        settings: The image's variables.

    Raises:
        BadInput: VariablesMissing.
        ClusterCannot: `initdb` or `postgres` failed.
    """
    if missing := [name for name in ("PGDATA", "POSTGRES_PASSWORD") if not settings.get(name)]:
        raise BadInput(
            f"the image postgres needs {' and '.join(missing)} in its environment",
            code="VariablesMissing",
            about="image postgres",
        )
    data = Path(settings["PGDATA"])
    sockets = Path(tempfile.mkdtemp(prefix="llmops-pg-"))
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.geteuid() == 0:
        for path in (data, *data.rglob("*"), sockets):
            os.chown(path, USER, USER, follow_symlinks=False)
        _become_user()
    cluster = data / "cluster"
    if not cluster.exists():
        # Made under another name: a database whose making was killed half-way is made anew.
        unfinished = data / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        _make_database(unfinished, sockets, settings)
        unfinished.rename(cluster)
    # A killed server leaves its lock, with a pid that another process may have by now. The volume has one pod.
    (cluster / "postmaster.pid").unlink(missing_ok=True)
    with subprocess.Popen(
        ["postgres", "-D", str(cluster), "-c", f"listen_addresses={host}", "-c", f"unix_socket_directories={sockets}",
         # The sandbox survives the death of a process, not of the machine.
         "-c", "fsync=off"],
    ) as server:  # fmt: skip
        # As the image's STOPSIGNAL: without it the server would wait for its clients to leave.
        signal.signal(signal.SIGTERM, lambda number, frame: server.send_signal(signal.SIGINT))
        return server.wait()


def _make_database(data: Path, sockets: Path, settings: Mapping[str, str]) -> None:
    user = settings.get("POSTGRES_USER", "postgres")
    with tempfile.NamedTemporaryFile("w", dir=sockets) as password:
        password.write(settings["POSTGRES_PASSWORD"])
        password.flush()
        _run(
            ["initdb", "--pgdata", str(data), "--username", user, "--pwfile", password.name, "--encoding=UTF8",
             "--no-locale", "--auth-host=scram-sha-256", "--auth-local=trust", "--no-sync", "--no-instructions"]
        )  # fmt: skip
    with (data / "pg_hba.conf").open("a") as rules:
        rules.write("host all all all scram-sha-256\n")
    database = settings.get("POSTGRES_DB", user)
    if database != "postgres":
        statement = f'CREATE DATABASE "{database}"'
        _run(["postgres", "--single", "-D", str(data), "postgres"], statement + "\n")


def _run(command: list[str], given: str = "") -> None:
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterCannot(
            f"{command[0]} failed with exit code {done.returncode}: {done.stderr.strip()}",
            code="ProgramFailed",
            about=command[0],
        )


def _become_user() -> None:
    """Stop being root, but keep access to the sandbox's folders, whose parent may belong to root alone."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(USER, USER, USER)
    os.setresuid(USER, USER, USER)
    kept = 1 << CAP_DAC_OVERRIDE
    header = struct.pack("Ii", CAPABILITY_VERSION_3, 0)
    sets = struct.pack("6I", kept, kept, kept, 0, 0, 0)
    if libc.capset(header, sets) or libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE, 0, 0):
        raise ClusterCannot(
            f"the kernel does not let PostgreSQL keep CAP_DAC_OVERRIDE: {os.strerror(ctypes.get_errno())}",
            code="CapabilityRefused",
            about="CAP_DAC_OVERRIDE",
        )
    # The change of user cleared it; without it the server would outlive its container.
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _version(path: Path) -> int:
    return int(path.parents[1].name)


def main() -> None:
    """Run the server."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--host", required=True)
    sys.exit(serve(arguments.parse_args().host, os.environ))


if __name__ == "__main__":
    main()
