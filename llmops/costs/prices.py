"""Prices, from a YAML file that people edit."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from llmops.config.loading import read_file
from llmops.config.schema import Strict
from llmops.errors import BadInput

DEFAULT = "prices.yaml"
HOURS_PER_MONTH = 730
SECONDS_PER_MONTH = HOURS_PER_MONTH * 3600
MILLION = 1e6


class Range(Strict):
    """From low to high; written as one number where both are the same."""

    low: Annotated[float, Field(ge=0)]
    high: Annotated[float, Field(ge=0)]

    @model_validator(mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        return {"low": value, "high": value} if isinstance(value, int | float) else value

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.low > self.high:
            raise ValueError(f"low is {self.low:g}, above high, which is {self.high:g}")
        return self

    def __add__(self, other: Range) -> Range:
        return Range(low=self.low + other.low, high=self.high + other.high)

    def __mul__(self, factor: float) -> Range:
        return Range(low=self.low * factor, high=self.high * factor)

    def by(self, other: Range) -> Range:
        """The product with another range."""
        return Range(low=self.low * other.low, high=self.high * other.high)

    def over(self, other: Range) -> Range | None:
        """The quotient: lowest where the other is highest. None where the other may be 0."""
        return Range(low=self.low / other.high, high=self.high / other.low) if other.low > 0 else None


class GpuPrice(Strict):
    """One GPU."""

    usd_per_month: Range
    tokens_per_second: Range | None = None


class ApiPrice(Strict):
    """Tokens elsewhere, USD per million."""

    input: Range
    output: Range

    def blended(self, output_share: float) -> Range:
        """USD per million tokens of which this share is output, between 0 and 1."""
        return self.input * (1 - output_share) + self.output * output_share


class Operations(Strict):
    """The people who operate it."""

    usd_per_month: Range
    share: Annotated[float, Field(ge=0, le=1)]

    @property
    def monthly(self) -> Range:
        """USD per month of the share."""
        return self.usd_per_month * self.share


class Prices(Strict):
    """All prices of a file; the packaged file explains each."""

    gpus: dict[str, GpuPrice]
    replica_without_gpu: Range | None
    control_plane: Range
    load_balancer: Range
    storage_gb: Range
    egress_gb: Range | None
    egress_bytes_per_token: Annotated[float, Field(ge=0)]
    operations: Operations
    apis: dict[str, ApiPrice] = Field(min_length=1)

    def replica(self, product: str | None, gpus: int) -> Range:
        """USD per month of one replica's part of a node.

        Raises:
            BadInput: The prices have none for it.
        """
        if gpus == 0:
            if self.replica_without_gpu is None:
                raise BadInput(
                    "a replica without a GPU has no price",
                    code="NoPrice",
                    about="replica_without_gpu",
                    remedy="Set it in your own prices file, and name the file in the setting `prices`.",
                )
            return self.replica_without_gpu
        return self._gpu(product).usd_per_month * gpus

    def planned_tokens_per_second(self, product: str | None, gpus: int) -> Range | None:
        """Expected tokens per second of a full replica; None if the prices have none."""
        planned = self._gpu(product).tokens_per_second if gpus else None
        return planned * gpus if planned else None

    def _gpu(self, product: str | None) -> GpuPrice:
        if product is None:
            raise BadInput(
                "a GPU of any product has no price",
                code="NoPrice",
                about="gpu.product",
                remedy="Set gpu.product in the model's entry.",
            )
        if product not in self.gpus:
            raise BadInput(
                f"GPU {product} has no price; the prices have {', '.join(self.gpus) or 'no GPU'}",
                code="NoPrice",
                about=f"GPU {product}",
                remedy=f"Add gpus.{product} to your own prices file, and name the file in the setting `prices`.",
            )
        return self.gpus[product]


def load_prices(path: Path | None = None) -> Prices:
    """Read a file of prices; None means the packaged one.

    Raises:
        BadInput: It cannot be read, or a field is missing, unknown or wrong; the message has one line per mistake,
            with file, line, field and what was found.
    """
    if path:
        return read_file(path, Prices)
    with as_file(files("llmops.costs") / DEFAULT) as packaged:
        return read_file(packaged, Prices)
