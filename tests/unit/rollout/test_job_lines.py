"""What a person reads of a worker's events: sentences, whatever file or pod they are about."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmops.rollout.ops.jobs import JobLines

DIGEST = "a" * 64


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ({"event": "file", "path": "a.safetensors", "bytes": 1048576}, "a.safetensors is complete, 1,048,576 bytes"),
        (
            {"event": "mismatch", "path": "a", "expected": "b" * 64, "found": DIGEST, "resumed": True},
            f"a has hash {DIGEST}, the release pins {'b' * 64}: downloading it again",
        ),
        ({"event": "mismatch", "message": "a is altered"}, "a is altered"),
        ({"event": "retry", "path": "a", "attempt": 2, "reason": "502"}, "a failed to download, attempt 2: 502"),
        ({"event": "waiting", "seconds": 2.5, "reason": "429"}, "waiting 2 s as the hub asks: 429"),
        ({"event": "wrong", "path": "a", "kind": "truncated", "expected": "9", "found": "8"}, "a is truncated"),
        ({"event": "deleted", "key": "k"}, "weights k removed"),
        ({"event": "result", "kind": "ok", "message": "all there"}, "all there"),
        ({"event": "of a later version", "message": "{braces}"}, "{braces}"),
    ],
)
def test_an_event_is_a_sentence(event: dict[str, Any], said: str) -> None:
    lines: list[str] = []
    for prefix in ("", "pod-0: "):
        JobLines(lines.append).see(prefix + json.dumps(event))
    assert lines == [said, f"pod-0: {said}"]


def test_what_is_no_event_is_passed_on_as_it_is() -> None:
    lines: list[str] = []
    for line in ("Traceback (most recent call last):", '{"event": "of a later version"}'):
        JobLines(lines.append).see(line)
    assert lines == ["Traceback (most recent call last):", '{"event": "of a later version"}']
