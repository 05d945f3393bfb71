"""What a simulated engine prints: log lines and tracebacks in vLLM's form, so that the same patterns find them."""

from __future__ import annotations

import os
import sys
import time

PACKAGES = "/usr/local/lib/python3.12/dist-packages"


def log(message: str, process: str = "APIServer") -> None:
    """One line as vLLM writes it."""
    sys.stdout.write(f"({process} pid={os.getpid()}) INFO {_now()} [simulated] {message}\n")
    sys.stdout.flush()


def fail(message: str) -> None:
    """A line on stderr."""
    sys.stderr.write(message + "\n")
    sys.stderr.flush()


def traceback(kind: str, message: str, file: str, function: str, prefix: str = "") -> None:
    """A traceback of one frame.

    Args:
        kind: Dotted name of the exception.
        message: Its text.
        file: Where vLLM raises it, relative to its packages.
        function: Which function does.
        prefix: Of every line.
    """
    frame = f'  File "{PACKAGES}/{file}", line 1, in {function}'
    lines = ("Traceback (most recent call last):", frame, *f"{kind}: {message}".splitlines())
    fail("\n".join(prefix + line for line in lines))


def engine_failed(kind: str, message: str) -> None:
    """Two tracebacks, as vLLM's two processes write them: the cause first, then what the API server saw."""
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
