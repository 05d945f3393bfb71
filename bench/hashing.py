"""Hashes weights on a volume: llmops' worker against `hf cache verify` and against openssl on every core."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from bench.side_by_side import REPO, Case, Weights, alternate, call, gb_per_s, hf, hub, make_weights, ratio, worker
from llmops.worker.hashing import cores, evict

SMALL: dict[str, Any] = {"size": 1 << 20, "count": 2, "rounds": 1}
"""Arguments of `run` for the shortest run."""


def run(*, size: int = 1 << 30, count: int = 4, rounds: int = 5) -> dict[str, float]:
    """Ratios (above 1: llmops is faster) and speeds, with a warm and with a cold page cache.

    Args:
        size: Bytes of one file.
        count: Number of files.
        rounds: Number of rounds; the contestants alternate.

    Returns:
        `hash.*` (SHA-256 compared with the pins), `rehash.*` (BLAKE3 compared with the manifest), `checksum.*`
        (SHA-256 and BLAKE3, manifest written), each with `_cold` for an empty page cache; speeds in GB/s.
    """
    with tempfile.TemporaryDirectory(prefix="bench-hashing-") as name:
        weights = make_weights(Path(name), count=count, size=size)
        with hub(weights) as url:
            return _measure(weights, url, rounds)


def _measure(weights: Weights, url: str, rounds: int) -> dict[str, float]:
    theirs = {"HF_ENDPOINT": url, "HF_HOME": str(weights.home / "hf")}
    target = ("--root", weights.home, "--target", "files")
    contestants = {
        "hash": lambda: worker("checksum", "--verify-only", "--release", weights.release, *target),
        "hf": lambda: hf(
            *("cache", "verify", REPO, "--revision", weights.commit, "--local-dir", weights.home / "files"), env=theirs
        ),
        "openssl": lambda: call(
            *("xargs", "-P", str(cores()), "-n1", "openssl", "dgst", "-sha256"),
            stdin="\n".join(map(str, weights.files)),
        ),
        "rehash": lambda: worker("rehash", *target),
        "checksum": lambda: worker("checksum", "--release", weights.release, *target),
    }
    contestants["checksum"]()  # writes the manifest for rehash, and warms the cache

    def empty_cache() -> None:
        for file in weights.files:
            evict(file)

    figures: dict[str, float] = {}
    for suffix, prepare in (("", lambda: None), ("_cold", empty_cache)):
        seconds = alternate({name: Case(prepare, timed) for name, timed in contestants.items()}, rounds)
        for ours in ("hash", "rehash", "checksum"):
            figures[f"{ours}{suffix}.vs_hf_cache_verify"] = ratio(seconds["hf"], seconds[ours])
        figures[f"hash{suffix}.vs_openssl_parallel"] = ratio(seconds["openssl"], seconds["hash"])
        for name, times in seconds.items():
            figures[f"{name}{suffix}.gb_per_s"] = gb_per_s(weights.size, times)
    return figures
