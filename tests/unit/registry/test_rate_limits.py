"""How long a registry asks to be left alone."""

from __future__ import annotations

import time

import pytest
from llmops_sandbox.standins.registry import RegistryServer

from llmops.clients.registry import ImageName, RegistryClient
from llmops.clients.registry.limits import UNSTATED_SECONDS, pause_asked


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": "99;w=21600"}, None),
        ({"ratelimit-remaining": "0;w=21600"}, UNSTATED_SECONDS),
        ({"RateLimit-Remaining": "0", "RateLimit-Reset": "30"}, 30),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "30"}, 30),
        ({"X-RateLimit-Remaining": "5", "X-RateLimit-Reset": "30"}, None),
        ({"RateLimit": "limit=100, remaining=0, reset=50"}, 50),
        ({"RateLimit": '"default";r=0;t=40'}, 40),
        ({"RateLimit": '"default";r=7;t=40'}, None),
        ({"Retry-After": "12", "RateLimit-Remaining": "0", "RateLimit-Reset": "30"}, 12),
        ({"RateLimit-Remaining": "none"}, None),
    ],
)
def test_pauses(headers: dict[str, str], expected: float | None) -> None:
    assert pause_asked(headers) == expected


def test_a_reset_is_a_time_or_a_duration() -> None:
    asked = pause_asked({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": f"{time.time() + 100:.0f}"})
    assert asked == pytest.approx(100, abs=5)


def test_the_client_keeps_the_pause_of_a_good_answer(mirrors: dict[str, str], server: RegistryServer) -> None:
    image, other = ImageName.parse("vllm/vllm-openai"), ImageName.parse("ghcr.io/x/y")
    server.rate_limits = {"RateLimit-Remaining": "0", "RateLimit-Reset": "33"}
    with RegistryClient(mirrors) as client:
        assert client.digest(image, "v0.32.0")
        assert (client.take_pause(other), client.take_pause(image), client.take_pause(image)) == (None, 33, None)
