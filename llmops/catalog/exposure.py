"""How users outside of the cluster reach a model, or the router in front of all models."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from llmops.schema import Strict


class Exposure(Strict):
    """The way in from outside the cluster. Not part of the release: it says how to reach it, and not what answers."""

    kind: Literal["none", "ingress", "gateway"] = Field(
        default="none", description="none: inside the cluster alone; ingress: ingress-nginx; gateway: Gateway API."
    )
    host: str | None = Field(default=None, description="Host name; required unless kind is none.")
