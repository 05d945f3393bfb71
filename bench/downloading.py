"""Downloads with verification: llmops' worker against `hf download` followed by `hf cache verify`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from bench.side_by_side import REPO, Case, Weights, alternate, gb_per_s, hf, hub, make_weights, ratio, remove, worker

SMALL: dict[str, Any] = {"size": 1 << 20, "count": 2, "rounds": 1}
"""Arguments of `run` for the shortest run."""


def run(*, size: int = 1 << 30, count: int = 4, rounds: int = 5) -> dict[str, float]:
    """Ratio (above 1: llmops is faster) and speeds, from a stand-in hub on loopback over plain HTTP.

    llmops also waits until the bytes are on the disk; the hub's program does not.

    Args:
        size: Bytes of one file.
        count: Number of files.
        rounds: Number of rounds; the contestants alternate.

    Returns:
        `download.vs_hf_download_verify`, and the speeds of both in GB/s.
    """
    with tempfile.TemporaryDirectory(prefix="bench-downloading-") as name:
        weights = make_weights(Path(name), count=count, size=size)
        with hub(weights) as url:
            return _measure(weights, url, rounds)


def _measure(weights: Weights, url: str, rounds: int) -> dict[str, float]:
    home = weights.home
    volume, plain = home / "volume", home / "plain"

    def prepare() -> None:
        remove(volume, plain, home / "hf")
        volume.mkdir()

    def ours() -> None:
        worker(
            *(
                "download",
                "--release",
                weights.release,
                "--root",
                volume,
                "--staging",
                "staging/k",
                "--target",
                "weights/k",
            ),
            env={"HF_ENDPOINT": url},
        )

    def theirs() -> None:
        env = {"HF_ENDPOINT": url, "HF_HOME": str(home / "hf")}
        place = ("--revision", weights.commit, "--local-dir", plain)
        hf("download", REPO, *place, env=env)
        hf("cache", "verify", REPO, *place, env=env)

    seconds = alternate({"ours": Case(prepare, ours), "theirs": Case(prepare, theirs)}, rounds)
    return {
        "download.vs_hf_download_verify": ratio(seconds["theirs"], seconds["ours"]),
        "download.gb_per_s": gb_per_s(weights.size, seconds["ours"]),
        "hf_download_verify.gb_per_s": gb_per_s(weights.size, seconds["theirs"]),
    }
