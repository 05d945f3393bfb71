"""Real results files of the tools (see data/README.md), and stand-in programs for the tools."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llmops.evaluation.endpoint import Endpoint
from llmops.evaluation.formats.reading import Files

DATA = Path(__file__).parent / "data"

STAND_IN = """#!{python}
import os, shutil, sys, time
from pathlib import Path

{body}
"""


@pytest.fixture(scope="session")
def written() -> Callable[[str], Files]:
    """The results files of a folder below data/, by name."""

    def read(folder: str) -> Files:
        return {path.name: path.read_bytes() for path in sorted((DATA / folder).iterdir())}

    return read


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Puts a Python program of that name and body on the path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def make(name: str, body: str) -> None:
        script = folder / name
        script.write_text(STAND_IN.format(python=sys.executable, body=body))
        script.chmod(script.stat().st_mode | stat.S_IXUSR)

    return make


@pytest.fixture
def engine_endpoint() -> Endpoint:
    """An endpoint that no stand-in asks."""
    return Endpoint("http://127.0.0.1:1/v1", "tiny", "key-of-the-engine")
