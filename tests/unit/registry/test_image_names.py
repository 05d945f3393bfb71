from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmops_sandbox.standins.images import normalise

from llmops.clients.registry import ImageName
from llmops.errors import BadInput


@pytest.mark.parametrize(
    ("text", "registry", "repository"),
    [
        ("vllm/vllm-openai", "docker.io", "vllm/vllm-openai"),
        ("busybox", "docker.io", "library/busybox"),
        ("docker.io/busybox", "docker.io", "library/busybox"),
        ("index.docker.io/vllm/x", "docker.io", "vllm/x"),
        ("ghcr.io/x/y", "ghcr.io", "x/y"),
        ("ghcr.io/y", "ghcr.io", "y"),
        ("localhost/x", "localhost", "x"),
        ("localhost:5000/x", "localhost:5000", "x"),
        ("127.0.0.1:5000/a/b/c", "127.0.0.1:5000", "a/b/c"),
        ("a/b__c.d-e--f", "docker.io", "a/b__c.d-e--f"),
    ],
)
def test_names(text: str, registry: str, repository: str) -> None:
    name = ImageName.parse(text)
    assert name == ImageName(registry, repository)
    assert ImageName.parse(str(name)) == name


@pytest.mark.parametrize("text", ["vllm/vllm-openai:v0.32.0", "busybox:1", f"a/b@sha256:{'0' * 64}"])
def test_a_tag_or_digest_is_refused(text: str) -> None:
    with pytest.raises(BadInput) as refused:
        ImageName.parse(text)
    assert (refused.value.code, refused.value.about) == ("ImageHasVersion", text)


@pytest.mark.parametrize(
    "text", ["", "/", "a/", "/a", "Vllm/x", "a//b", "a b", "-a/b", "ghcr.io/", "ghcr.io/A", "a/../b"]
)
def test_an_invalid_name_is_refused(text: str) -> None:
    with pytest.raises(BadInput) as refused:
        ImageName.parse(text)
    assert (refused.value.code, refused.value.about) == ("InvalidImageName", text)


PART = st.from_regex(r"[a-z0-9]{1,5}([._-][a-z0-9]{1,3})?", fullmatch=True)


@given(
    host=st.sampled_from(["", "docker.io/", "ghcr.io/", "localhost/", "h:5/"]),
    parts=st.lists(PART, min_size=1, max_size=3),
)
def test_names_mean_what_they_mean_to_the_node_agent(host: str, parts: list[str]) -> None:
    text = host + "/".join(parts)
    assert str(ImageName.parse(text)) == normalise(text)
