"""What people read of an error: what happened, then what to do next."""

from __future__ import annotations

import pytest

from llmops.errors import ClusterCannot


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("no GPU", "no GPU. Remedy: Add one."),
        ("no GPU.", "no GPU. Remedy: Add one."),
        ("no GPU; the log ends:\nout of memory", "no GPU; the log ends:\nout of memory Remedy: Add one."),
    ],
)
def test_the_remedy_is_a_sentence_of_its_own(message: str, told: str) -> None:
    assert str(ClusterCannot(message, remedy="Add one.")) == told
    assert str(ClusterCannot(message)) == message
