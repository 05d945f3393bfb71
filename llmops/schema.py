"""What every model of written-down content is made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    """Immutable, and unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SecretKey(Strict):
    """One key of a Secret in the serving namespace."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$", description="Of the Secret.")]
    key: Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]+$", description="Of its data.")]
