from __future__ import annotations

import hashlib
from collections.abc import Generator
from pathlib import Path
from random import Random

import pytest
from llmops_sandbox.standins.hub import HubServer, HubStore
from llmops_sandbox.standins.standin import in_thread

from llmops.clients.retries import Patience

REPO = "acme/tiny"
WEIGHTS = Random(0).randbytes(1 << 20)
FILES: dict[str, bytes | str | Path] = {
    "README.md": "# Tiny\n",
    "config.json": '{"model_type": "llama"}',
    "sub/folder/a name.json": "[]",
    "model.safetensors": WEIGHTS,
}


def partial(staging: Path, path: str) -> Path:
    """Where the worker keeps what it has of a file."""
    return staging / ".cache/parts" / f"{hashlib.sha256(path.encode()).hexdigest()[:32]}.part"


@pytest.fixture
def store(tmp_path: Path) -> HubStore:
    return HubStore(tmp_path / "hub")


@pytest.fixture
def commit(store: HubStore) -> str:
    return store.commit(REPO, FILES)


@pytest.fixture
def server(store: HubStore) -> Generator[HubServer]:
    with in_thread(HubServer(store, page_size=2)) as running:
        yield running


@pytest.fixture
def once() -> Patience:
    return Patience(attempts=1)
