"""Compares a model's stack with APIs for the same tokens. Pure."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from llmops.config.schema import Strict
from llmops.costs.prices import MILLION, SECONDS_PER_MONTH, Prices, Range
from llmops.costs.stack import Bill, Stack, bill

Cheaper = Literal["self-hosted", "api", "either"]


class Volume(Strict):
    """Tokens per month."""

    input: Annotated[float, Field(ge=0)]
    output: Annotated[float, Field(ge=0)]

    @property
    def total(self) -> float:
        """Input and output tokens."""
        return self.input + self.output

    @property
    def output_share(self) -> float:
        """Share of output, between 0 and 1; 0 without any tokens."""
        return self.output / self.total if self.total else 0.0


class Against(Strict):
    """The same tokens from an API."""

    api: str
    usd_per_million: Range = Field(description="At this mix of input and output.")
    usd_per_month: Range
    cheaper: Cheaper = Field(description="either: the ranges overlap.")
    break_even: Range | None = Field(description="Utilization from which on self-hosting is cheaper; above 1: never.")
    cheaper_with_operations: Cheaper = Field(description="The same, with the people who operate it.")


class Report(Strict):
    """Costs of a model, and of the same tokens from each API."""

    bill: Bill
    volume: Volume
    capacity: Range | None = Field(description="Tokens per second of all replicas when they are full.")
    utilization: Range | None = Field(description="Tokens made, as a share of the capacity.")
    usd_per_million: Range | None = Field(description="None without any tokens.")
    operations: Range = Field(description="USD per month of the people, not part of the bill.")
    against: tuple[Against, ...] = Field(description="Each API. Warnings compare with the first.")


def report(stack: Stack, prices: Prices, volume: Volume, capacity: Range | None) -> Report:
    """Compare a stack's costs with those of each API.

    Args:
        stack: The stack.
        prices: Prices of stack and APIs.
        volume: Tokens per month.
        capacity: Tokens per second of all its replicas when they are full; None if unknown.

    Raises:
        BadInput: The stack's GPU has no price.
    """
    costs = bill(stack, prices, volume.output)
    operations = prices.operations.monthly
    return Report(
        bill=costs,
        volume=volume,
        capacity=capacity,
        utilization=_utilization(volume, capacity),
        usd_per_million=costs.total * (MILLION / volume.total) if volume.total else None,
        operations=operations,
        against=tuple(
            Against(
                api=name,
                usd_per_million=(blended := price.blended(volume.output_share)),
                usd_per_month=(elsewhere := blended * (volume.total / MILLION)),
                cheaper=cheaper(costs.total, elsewhere),
                break_even=break_even(costs.total, capacity, blended) if capacity else None,
                cheaper_with_operations=cheaper(costs.total + operations, elsewhere),
            )
            for name, price in prices.apis.items()
        ),
    )


def planned(utilization: float, output_share: float, capacity: float) -> Volume:
    """Tokens per month of replicas that do `capacity` tokens per second when full, at a utilization between 0 and 1."""
    total = capacity * utilization * SECONDS_PER_MONTH
    return Volume(input=total * (1 - output_share), output=total * output_share)


def cheaper(ours: Range, elsewhere: Range) -> Cheaper:
    """Which of two ranges is lower; `either` if they overlap."""
    if ours.high < elsewhere.low:
        return "self-hosted"
    return "api" if ours.low > elsewhere.high else "either"


def break_even(total: Range, capacity: Range, usd_per_million: Range) -> Range | None:
    """Utilization at which a stack costs as much as an API for the same tokens; None if the API is free.

    Args:
        total: USD per month of the stack.
        capacity: Tokens per second of the stack when it is full.
        usd_per_million: Price of the API.
    """
    return total.over(usd_per_million.by(capacity) * (SECONDS_PER_MONTH / MILLION))


def usd_per_million(usd_per_month: float, tokens_per_second: float) -> float:
    """USD per million tokens at a rate above 0."""
    return usd_per_month * MILLION / (tokens_per_second * SECONDS_PER_MONTH)


def _utilization(volume: Volume, capacity: Range | None) -> Range | None:
    tokens_per_second = volume.total / SECONDS_PER_MONTH
    return Range(low=tokens_per_second, high=tokens_per_second).over(capacity) if capacity else None
