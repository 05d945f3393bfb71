"""Each bench runs to its end at its small size, and gives its figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.__main__ import BENCHES, LIMITS
from bench.executors import EXECUTORS
from bench.live.kinds import KINDS
from bench.verdicts import PARTS

FIGURES = {
    "hashing": {
        *(f"{ours}{cold}.vs_hf_cache_verify" for ours in ("hash", "rehash", "checksum") for cold in ("", "_cold")),
        *("hash.vs_openssl_parallel", "hash_cold.vs_openssl_parallel"),
        *(f"{name}{cold}.gb_per_s" for name in ("hash", "hf", "openssl", "rehash") for cold in ("", "_cold")),
    },
    "downloading": {"download.vs_hf_download_verify", "download.gb_per_s", "hf_download_verify.gb_per_s"},
    "load_client": {
        *(f"load_client.{other}cpu_ms_per_request" for other in ("", "openai_", "aiohttp_")),
        *("load_client.vs_openai", "load_client.vs_aiohttp"),
    },
    "startup": {
        *(f"startup.{name}_cpu_seconds" for name in ("help", "check", "libraries")),
        *("startup.help_vs_libraries", "startup.check_vs_libraries"),
    },
    "rollout": {f"rollout.{what}seconds" for what in ("", "bare_", "overhead_", "run_")},
    "deciding": {"deciding.passed", "deciding.decided", "deciding.evaluation_seconds"},
    "executors": {
        *(f"executors.{name}_{what}_seconds" for name in EXECUTORS for what in ("run", "overhead")),
        "executors.run_ratio",
    },
    "definitions": {"definitions.seconds.1", "definitions.seconds.10"},
    "sensors": {
        f"sensors.{sensor}.{figure}"
        for sensor in ("image_tags", "model_revisions", "catalog_changes")
        for figure in ("first_seconds", "first_requests", "idle_seconds", "idle_requests_most", "cursor_bytes")
    },
    "verdicts": {
        *(f"verdicts.{part}_{kind}" for part in PARTS for kind in ("equal_failed", "beyond_passed")),
        "verdicts.promised",
    },
    "power": {"power"},
    "live": {
        "live.promised",
        *(f"live.{rule}wrongly_{end}" for rule in ("", "earlier_") for end in ("rejected", "passed")),
        *(f"live.{kind.key}.{what}.1x1x200" for kind in KINDS for what in ("requests", "ratio")),
    },
}
POWER = {"equal_passed", "equal_failed", "equal_inconclusive", "fault_found", "cases", "tokens"}
MAY_BE_ZERO_OR_LESS = (
    "_requests",
    "_requests_most",
    "overhead_seconds",
    "_failed",
    "_passed",
    "_rejected",
    "cursor_bytes",
)


def bench(folder: Path, *names: str, **environment: str) -> tuple[int, dict[str, Any]]:
    """Run benches at their small size; returns the exit code and the written figures."""
    temporary = folder / "temporary"
    temporary.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "bench", *names, "--small", "--output", folder / "output" / "bench.json"],
        env={**os.environ, "TMPDIR": str(temporary), **environment},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    sys.stderr.write(done.stderr)
    assert list(temporary.iterdir()) == []
    return done.returncode, json.loads((folder / "output" / "bench.json").read_text())


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", BENCHES)
def test_a_bench_gives_its_figures(tmp_path: Path, name: str) -> None:
    code, figures = bench(tmp_path, name)
    assert code == 0
    assert FIGURES[name] <= figures.keys()
    assert {key for key in LIMITS if key.startswith(name)} <= figures.keys()
    if name == "power":
        assert figures["power"].keys() == POWER
        return
    assert [key for key in FIGURES[name] if not key.endswith(MAY_BE_ZERO_OR_LESS) and not figures[key] > 0] == []


def test_figures_are_kept_when_a_later_bench_breaks(tmp_path: Path) -> None:
    """Slow: it starts the command line six times."""
    code, figures = bench(tmp_path, "startup", "hashing", PATH="")  # hashing runs programs of the system
    assert code == 1
    assert FIGURES["startup"] <= figures.keys()
    assert figures.keys().isdisjoint(FIGURES["hashing"])
