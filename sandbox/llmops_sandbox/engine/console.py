"""Prints log lines and tracebacks in vLLM's form, so that the same patterns match them."""

from __future__ import annotations

import os
import sys
import time

PACKAGES = "/usr/local/lib/python3.12/dist-packages"


def log(message: str, process: str = "APIServer") -> None:
    """Print a log line in vLLM's form."""
    sys.stdout.write(f"({process} pid={os.getpid()}) INFO {_now()} [simulated] {message}\n")
    sys.stdout.flush()


def fail(message: str) -> None:
    """Print a line on stderr."""
    sys.stderr.write(message + "\n")
    sys.stderr.flush()


def traceback(kind: str, message: str, file: str, function: str, prefix: str = "") -> None:
    """Print a traceback of one frame.

    Args:
        kind: Dotted name of the exception.
        message: Its text.
        file: Where vLLM raises it, relative to its packages.
        function: The function that raises it.
        prefix: Prefix of every line.
    """
    frame = f'  File "{PACKAGES}/{file}", line 1, in {function}'
    lines = ("Traceback (most recent call last):", frame, *f"{kind}: {message}".splitlines())
    fail("\n".join(prefix + line for line in lines))


def engine_failed(kind: str, message: str) -> None:
    """Print the tracebacks of vLLM's two processes: the engine's, with the cause, then the API server's."""
    prefix = f"(EngineCore pid={os.getpid()}) ERROR {_now()} [core.py:1510] "
    fail(f"{prefix}EngineCore failed to start.")
    traceback(kind, message, "vllm/v1/engine/core.py", "run_engine_core", prefix)
    traceback(
        "RuntimeError",
        "Engine core initialization failed. See root cause above. Failed core proc(s): {}",
        "vllm/v1/engine/utils.py",
        "wait_for_engine_startup",
        f"(APIServer pid={os.getpid()}) ",
    )


def _now() -> str:
    return time.strftime("%m-%d %H:%M:%S")
