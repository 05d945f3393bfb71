from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest
from llmops_sandbox.standins.hub import HubServer, HubStore
from llmops_sandbox.standins.images import ImageStore
from llmops_sandbox.standins.registry import RegistryServer
from llmops_sandbox.standins.standin import in_thread

from llmops.clients.registry import RegistryClient
from llmops.clients.retries import Patience
from llmops.releases.resolve import Hub
from tests.support.manifests import release

__all__ = ["release"]

REPO = "acme/tiny"
IMAGE = "docker.io/vllm/vllm-openai"


@pytest.fixture
def store(tmp_path: Path) -> HubStore:
    store = HubStore(tmp_path / "hub")
    store.commit(REPO, {"config.json": "{}", "model.safetensors": bytes(2048), "README.md": "# Tiny"})
    return store


@pytest.fixture
def hub(store: HubStore) -> Generator[Hub]:
    with in_thread(HubServer(store)) as server:
        yield Hub(server.url)


@pytest.fixture
def images(tmp_path: Path) -> ImageStore:
    images = ImageStore(tmp_path / "images.json")
    for tag in ("v0.30.0", "v0.31.0", "v0.32.0", "v0.32.1-cu130", "v0.33.0rc1", "v0.40.0", "latest"):
        images.add(IMAGE, tag, ("engine", tag))
    return images


@pytest.fixture
def registry(images: ImageStore) -> Generator[RegistryClient]:
    with (
        in_thread(RegistryServer(images)) as server,
        RegistryClient({"docker.io": server.url}, patience=Patience(attempts=1)) as client,
    ):
        yield client
