"""A worker's events become sentences in the log, and its failures become errors with a code."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmops.errors import BadRelease, ClusterCannot, Unavailable
from llmops.rollout.ops.jobs import WORKER_CODES, JobLines, worker_error
from llmops.worker.report import EXIT_CODES, Kind, Result

DIGEST = "a" * 64


@pytest.mark.parametrize(
    ("event", "sentence"),
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
def test_each_event_becomes_a_sentence(event: dict[str, Any], sentence: str) -> None:
    lines: list[str] = []
    for prefix in ("", "pod-0: "):
        JobLines(lines.append).see(prefix + json.dumps(event))
    assert lines == [sentence, f"pod-0: {sentence}"]


def message(kind: Kind) -> str:
    return json.dumps(Result("download", kind, "it failed", "Mend it.").as_event())


def test_every_failure_of_a_worker_has_a_class_and_a_code() -> None:
    classes = {3: BadRelease, 4: Unavailable, 5: ClusterCannot}
    failures: list[Kind] = [kind for kind, exit_code in EXIT_CODES.items() if exit_code in classes]
    assert set(WORKER_CODES) == set(failures)
    for kind in failures:
        error = worker_error([message(kind)], about="Job j")
        assert error is not None
        assert type(error) is classes[EXIT_CODES[kind]]
        fields = (error.code, error.about, error.message, error.remedy)
        assert fields == (WORKER_CODES[kind], "Job j", "it failed", "Mend it.")


def test_a_bad_release_wins_over_failures_that_a_retry_mends() -> None:
    error = worker_error(["not JSON", message("hub_error"), message("mismatch"), message("ok")])
    assert isinstance(error, BadRelease)


def test_a_crash_of_a_worker_makes_no_error() -> None:
    assert worker_error([message("crash"), message("usage")]) is None


@pytest.mark.parametrize(
    "line",
    [
        "Traceback (most recent call last):",
        '{"event": "of a later version"}',
        '  File "/worker.py", line 3',
        "[0] 12",
        'a quota is used up: "team"',
        "null",
        "",
    ],
)
def test_a_line_without_an_event_is_unchanged(line: str) -> None:
    lines: list[str] = []
    JobLines(lines.append).see(line)
    assert lines == [line]
