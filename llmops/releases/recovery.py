"""What served a model whose state names nothing stable: told by the Deployment, and by what is known of its trials.

A state that was deleted looks like that of a model that nothing was ever promoted of. Only proof tells them apart.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Evidence:
    """What the cluster has of a model besides its state.

    Args:
        deployed: Release that the main Deployment is at; None if there is none of ours.
        passed: Releases whose last trial passed, newest first.
        refused: Releases whose last trial ended otherwise.
        opened: Releases under trial, and what served when the trial began: "" is nothing, None is not known.
        unpromoted: The state is older than the main Deployment, so that a promotion since would be in it.
    """

    deployed: str | None
    passed: Sequence[str]
    refused: Collection[str]
    opened: Mapping[str, str | None]
    unpromoted: bool


def what_served(found: Evidence) -> str | None:
    """The release that a trial has to leave serving; "" if nothing served; None if nothing proves either."""
    main = found.deployed
    if main is not None and main not in found.opened and main not in found.refused:
        return main
    # The promotion of a release under trial has moved the Deployment already.
    if main is not None and (noted := found.opened.get(main)) is not None:
        return noted
    earlier = next((release for release in found.passed if release != main), None)
    if earlier is not None:
        return earlier
    return "" if main is None or found.unpromoted else None
