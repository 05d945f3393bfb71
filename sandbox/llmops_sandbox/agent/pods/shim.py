"""Supervisor of one container, in the roles of a container runtime's shim and a PID namespace's init.

Run as `python -I -S shim.py run|exec` with a JSON object on standard input: `argv`, `env`, `cwd`, `read_only` and
`writable` (host folders) and, for `run`, `folder`. It imports the standard library alone, and starts in milliseconds.

`run` starts the program in a new session, writes its output to `folder/log` (in CRI's format, with the time of each
line) and its end to `folder/exit.json`. When the program ends, it kills the program's descendants. It reports on
standard output, as one JSON line, that the program runs or why it did not start. It survives the agent; the program
does not survive it. If the agent dies before it has written the whole input, `run` starts nothing.

`exec` becomes the program of a probe or hook, which ends with the agent.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 36, 38
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446
# Access rights of linux/landlock.h: on a file, and on a folder's content.
WRITE_FILE, TRUNCATE, REFER = 1 << 1, 1 << 14, 1 << 13
CHANGE_FOLDER = sum(1 << bit for bit in range(4, 13))
LONGEST_LINE = 16 * 1024
libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Read the order, and carry it out."""
    try:
        order = json.loads(sys.stdin.buffer.read())
    except ValueError:
        sys.exit("the order is incomplete: the agent ended while it wrote it")
    if sys.argv[1] == "exec":
        os.setsid()
        become(order, os.getppid())
    supervise(order)


def become(order: dict[str, Any], parent: int) -> NoReturn:
    """Replace this process by the program, which is killed when `parent` ends."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    protect(order["read_only"], order["writable"])
    os.chdir(order["cwd"])
    os.execvpe(order["argv"][0], order["argv"], order["env"])  # noqa: S606 - no shell is the point


def supervise(order: dict[str, Any]) -> None:
    """Run the program to its end, and record the end."""
    folder = Path(order["folder"])
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    pipes = {name: os.pipe2(os.O_CLOEXEC) for name in ("stdout", "stderr")}
    failure_read, failure_write = os.pipe2(os.O_CLOEXEC)
    shim = os.getpid()
    pid = os.fork()
    if pid == 0:
        _child(order, shim, pipes["stdout"][1], pipes["stderr"][1], failure_write)
    os.close(failure_write)
    for _, write in pipes.values():
        os.close(write)
    with os.fdopen(failure_read) as failures:
        failure = failures.read()
    if failure:
        os.waitpid(pid, 0)
        write_json(folder / "exit.json", {"code": 128, "error": failure, "finished": time.time()})
        report({"error": failure})
        return
    write_json(folder / "process.json", {"pid": pid, "started": start_ticks(pid), "time": time.time()})
    report({"pid": pid})
    log = Log(folder / "log")
    status = _pump(pid, {name: read for name, (read, _) in pipes.items()}, wake_read, log)
    code = os.waitstatus_to_exitcode(status)
    write_json(
        folder / "exit.json",
        {
            "code": 128 - code if code < 0 else code,
            "signal": -code if code < 0 else 0,
            "finished": time.time(),
        },
    )


def _child(order: dict[str, Any], shim: int, out: int, err: int, failure: int) -> NoReturn:
    try:
        os.setsid()
        with open(os.devnull) as nothing:  # noqa: PTH123 - a descriptor is wanted
            os.dup2(nothing.fileno(), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        become(order, shim)
    except OSError as error:
        name = order["argv"][0]
        if isinstance(error, FileNotFoundError):
            why = f'exec: "{name}": ' + (
                "stat " + name + ": no such file or directory" if "/" in name else "executable file not found in $PATH"
            )
        else:
            # Go's words for it are in lower case.
            why = f'exec: "{name}": {str(error.strerror).lower()}'
        os.write(failure, why.encode())
    finally:
        os._exit(128)


def _pump(pid: int, sources: dict[str, int], wake: int, log: Log) -> int:
    """Copy the program's output to the log until the program and its descendants are dead; return its wait status."""
    status: int | None = None
    deadline = float("inf")
    with selectors.DefaultSelector() as selector:
        selector.register(wake, selectors.EVENT_READ, "")
        for name, source in sources.items():
            selector.register(source, selectors.EVENT_READ, name)
        # A process outside the tree may hold the pipe open; the container ends all the same.
        while (status is None or len(selector.get_map()) > 1) and time.monotonic() < deadline:
            for key, _ in selector.select(None if status is None else 0.05):
                if key.data == "":
                    with contextlib.suppress(BlockingIOError):
                        os.read(key.fd, 4096)
                    continue
                chunk = os.read(key.fd, 65536)
                log.write(key.data, chunk)
                if not chunk:
                    selector.unregister(key.fd)
            ended = reap()
            if pid in ended:
                status = ended[pid]
                deadline = time.monotonic() + 1
            if status is not None:
                kill_children()
    while kill_children():
        reap()
        time.sleep(0.005)
    assert status is not None
    return status


