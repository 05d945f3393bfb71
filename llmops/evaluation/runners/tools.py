"""Runs an evaluation tool as a process: offline, with a time limit, and killed with its children at the end."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from llmops.errors import MeasurementFailed
from llmops.evaluation.endpoint import Endpoint, Progress
from llmops.evaluation.formats import TOOLS
from llmops.evaluation.formats.reading import Files
from llmops.evaluation.formats.tool import KEY_VARIABLE, OFFLINE, RESULTS_PLACE, Tool
from llmops.evaluation.runners.tool_result import ToolResult, take
from llmops.evaluation.suites import ToolSuite

LONGEST = 256 << 20
"""Most bytes of all results files together."""
TAIL_LINES = 15
TAIL_BYTES = 16 << 10
NO_KEY = "none"
"""The API key for an engine that asks for none: most tools insist on one."""
SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL|_PROXY$", re.IGNORECASE)
"""Variables that tools do not get: possible secrets, and proxies, which do not lead into the cluster."""


def run_tool(endpoint: Endpoint, suite: ToolSuite, progress: Progress | None = None) -> ToolResult:
    """Run a suite's tool against an engine, and read its results.

    Raises:
        MeasurementFailed: The tool is not installed, fails, takes too long, or writes no usable results.
    """
    tool = TOOLS[suite.tool]
    with tempfile.TemporaryDirectory(prefix="llmops-tool-") as folder:
        place = Path(folder)
        copy, results = place / "files", place / "results"
        for subfolder in (copy, results, place / "home"):
            subfolder.mkdir()
        for file in suite.files:
            target = copy / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(file.content, encoding="utf-8")
        command = _command(suite, tool, endpoint, results)
        _run(suite, command, copy, _environment(tool, endpoint, place / "home"), place / "log")
        files = _collect(suite, tool, results, place / "log")
        try:
            result = take(suite, tool.parse(files))
        except MeasurementFailed as error:
            raise MeasurementFailed(
                f"{suite.name}: {error.message}", code=error.code, about=error.about, remedy=error.remedy
            ) from error
    if progress and result.reading.cases:
        progress(suite.name, result.reading.cases, result.reading.cases)
    return result


def _command(suite: ToolSuite, tool: Tool, endpoint: Endpoint, results: Path) -> list[str]:
    name, *start = tool.program
    # The Python environment of this process may have the tool without being on the path.
    search = os.pathsep.join((os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)))
    program = shutil.which(name, path=search)
    if program is None:
        raise MeasurementFailed(
            f"{suite.name}: {suite.tool} is not installed: there is no program {name}",
            code="ToolNotInstalled",
            about=suite.tool,
            remedy=f"Name an image with {suite.tool} in the suite's image, or in the setting evaluation_image.",
        )
    filled = [
        argument.replace("{url}", endpoint.root).replace("{model}", endpoint.model) for argument in suite.arguments
    ]
    return [program, *start, *filled, *(argument.replace(RESULTS_PLACE, str(results)) for argument in tool.saving)]


def _environment(tool: Tool, endpoint: Endpoint, home: Path) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not SECRET.search(name)}
    return {
        **inherited,
        **OFFLINE,
        **tool.environment,
        "HOME": str(home),
        "LLMOPS_URL": endpoint.root,
        "LLMOPS_MODEL": endpoint.model,
        KEY_VARIABLE: endpoint.api_key or NO_KEY,
    }


def _run(suite: ToolSuite, command: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path) -> None:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(suite.timeout_seconds)
        except subprocess.TimeoutExpired as error:
            raise MeasurementFailed(
                f"{suite.name}: {suite.tool} did not end within {suite.timeout_seconds:g} s{_tail(log)}",
                code="ToolTimedOut",
                about=suite.tool,
                remedy="Raise timeout_seconds in the suite, or give the tool less to do.",
            ) from error
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if code:
        raise MeasurementFailed(
            f"{suite.name}: {suite.tool} ended with exit code {code}{_tail(log)}", code="ToolFailed", about=suite.tool
        )


def _collect(suite: ToolSuite, tool: Tool, results: Path, log: Path) -> Files:
    """The results files by name."""
    paths = sorted({path for pattern in tool.patterns for path in results.rglob(pattern) if path.is_file()})
    if not paths:
        expected = " or ".join(tool.patterns)
        raise MeasurementFailed(
            f"{suite.name}: {suite.tool} succeeded, but wrote no {expected}{_tail(log)}",
            code="ResultsMissing",
            about=suite.tool,
        )
    if (size := sum(path.stat().st_size for path in paths)) > LONGEST:
        raise MeasurementFailed(
            f"{suite.name}: results of {suite.tool} are {size:,} bytes, of at most {LONGEST:,}",
            code="ResultsTooLarge",
            about=suite.tool,
        )
    files = {path.name: path.read_bytes() for path in paths}
    if len(files) < len(paths):
        raise MeasurementFailed(
            f"{suite.name}: {suite.tool} wrote several files of the name {paths[0].name}",
            code="ResultsAmbiguous",
            about=suite.tool,
        )
    return files


def _tail(log: Path) -> str:
    """The last lines of a tool's output."""
    text = log.read_bytes()[-TAIL_BYTES:].decode(errors="replace").strip()
    lines = [line.rpartition("\r")[2] for line in text.splitlines()][-TAIL_LINES:]
    return ":\n" + "\n".join(lines) if lines else ", without any output"
