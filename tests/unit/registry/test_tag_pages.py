"""Single pages of a repository's tags, requested again."""

from __future__ import annotations

import pytest
from llmops_sandbox.standins.images import ImageStore
from llmops_sandbox.standins.registry import RegistryServer
from llmops_sandbox.standins.standin import in_thread

from llmops.clients.registry import ImageName, RegistryClient
from llmops.clients.retries import Patience
from llmops.errors import BadRelease

VLLM = ImageName.parse("vllm/vllm-openai")


@pytest.mark.parametrize("etags", [True, False])
def test_a_page_can_be_requested_again(images: ImageStore, once: Patience, etags: bool) -> None:
    with (
        in_thread(RegistryServer(images, page_size=3, etags=etags)) as server,
        RegistryClient({"docker.io": server.url}, patience=once) as client,
    ):
        pages = client.pages(VLLM)
        assert [len(page.tags) for page in pages] == [3, 3, 1]
        assert all((page.etag is not None) is etags for page in pages)
        assert [page.next for page in pages[:-1]] == [page.path for page in pages[1:]]
        for page in pages:
            again = client.page(VLLM, page.path, etag=page.etag)
            assert again is None if etags else again == page
        images.add(str(VLLM), "v0.31.5", ("engine",))
        changed = [page for page in pages if client.page(VLLM, page.path, etag=page.etag) not in (None, page)]
        assert pages[0] not in changed
        assert len(changed) == 1
        renewed = client.page(VLLM, changed[0].path)
        assert renewed is not None
        assert "v0.31.5" in renewed.tags


def test_a_page_of_no_image(images: ImageStore, mirrors: dict[str, str], once: Patience) -> None:
    with RegistryClient(mirrors, patience=once) as client, pytest.raises(BadRelease) as raised:
        client.page(ImageName.parse("vllm/none"), "/v2/vllm/none/tags/list?n=10")
    assert (raised.value.code, raised.value.about) == ("ImageNotFound", "docker.io/vllm/none")
