"""Which release served a model whose state names no stable: concluded from the Deployment and the records of trials.

A deleted state looks like the state of a model without any promotion. Only evidence tells them apart.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Evidence:
    """What the cluster knows of a model besides its state.

    Args:
        deployed: Release of the main Deployment; None without a Deployment of llmops.
        passed: Releases whose last trial passed, newest first.
        refused: Releases whose last trial ended otherwise.
        opened: Releases under trial, with the release that served at the start of the trial: "" is none, None unknown.
        unpromoted: The state is older than the main Deployment: it would have a promotion since then.
    """

    deployed: str | None
    passed: Sequence[str]
    refused: Collection[str]
    opened: Mapping[str, str | None]
    unpromoted: bool


def what_served(evidence: Evidence) -> str | None:
    """The release that served; "" if none did; None if nothing proves either."""
    main = evidence.deployed
    if main is not None and main not in evidence.opened and main not in evidence.refused:
        return main
    # The promotion of the release under trial has moved the Deployment already.
    if main is not None and (served := evidence.opened.get(main)) is not None:
        return served
    earlier = next((release for release in evidence.passed if release != main), None)
    if earlier is not None:
        return earlier
    return "" if main is None or evidence.unpromoted else None
