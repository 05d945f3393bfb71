"""The router in front of this installation's models."""

from __future__ import annotations

from pydantic import Field

from llmops.schema import Strict


class RouterSettings(Strict):
    """LiteLLM's proxy: one address and one API for all models."""

    enabled: bool = Field(default=False, description="Whether there is a router.")
