"""The order of a Job, as files in ConfigMaps."""

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
from llmops.evaluation.fidelity.reference import Reference
from llmops.evaluation.suites import AnySuite

PART_BYTES = 512 << 10
"""Most bytes in one ConfigMap. It may hold 1 MiB; the API's encoding needs the rest."""
LONGEST = 64 << 20
"""Most bytes of an unpacked order."""
PART = "order-"
KEY_VARIABLES = ("LLMOPS_API_KEY", "LLMOPS_OTHER_API_KEY")


class Engine(Strict):
    """An engine as the Job reaches it. Its API key is in the Job's environment, never in the order."""

    base_url: str
    model: str
    key_variable: str | None = None

    def endpoint(self, environment: Mapping[str, str] = os.environ) -> Endpoint:
        """The engine with its key.

        Raises:
            BadInput: The variable with the key is not set, or its value is no key.
        """
        if self.key_variable is None:
            return Endpoint(self.base_url, self.model)
        if not (key := environment.get(self.key_variable)):
            raise BadInput(
                f"{self.model} at {self.base_url}: the variable {self.key_variable} with its API key is not set",
                code="CredentialsMissing",
                about=self.model,
            )
        return Endpoint(self.base_url, self.model, as_header(key, f"the API key in {self.key_variable}"))


class Order(Strict):
    """One piece of work.

    Args:
        version: The version of llmops that wrote it. Another version may measure in another way.
        task: measure and compare run the suites; prove asks for a first completion; watch asks for a while; recognize
            lets each replica score the reference.
        engine: The engine to measure or prove.
        other: The engine to compare it with.
        suites: The suites to run.
        evaluation: How to run them.
        replicas: recognize: the base URL of each replica of the engine.
        reference: recognize: what the replicas score.
        seconds: prove: how long the engine may be out of reach; watch: how long to ask.
    """

    version: str = __version__
    task: Literal["measure", "compare", "prove", "watch", "recognize"]
    engine: Engine
    other: Engine | None = None
    suites: tuple[AnySuite, ...] = ()
    evaluation: Evaluation = Evaluation()
    replicas: tuple[str, ...] = ()
    reference: Reference | None = None
    seconds: Annotated[float, Field(ge=0)] = 0


def pack(order: Order) -> list[tuple[str, bytes]]:
    """The order as files, each small enough for one ConfigMap."""
    content = zlib.compress(order.model_dump_json().encode())
    parts = [content[start : start + PART_BYTES] for start in range(0, len(content), PART_BYTES)]
    return [(f"{PART}{index:03}", part) for index, part in enumerate(parts)]


def unpack(parts: Iterable[tuple[str, bytes]]) -> Order:
    """The order from its files, in any sequence.

    Raises:
        BadInput: A part is missing or wrong, or another version of llmops wrote it.
    """
    content = b"".join(part for _, part in sorted(parts))
    unpacking = zlib.decompressobj()
    try:
        text = unpacking.decompress(content, LONGEST)
    except zlib.error as error:
        raise BadInput(f"the order cannot be unpacked: {error}", code="OrderDamaged") from error
    if not unpacking.eof:
        raise BadInput(f"the order is cut off, or longer than {LONGEST} bytes", code="OrderDamaged")
    try:
        order = Order.model_validate_json(text)
    except ValidationError as error:
        raise BadInput(
            f"llmops {__version__} cannot read the order: {error}",
            code="OtherVersion",
            remedy="Set evaluation_image to the image of the version that runs the stages.",
        ) from error
    if order.version != __version__:
        raise BadInput(
            f"the order is of llmops {order.version}, and this is {__version__}",
            code="OtherVersion",
            remedy="Set evaluation_image to the image of the version that runs the stages.",
        )
    return order