class Log:
    """A log file in CRI's format: time, stream, F(ull) or P(artial), text."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("ab", buffering=0)
        self.rest = {"stdout": b"", "stderr": b""}

    def write(self, stream: str, chunk: bytes) -> None:
        """Add output of the program; an empty chunk is the end of the stream."""
        now = time.time_ns()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9)) + f".{now % 10**9:09d}Z {stream} "
        full, partial = f"{stamp}F ".encode(), f"{stamp}P ".encode()
        *lines, rest = (self.rest[stream] + chunk).split(b"\n")
        entries = [full + line + b"\n" for line in lines]
        if rest and (not chunk or len(rest) >= LONGEST_LINE):
            entries.append(partial + rest + b"\n")
            rest = b""
        self.rest[stream] = rest
        if entries:
            self.file.write(b"".join(entries))


def reap() -> dict[int, int]:
    """Collect the ended children: pid to wait status."""
    statuses: dict[int, int] = {}
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            statuses[pid] = status
    return statuses


def kill_children() -> bool:
    """Send SIGKILL to every child; True if there were any. Orphans become children, so repeated calls reach all."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(child), signal.SIGKILL)
    return bool(children)


def protect(read_only: list[str], writable: list[str]) -> None:
    """Forbid this process and its descendants to write below `read_only`, by Landlock; no-op on old kernels.

    Landlock has rules that allow, none that deny. So this allows everything beside the path to each protected folder;
    files directly in a parent of a protected folder become read-only, too.
    """
    version = libc.syscall(LANDLOCK_CREATE, None, 0, 1)
    if not read_only or version < 1:
        return
    on_file = WRITE_FILE | (TRUNCATE if version >= 3 else 0)
    handled = on_file | CHANGE_FOLDER | (REFER if version >= 2 else 0)
    attribute = ctypes.c_uint64(handled)
    ruleset = _checked(libc.syscall(LANDLOCK_CREATE, ctypes.byref(attribute), 8, 0))
    for path in {*allowed_beside([os.path.realpath(path) for path in read_only]), *writable}:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        rights = handled if os.path.isdir(path) else on_file  # noqa: PTH112 - this runs before exec: kept light
        rule = rights.to_bytes(8, sys.byteorder) + fd.to_bytes(4, sys.byteorder)
        # Landlock takes no rules for files without a path (pipes, some of /proc), which need none.
        libc.syscall(LANDLOCK_ADD, ruleset, 1, rule, 0)
        os.close(fd)
    _checked(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _checked(libc.syscall(LANDLOCK_RESTRICT, ruleset, 0))
    os.close(ruleset)


def allowed_beside(paths: list[str]) -> set[str]:
    """The entries of all parents of `paths` that lead to none of `paths`; without links, which may lead anywhere."""
    beside: set[str] = set()
    parents = {str(parent) for path in paths for parent in Path(path).parents}
    for parent in parents:
        with contextlib.suppress(OSError), os.scandir(parent) as entries:
            beside.update(entry.path for entry in entries if not entry.is_symlink())
    return {path for path in beside if path not in parents and path not in paths}


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def start_ticks(pid: int) -> int:
    """Clock ticks since boot at which the process started."""
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19])


def write_json(path: Path, content: object) -> None:
    """Replace a file as a whole."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content))
    temporary.replace(path)


def report(content: object) -> None:
    """Write to the agent, if it lives, and close standard output."""
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(content).encode() + b"\n")
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)


if __name__ == "__main__":
    main()
