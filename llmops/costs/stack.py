"""The monthly cost of a model's stack, item by item. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field

from llmops.config.schema import Strict
from llmops.costs.prices import Prices, Range


@dataclass(frozen=True)
class Stack:
    """A model's part of an installation.

    Attributes:
        replicas: Average number.
        gpus: GPUs of one replica.
        product: Product of the GPUs; None for any.
        storage_gb: Size of the installation's claim with the weights, GB.
        shared_by: Number of models that share the control plane, the load balancer and the storage.
    """

    replicas: float
    gpus: int
    product: str | None
    storage_gb: float
    shared_by: int = 1


class Item(Strict):
    """One line of a bill."""

    name: str
    usd_per_month: Range | None = Field(description="None: it has no price, and the total leaves it out.")


class Bill(Strict):
    """Monthly cost of a stack."""

    items: tuple[Item, ...]
    total: Range = Field(description="USD per month of all items with a price.")

    @property
    def unpriced(self) -> list[str]:
        """Names of the items that the total leaves out."""
        return [item.name for item in self.items if item.usd_per_month is None]


def bill(stack: Stack, prices: Prices, output_tokens: float | None = None) -> Bill:
    """Add up a stack.

    Args:
        stack: The stack.
        prices: The prices.
        output_tokens: Per month, for egress; None if unknown.

    Raises:
        BadInput: The GPU has no price.
    """
    share = 1 / stack.shared_by
    egress = None
    if prices.egress_gb is not None and output_tokens is not None:
        egress = prices.egress_gb * (output_tokens * prices.egress_bytes_per_token / 1e9)
    gpus = f"{stack.gpus} x {stack.product}" if stack.gpus else "no GPU"
    of_all = f", 1/{stack.shared_by}" if stack.shared_by > 1 else ""
    items = (
        Item(
            name=f"{stack.replicas:.3g} replicas, {gpus}",
            usd_per_month=prices.replica(stack.product, stack.gpus) * stack.replicas,
        ),
        Item(name=f"control plane{of_all}", usd_per_month=prices.control_plane * share),
        Item(
            name=f"storage, {stack.storage_gb:,.0f} GB{of_all}",
            usd_per_month=prices.storage_gb * (stack.storage_gb * share),
        ),
        Item(name=f"load balancer{of_all}", usd_per_month=prices.load_balancer * share),
        Item(name="egress", usd_per_month=egress),
    )
    amounts = [item.usd_per_month for item in items if item.usd_per_month is not None]
    return Bill(items=items, total=sum(amounts, Range(low=0, high=0)))
