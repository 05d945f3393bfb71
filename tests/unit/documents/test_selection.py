"""Each test belongs to exactly one of `make test` and `make test-full`."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.selection import PROMISES

ROOT = Path(__file__).parents[3]


def collected(*arguments: str) -> set[str]:
    """Ids of the tests that pytest runs by these arguments."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "--quiet", "-p", "no:xdist", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return {line for line in done.stdout.splitlines() if "::" in line}


def of_target(target: str) -> list[str]:
    """A Makefile target's arguments for pytest, without the number of processes."""
    command = ["make", "--dry-run", "--always-make", target, "PARALLEL="]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    [line] = [line for line in done.stdout.splitlines() if "bin/pytest" in line]
    return shlex.split(line.partition("bin/pytest")[2])


@pytest.mark.full
def test_each_test_belongs_to_one_target() -> None:
    """Full: pytest collects all tests three times."""
    every, quick, full = collected(), collected(*of_target("test")), collected(*of_target("test-full"))
    assert len(every) > 3000
    assert quick | full == every
    assert quick & full == set()
    folders = {name: {test for test in quick if test.startswith(f"tests/{name}/")} for name in ("unit", "api", "e2e")}
    assert sum(map(len, folders.values())) == len(quick)
    assert folders["e2e"] == set(PROMISES.values())
    assert len(folders["unit"] | folders["api"]) > 2000
