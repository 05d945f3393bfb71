"""Runs `llmops` where it reaches only the API server, the hub and the registry of the sandbox.

It is like a laptop outside a remote cluster. The process has its own network namespace, and reaches the three through
sockets in a folder. `python -m tests.e2e.remote.apart FOLDER PORTS ARGUMENT...` is the inner side.
"""

from __future__ import annotations

import fcntl
import socket
import socketserver
import struct
import sys
import threading
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

LOOPBACK_UP = (0x8914, struct.pack("16sH14x", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS, IFF_UP and IFF_RUNNING


def command(folder: Path, ports: Sequence[int], arguments: Sequence[str]) -> list[str]:
    """Command of the inner side in its own network namespace; `passage` serves `folder`."""
    listed = ",".join(map(str, ports))
    apart = ["unshare", "--map-root-user", "--net", sys.executable, "-m", "tests.e2e.remote.apart"]
    return [*apart, str(folder), listed, *arguments]


@contextmanager
def passage(folder: Path, ports: Sequence[int]) -> Generator[None]:
    """The outer side: forward connections to a port's socket in the folder to that port of this machine."""
    with ExitStack() as stack:
        for port in ports:
            _serve(stack, _UnixServer(str(folder / str(port)), _to(socket.AF_INET, ("127.0.0.1", port))))
        yield


class _TcpServer(socketserver.ThreadingTCPServer):
    daemon_threads = True


class _UnixServer(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


def _serve(stack: ExitStack, server: socketserver.BaseServer) -> None:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stack.callback(server.server_close)
    stack.callback(server.shutdown)


def _to(family: socket.AddressFamily, address: str | tuple[str, int]) -> type[socketserver.BaseRequestHandler]:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.socket(family) as other:
                other.connect(address)
                back = threading.Thread(target=_pump, args=(other, self.request), daemon=True)
                back.start()
                _pump(self.request, other)
                back.join()

    return Handler


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def main() -> None:
    """The inner side."""
    folder, listed, *arguments = sys.argv[1:]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, *LOOPBACK_UP)
    with ExitStack() as stack:
        for port in map(int, listed.split(",")):
            _serve(stack, _TcpServer(("127.0.0.1", port), _to(socket.AF_UNIX, f"{folder}/{port}")))
        from llmops.cli import main as llmops

        llmops(arguments)


if __name__ == "__main__":
    main()
