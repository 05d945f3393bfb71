"""What a Job is told to do, as files that ConfigMaps hold."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from llmops import __version__
from llmops.config.catalog.spec import Evaluation, Strict
from llmops.config.redaction import as_header
from llmops.errors import BadInput
from llmops.evaluation.endpoint import Endpoint
from llmops.evaluation.suites import AnySuite

PART_BYTES = 512 << 10
"""Of one ConfigMap, which may hold 1 MiB; the rest is for what the API adds when it encodes it."""
LONGEST = 64 << 20
"""Bytes of an order. What unpacks to more is not one of ours."""
PART = "order-"
KEY_VARIABLES = ("LLMOPS_API_KEY", "LLMOPS_OTHER_API_KEY")


class Engine(Strict):
    """An engine as the Job reaches it; its API key is in the environment, and never here."""

    base_url: str
    model: str
    key_variable: str | None = None

    def endpoint(self, environment: Mapping[str, str] = os.environ) -> Endpoint:
        """The engine with its key.

        Raises:
            BadInput: The variable with the key is not there, or what it holds is no key.
        """
        if self.key_variable is None:
            return Endpoint(self.base_url, self.model)
        if not (key := environment.get(self.key_variable)):
            raise BadInput(f"{self.model} at {self.base_url}: its API key is not in {self.key_variable}")
        return Endpoint(self.base_url, self.model, as_header(key, f"the API key in {self.key_variable}"))


class Order(Strict):
    """One piece of work.

    Args:
        version: Of llmops that wrote it: another one may measure in another way.
        task: measure and compare run the suites; prove asks for a first completion; watch goes on asking.
        engine: What is measured or proven.
        other: What it is compared with.
        suites: To run.
        evaluation: How they are run.
        seconds: prove: for how long the engine may be out of reach; watch: how long to go on.
    """

    version: str = __version__
    task: Literal["measure", "compare", "prove", "watch"]
    engine: Engine
    other: Engine | None = None
    suites: tuple[AnySuite, ...] = ()
    evaluation: Evaluation = Evaluation()
    seconds: Annotated[float, Field(ge=0)] = 0


def pack(order: Order) -> list[tuple[str, bytes]]:
    """The order as files, each small enough for a ConfigMap of its own."""
    content = zlib.compress(order.model_dump_json().encode())
    parts = [content[start : start + PART_BYTES] for start in range(0, len(content), PART_BYTES)]
    return [(f"{PART}{index:03}", part) for index, part in enumerate(parts)]


def unpack(parts: Iterable[tuple[str, bytes]]) -> Order:
    """The order out of its files, in whatever sequence they come.

    Raises:
        BadInput: A part is missing or wrong, or another version of llmops wrote it.
    """
    content = b"".join(part for _, part in sorted(parts))
    unpacking = zlib.decompressobj()
    try:
        text = unpacking.decompress(content, LONGEST)
    except zlib.error as error:
        raise BadInput(f"the order cannot be unpacked: {error}") from error
    if not unpacking.eof:
        raise BadInput(f"the order is cut off, or longer than {LONGEST} bytes")
    try:
        order = Order.model_validate_json(text)
    except ValidationError as error:
        raise BadInput(
            f"llmops {__version__} does not understand the order: {error}",
            remedy="Set evaluation_image to the image of the version that runs the stages.",
        ) from error
    if order.version != __version__:
        raise BadInput(
            f"the order is of llmops {order.version}, and this is {__version__}",
            remedy="Set evaluation_image to the image of the version that runs the stages.",
        )
    return order
