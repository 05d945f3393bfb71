"""How long Dagster takes to load the code location, by number of models."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from llmops.config.settings import SETTINGS_VARIABLE

COUNTS = (1, 100, 1000)
REPEATS = 5
SMALL: dict[str, Any] = {"counts": (1, 10), "repeats": 1}
"""Arguments of `run` for the shortest run."""
# Includes imports: every process that Dagster starts for the location pays for them.
LOAD = """
import time
started = time.perf_counter()
from llmops.definitions import defs
definitions = defs()
definitions.resolve_job_def("rollout")
print(time.perf_counter() - started)
"""


def run(counts: Sequence[int] = COUNTS, repeats: int = REPEATS) -> dict[str, float]:
    """Seconds to import and load definitions, medians, as `definitions.seconds.COUNT`."""
    example = yaml.safe_load(Path("models/smollm2-135m.yaml").read_text())
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        settings = {count: _catalog(Path(folder) / str(count), example, count) for count in counts}
        for _ in range(repeats):
            for count in counts:
                seconds.setdefault(f"definitions.seconds.{count}", []).append(_load(settings[count]))
    return {key: round(statistics.median(values), 3) for key, values in seconds.items()}


def _catalog(folder: Path, example: dict[str, object], count: int) -> Path:
    (folder / "models").mkdir(parents=True)
    for number in range(count):
        name = f"model-{number}"
        (folder / "models" / f"{name}.yaml").write_text(yaml.safe_dump(example | {"name": name}, sort_keys=False))
    settings = folder / "settings.yaml"
    settings.write_text(json.dumps({"models_dir": str(folder / "models"), "evals_dir": str(Path("evals").resolve())}))
    return settings


def _load(settings: Path) -> float:
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOAD],
        env={**os.environ, SETTINGS_VARIABLE: str(settings)},
        check=True,
        capture_output=True,
        text=True,
    )
    return float(answer.stdout)
