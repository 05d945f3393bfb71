"""The storm runs to its end and finds no fault; its cases are repeatable.

Slow: each case is a rollout or more on a sandbox of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.storm.acts import ACTS, draw

SEED = 0
CASES = (0, 1)


@pytest.mark.full
@pytest.mark.timeout(900)
def test_two_cases_of_a_storm_have_no_fault(tmp_path: Path) -> None:
    output = tmp_path / "output" / "storm.json"
    command = [sys.executable, "-m", "bench.storm", "--seed", str(SEED), "--only", ",".join(map(str, CASES))]
    done = subprocess.run(
        [*command, "--output", output, "--dir", tmp_path],
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    rows = json.loads(output.read_text())
    assert [(row["case"], row["act"]) for row in rows] == [(case, draw(SEED, case, ACTS).act.name) for case in CASES]
    assert all(row["changed"] and row["passed"] and row["looks"] for row in rows), rows
