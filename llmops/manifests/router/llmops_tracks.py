"""Which track answers whose requests, while a release gets a share of them.

A conversation keeps to its track: two releases may write differently, and the engine has the turns so far in its cache.
The track follows from a hash of the conversation and the canary's release. So all replicas of the router agree without
a word, a growing share takes no conversation away from the canary, and another trial has other users.

Some applications begin each conversation with the same words, and a hash would send all of them to one track. So the
share comes first: a request that would move it too far off goes to the other track (consistent hashing with bounded
loads: V. Mirrokni, M. Thorup, M. Zadimoghaddam, 2018).

The file needs Python's own library alone.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Deployment = Mapping[str, Any]
"""An entry of LiteLLM's `model_list`."""

CANARY = ".canary"
WINDOW = 4000
"""About how many of the latest requests the share is counted on."""
TOLERANCE, SLACK = 0.25, 10.0
"""How far the tracks' requests may be from their shares: by this part of the smaller one, and so many requests."""


class Tracks:
    """Chooses a track for each request, and counts what each has got.

    Args:
        chance: Numbers from 0 to 1 by chance.
    """

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        self._chance = chance
        self._counts: dict[str, tuple[float, float]] = {}

    def choose(
        self, deployments: Sequence[Deployment], messages: Sequence[Any] | None, request: Mapping[str, Any]
    ) -> list[Deployment]:
        """The deployments that may answer: one track's, or all of them where the router is to choose.

        Args:
            deployments: Those of the model that answer now.
            messages: The chat so far, if it is one.
            request: The request, with LiteLLM's `metadata`.
        """
        tracks = {str(deployment["model_info"]["id"]).endswith(CANARY): deployment for deployment in deployments}
        # After a failure, any engine that answers is welcome.
        if len(tracks) < 2 or len(deployments) > 2 or _retried(request):
            return list(deployments)
        share = float(tracks[True]["litellm_params"]["weight"]) / 100
        trial = f"{tracks[True]['model_info']['id']} {tracks[True]['model_info'].get('release')}"
        return [tracks[self._draw(trial, share, conversation(messages, request))]]

    def _draw(self, trial: str, share: float, whose: str | None) -> bool:
        """Whether the canary answers."""
        total, canary = self._counts.get(trial, (0.0, 0.0))
        total, canary = (count * (1 - 1 / WINDOW) for count in (total, canary))
        total += 1
        chosen = (self._chance() if whose is None else place(trial, whose)) < share
        if abs(canary + chosen - share * total) > SLACK + TOLERANCE * min(share, 1 - share) * total:
            chosen = canary < share * total
        self._counts[trial] = total, canary + chosen
        return chosen


def conversation(messages: Sequence[Any] | None, request: Mapping[str, Any]) -> str | None:
    """What all requests of a conversation have in common: the `user` that they name, or that user's first message.

    None if a request tells neither.
    """
    if user := request.get("user"):
        return f"user {user}"
    # The system's message may have the time, or documents of the turn.
    for message in messages or ():
        if isinstance(message, Mapping) and message.get("role") == "user":
            return json.dumps(message, sort_keys=True, default=str)
    return None


def place(trial: str, whose: str) -> float:
    """A number from 0 to 1 for each conversation in a trial, evenly spread."""
    digest = hashlib.sha256(f"{trial}\n{whose}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8]) / 2**64


def _retried(request: Mapping[str, Any]) -> bool:
    metadata = request.get("litellm_metadata") or request.get("metadata")
    return isinstance(metadata, Mapping) and bool(metadata.get("attempted_retries"))
