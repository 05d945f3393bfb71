"""How the router in front of all models treats one of them."""

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

    aliases: tuple[ModelName, ...] = Field(default=(), description="Further names that users may ask for it by.")
    fallbacks: tuple[str, ...] = Field(
        default=(), description="Models that answer instead, in this order, while no engine of this one does."
    )
    managed: tuple[Managed, ...] = Field(
        default=(), description="The same model at providers of managed inference, asked after the fallbacks."
    )
    timeout_seconds: Annotated[int, Field(ge=1)] = Field(
        default=600, description="Within which an engine has to answer; of a stream, each part of its answer."
    )


def routing_check(models: Collection[str]) -> Callable[[str, Routing], Iterator[Problem]]:
    """What tells, of one entry after the other, what is wrong with its routing in the company of the others.

    Args:
        models: Names of all models.
    """
    owners = {model: model for model in models}

    def check(model: str, routing: Routing) -> Iterator[Problem]:
        if model == names.ROUTER:
            yield ("name",), "is the router's own name"
        for index, alias in enumerate(routing.aliases):
            if (other := owners.get(alias)) is not None:
                what = f"the name of model {other}" if alias in models else f"an alias of model {other}"
                yield ("routing", "aliases", index), f"is {alias!r}, which is {what}: nobody could tell who answers"
            owners.setdefault(alias, model)
        for index, name in enumerate(routing.fallbacks):
            if name == model:
                yield ("routing", "fallbacks", index), "is the model itself"
            elif name not in models:
                yield ("routing", "fallbacks", index), not_known(name, sorted(models))

    return check
