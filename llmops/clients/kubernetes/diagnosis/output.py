"""The line of a program's output that says why it ended."""

from __future__ import annotations

import re

CHARACTERS = 500
"""A line is cut here: people read it in alerts and changelogs; the details keep the whole output."""

_PREFIX = re.compile(
    r"^\s*(?:\((?P<process>[^()]*pid=[^()]*)\)\s*)?(?:\[(?:rank|pid)[^\]]*\]:?\s*)?"
    r"(?:(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL)\b:?\s+(?:\d\d[-/]\d\d \d\d:\d\d:\d\d\S*\s+)?(?:\[[^\]]*\]\s?)?)?"
)
"""What vLLM (vllm/logger.py, vllm/utils/system_utils.py: decorate_logs) and uvicorn write before a line."""
_ERROR = re.compile(
    r"^(?:(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Exit|Failure)\b(?:: .*|$)"
    r"|Fatal Python error: .*|what\(\):\s+.*)"
)
"""How Python ends a traceback, and how C++ ends on an exception."""
_LATER_ERROR = re.compile(r"(?<![\w.])\.*+([\w.]*(?:Error|Exception): .*)")
_REFERENCE = re.compile(
    r"root cause|EngineDeadError|CancelledError|\bcancelled\b|KeyboardInterrupt|BrokenPipeError|SystemExit", re.I
)
"""Errors that follow from another one, of which they speak or by which they are ended."""
_CHATTER = ("DEBUG", "INFO", "WARNING")


def cause_in(output: str) -> str:
    """The line that says why a program ended; empty without output.

    That is the last error which no other error caused. vLLM's server, for one, ends on "See root cause above" and on
    lines about its shutdown, after the engine's error. Without any error it is the last line that is no mere
    information.
    """
    lines = [(match["level"] or "", line[match.end() :].strip()) for line in output.splitlines()
             if (match := _PREFIX.match(line)) and line.strip()]  # fmt: skip
    telling = [(level, line) for level, line in lines if level not in _CHATTER and line] or lines
    errors = [line for _, line in telling if _ERROR.match(line)]
    own = [line for line in errors if not _REFERENCE.search(line)]
    if own:
        return own[-1][:CHARACTERS]
    last = telling[-1][1] if telling else ""
    if _REFERENCE.search(last) or not last:
        within = [match[1] for _, line in telling if (match := _LATER_ERROR.search(line))]
        others = [line for line in within if not _REFERENCE.search(line)]
        last = others[-1] if others else last
    return last[:CHARACTERS]
