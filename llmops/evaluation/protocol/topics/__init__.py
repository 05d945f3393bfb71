"""The checks of the protocol: one file a topic. A new topic is a new file and a line in `CHECKS`."""

from __future__ import annotations

from collections.abc import Sequence

from llmops.config.kinds import ProtocolTopic
from llmops.evaluation.protocol.check import Check
from llmops.evaluation.protocol.topics import (
    chat,
    choices,
    errors,
    limits,
    logprobs,
    reasoning,
    stream,
    structured,
    text,
    tools,
    turns,
    usage,
)

CHECKS: tuple[Check, ...] = (
    *chat.CHECKS,
    *tools.CHECKS,
    *structured.CHECKS,
    *stream.CHECKS,
    *limits.CHECKS,
    *choices.CHECKS,
    *logprobs.CHECKS,
    *usage.CHECKS,
    *reasoning.CHECKS,
    *text.CHECKS,
    *errors.CHECKS,
    *turns.CHECKS,
)
"""All checks, by topic."""


def checks_of(topics: Sequence[ProtocolTopic]) -> tuple[Check, ...]:
    """The checks of some topics; of all, if none is given."""
    return tuple(check for check in CHECKS if not topics or check.topic in topics)
