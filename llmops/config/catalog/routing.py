"""How the router treats a model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Annotated

from pydantic import Field

from llmops.config import names
from llmops.config.catalog.known import not_known
from llmops.config.schema import Problem, Strict
from llmops.config.settings.router import Managed, ModelName


class Routing(Strict):
    """A model behind the router. Not part of the release."""

    aliases: tuple[ModelName, ...] = Field(default=(), description="Further names of the model at the router.")
    fallbacks: tuple[str, ...] = Field(
        default=(), description="Models that answer, in this order, while no engine of this one does."
    )
    managed: tuple[Managed, ...] = Field(
        default=(), description="The same model at providers of managed inference, after the fallbacks."
    )
    timeout_seconds: Annotated[int, Field(ge=1)] = Field(
        default=600, description="Longest wait for an engine's answer, or for the next part of a stream."
    )


def routing_check(models: Collection[str]) -> Callable[[str, Routing], Iterator[Problem]]:
    """A check of each entry's routing against the other entries.

    Args:
        models: Names of all models.
    """
    owners = {model: model for model in models}

    def check(model: str, routing: Routing) -> Iterator[Problem]:
        if model == names.ROUTER:
            yield ("name",), "is the router's own name"
        for index, alias in enumerate(routing.aliases):
            if (other := owners.get(alias)) is not None:
                owner = f"the name of model {other}" if alias in models else f"an alias of model {other}"
                yield ("routing", "aliases", index), f"is {alias!r}, {owner}: the router could not tell them apart"
            owners.setdefault(alias, model)
        for index, name in enumerate(routing.fallbacks):
            if name == model:
                yield ("routing", "fallbacks", index), "is the model itself"
            elif name not in models:
                yield ("routing", "fallbacks", index), not_known(name, sorted(models))

    return check
