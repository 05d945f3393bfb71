"""Output of a Job: JSON lines on stdout, the last of them the result, which is also the termination log.

Exit codes, on which a Job's podFailurePolicy acts:

| code | meaning | retry |
|---|---|---|
| 0 | done | |
| 1 | a bug of the worker, with a traceback on stderr | no |
| 2 | usage: arguments or the release file are wrong | no |
| 3 | the release is bad: wrong, missing, extra or unsafe files | no |
| 4 | temporary: hub, network, I/O, another writer | yes |
| 5 | a person has to act: space or rights on the volume, access to the repository, no manifest yet | no |
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Kind = Literal[
    "ok",
    "crash",
    "usage",
    "mismatch",
    "file_missing",
    "revision_missing",
    "rate_limited",
    "hub_error",
    "io_error",
    "busy",
    "no_space",
    "volume_refuses",
    "gated",
    "unauthorized",
    "repo_missing",
    "no_manifest",
]
ProblemKind = Literal["missing", "extra", "truncated", "oversized", "altered", "unsafe"]

EXIT_CODES: dict[Kind, int] = {
    "ok": 0,
    "crash": 1,
    "usage": 2,
    "mismatch": 3,
    "file_missing": 3,
    "revision_missing": 3,
    "rate_limited": 4,
    "hub_error": 4,
    "io_error": 4,
    "busy": 4,
    "no_space": 5,
    "volume_refuses": 5,
    "gated": 5,
    "unauthorized": 5,
    "repo_missing": 5,
    "no_manifest": 5,
}
TERMINATION_LIMIT = 4096
MESSAGE_LIMIT = 1200


@dataclass(frozen=True)
class Problem:
    """One wrong file. `expected` and `found` are sizes in bytes, digests or words, depending on `kind`."""

    path: str
    kind: ProblemKind
    expected: str = ""
    found: str = ""


class WorkerError(Exception):
    """Ends a command.

    Args:
        kind: The reason; it decides the exit code.
        message: What failed, on which object, and why.
        remedy: What to do next.
        problems: The wrong files, if any.
    """

    def __init__(self, kind: Kind, message: str, *, remedy: str = "", problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.kind: Kind = kind
        self.message = message
        self.remedy = remedy
        self.problems = tuple(problems)


@dataclass(frozen=True)
class Result:
    """Result of a command. `details` are figures, with units in their names."""

    command: str
    kind: Kind
    message: str
    remedy: str = ""
    problems: tuple[Problem, ...] = ()
    details: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def exit_code(self) -> int:
        """Exit code of the process."""
        return EXIT_CODES[self.kind]

    def as_event(self) -> dict[str, Any]:
        """The result as an event, the last line on stdout."""
        return {
            "event": "result",
            "command": self.command,
            "ok": self.kind == "ok",
            "kind": self.kind,
            "exit_code": self.exit_code,
            "message": self.message,
            "remedy": self.remedy,
            **self.details,
            "problems": [asdict(problem) for problem in self.problems],
        }


def fit(event: dict[str, Any], limit: int = TERMINATION_LIMIT) -> bytes:
    """The event as JSON of at most `limit` bytes: drops the last problems, and counts them in `left_out`."""
    event = dict(event)
    encoded = _encode(event)
    if len(encoded) <= limit:
        return encoded
    for name in ("message", "remedy"):
        event[name] = _shortened(str(event[name]), MESSAGE_LIMIT)
    problems = list(event["problems"])
    # The largest number of problems that fits, by bisection: encoding is linear in their number.
    low, high = 0, len(problems)
    while low < high:
        middle = (low + high + 1) // 2
        if len(_encode({**event, "problems": problems[:middle], "left_out": len(problems) - middle})) <= limit:
            low = middle
        else:
            high = middle - 1
    return _encode({**event, "problems": problems[:low], "left_out": len(problems) - low})


def _encode(event: dict[str, Any]) -> bytes:
    return json.dumps(event, separators=(",", ":")).encode()


def _shortened(text: str, limit: int) -> str:
    encoded = text.encode(errors="replace")
    return text if len(encoded) <= limit else encoded[: limit - 3].decode(errors="ignore") + "..."


def emit(event: str, **fields: Any) -> None:
    """Print one JSON line on stdout, and flush it."""
    sys.stdout.write(_encode({"event": event, **fields}).decode() + "\n")
    sys.stdout.flush()


def finish(result: Result, termination_log: Path | None) -> int:
    """Print the result as the last line, write it to the termination log, and return the exit code."""
    event = result.as_event()
    sys.stdout.write(_encode(event).decode() + "\n")
    sys.stdout.flush()
    if termination_log is not None:
        termination_log.write_bytes(fit(event))
    return result.exit_code


class Progress:
    """Counts bytes from any thread and prints a line at most once a second.

    Args:
        total: Bytes of the whole work.
        done: Bytes present at the start; they do not count as speed.
    """

    def __init__(self, total: int, *, done: int = 0) -> None:
        self._total = total
        self._start = done
        self._bytes = done
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._print, name="progress", daemon=True)

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def add(self, count: int) -> None:
        """Count bytes done; negative if bytes are lost."""
        with self._lock:
            self._bytes += count

    def figures(self) -> dict[str, Any]:
        """Bytes done, seconds since the start, and MB/s since the start."""
        seconds = max(time.monotonic() - self._began, 1e-6)
        done = self._bytes
        return {
            "bytes": done,
            "total": self._total,
            "seconds": round(seconds, 3),
            "mb_per_s": round((done - self._start) / seconds / 1e6, 1),
        }

    def _print(self) -> None:
        while not self._ended.wait(1.0):
            emit("progress", **self.figures())


class Pace:
    """Limits the bytes per second of all threads together, so that serving pods keep their share of the volume.

    Args:
        mb_per_s: The limit in MB/s; None means no limit.
    """

    def __init__(self, mb_per_s: float | None) -> None:
        self._rate = mb_per_s * 1e6 if mb_per_s else None
        self._lock = threading.Lock()
        self._free_at = time.monotonic()

    def take(self, count: int) -> None:
        """Wait until `count` more bytes are within the limit."""
        if self._rate is None:
            return
        with self._lock:
            self._free_at = max(self._free_at, time.monotonic()) + count / self._rate
            wait = self._free_at - time.monotonic()
        if wait > 0:
            time.sleep(wait)
