"""The timeline of a demo: what happens in the world, in Dagster and in the cluster."""

from __future__ import annotations

import threading
import time
from typing import Any, Literal

from rich.console import Console

from llmops.config.redaction import printable

Source = Literal["world", "dagster", "cluster", "alert", "seen"]
STYLES: dict[Source, str] = {"world": "bold", "dagster": "blue", "cluster": "cyan", "alert": "yellow", "seen": "green"}


class Timeline:
    """Entries in the order in which the demo saw them; it prints each at once.

    Sources: `world` is an act of the demo (a push, a commit, a flipped bit), `dagster` a run, `cluster` an Event or a
    record, `alert` a received alert, `seen` a state that the demo waited for.
    """

    def __init__(self, console: Console) -> None:
        self.entries: list[dict[str, Any]] = []
        self._console = console
        self._started = time.monotonic()
        self._lock = threading.Lock()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return round(time.monotonic() - self._started, 2)

    def add(self, source: Source, what: str, **details: Any) -> None:
        """Add an entry, and print it."""
        with self._lock:
            self.entries.append({"seconds": self.seconds, "source": source, "what": what, **details})
            self._console.print(
                f"{self.seconds:7.1f}s  {source:<8} {printable(what)}", style=STYLES[source], markup=False
            )
