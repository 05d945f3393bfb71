"""What happened in the course of a day, as it is seen from outside: in the world, in Dagster, in the cluster."""

from __future__ import annotations

import threading
import time
from typing import Any, Literal

from rich.console import Console

from llmops.config.redaction import printable

Source = Literal["world", "dagster", "cluster", "alert", "seen"]
STYLES: dict[Source, str] = {"world": "bold", "dagster": "blue", "cluster": "cyan", "alert": "yellow", "seen": "green"}


class Timeline:
    """Entries in the order in which they were seen, each told on the terminal at once.

    Sources: `world` is what the demo does (a push, a commit, a flipped bit), `dagster` a run, `cluster` an Event or a
    record, `alert` what the receiver got, `seen` what the demo waited for and found.
    """

    def __init__(self, console: Console) -> None:
        self.entries: list[dict[str, Any]] = []
        self._console = console
        self._started = time.monotonic()
        self._lock = threading.Lock()

    @property
    def seconds(self) -> float:
        """Since the day began."""
        return round(time.monotonic() - self._started, 2)

    def add(self, source: Source, what: str, **details: Any) -> None:
        """Tell of one thing that happened."""
        with self._lock:
            self.entries.append({"seconds": self.seconds, "source": source, "what": what, **details})
            self._console.print(
                f"{self.seconds:7.1f}s  {source:<8} {printable(what)}", style=STYLES[source], markup=False
            )
