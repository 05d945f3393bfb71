"""The run's log on a terminal: time, stage, line."""

from __future__ import annotations

import logging
import re
import sys
import time

import dagster as dg

from llmops.config.redaction import printable
from llmops.defs.compat import NOT_EXECUTED

PROGRESS = re.compile(r"(\d+)% of ")
BAR_LENGTH = 30
CLEAR = "\r\x1b[K"


class _Lines(logging.Handler):
    """Writes the lines of stages. Dagster's own events stay in its event log."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self._started = time.monotonic()
        self._bar = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line to stderr: stdout is for results."""
        meta = getattr(record, "dagster_meta", None) or {}
        if meta.get("dagster_event") is not None:
            return
        step = (meta.get("step_key") or "").split("[")[0]
        text = printable(str(meta.get("orig_message") or record.getMessage()))
        if NOT_EXECUTED.fullmatch(text):
            return
        mark = "" if record.levelno < logging.WARNING else f"{record.levelname}: "
        line = f"{time.monotonic() - self._started:7.1f}s  {step:<11} {mark}"
        share = PROGRESS.search(text) if sys.stderr.isatty() else None
        if share is None:
            sys.stderr.write(f"{CLEAR if self._bar else ''}{line}{text}\n")
        else:
            # The next line overwrites a bar.
            filled = BAR_LENGTH * int(share[1]) // 100
            sys.stderr.write(f"{CLEAR}{line}{'━' * filled}{'·' * (BAR_LENGTH - filled)} {text}")
        self._bar = share is not None
        sys.stderr.flush()


def _logger(_: dg.InitLoggerContext) -> logging.Logger:
    logger = logging.Logger("llmops", logging.DEBUG)
    # A new handler for each run: its clock starts with the run.
    logger.addHandler(_Lines())
    return logger


console_logger = dg.LoggerDefinition(_logger, description="Lines for a terminal, on stderr.")
