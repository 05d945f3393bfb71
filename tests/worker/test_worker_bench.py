from __future__ import annotations

from pathlib import Path

import pytest

from bench import downloading, hashing


@pytest.mark.slow
def test_the_benches_of_the_worker_run_and_give_their_keys(tmp_path: Path) -> None:
    """Slow: it starts some twenty processes, half of them the hub's own program."""
    found = hashing.run(size=1 << 20, count=2, rounds=1, folder=tmp_path) | downloading.run(
        size=1 << 20, count=2, rounds=1, folder=tmp_path
    )
    assert found.keys() >= {
        "hash.vs_hf_cache_verify",
        "hash.vs_openssl_parallel",
        "hash_cold.vs_hf_cache_verify",
        "hash_cold.vs_openssl_parallel",
        "rehash.vs_hf_cache_verify",
        "download.vs_hf_download_verify",
    }
    assert all(value > 0 for name, value in found.items() if ".vs_" in name)
    assert list(tmp_path.iterdir()) == []
