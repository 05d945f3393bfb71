"""How the router in front of all models treats one of them."""

from __future__ import annotations

from pydantic import Field

from llmops.schema import Strict


class Routing(Strict):
    """A model behind the router. Not part of the release."""

    aliases: tuple[str, ...] = Field(default=(), description="Further names that users may ask for it by.")
