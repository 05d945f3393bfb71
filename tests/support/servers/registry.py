from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest
from llmops_sandbox.standins.images import ImageStore
from llmops_sandbox.standins.registry import RegistryServer
from llmops_sandbox.standins.standin import in_thread

from llmops.clients.retries import Patience

VLLM = "vllm/vllm-openai"
TAGS = ("latest", "nightly", "v0.31.0", "v0.32.0", "v0.32.0-cu130", "v0.33.0rc1", "v0.32.1-x86_64")


@pytest.fixture
def images(tmp_path: Path) -> ImageStore:
    store = ImageStore(tmp_path / "images.json")
    for tag in TAGS:
        store.add(VLLM, tag, ("engine", tag))
    store.add("ghcr.io/acme/worker", "0.1.0", ("worker",))
    return store


@pytest.fixture
def server(images: ImageStore) -> Generator[RegistryServer]:
    registry = RegistryServer(
        images, page_size=3, credentials={"ada": "secret"}, private=["acme/worker"], token_seconds=60
    )
    with in_thread(registry) as running:
        yield running


@pytest.fixture
def mirrors(server: RegistryServer) -> dict[str, str]:
    return {"docker.io": server.url, "ghcr.io": server.url}


@pytest.fixture
def once() -> Patience:
    return Patience(attempts=1)
