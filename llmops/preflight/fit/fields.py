"""Typed reading of a `config.json`, which may hold anything, with the defaults of the library that reads it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, cast

from llmops.errors import LlmopsError

LARGEST = 2**40
"""No count, width or length of a model is larger; a larger number is a mistake or an attack."""
MOST_LAYERS = 10_000
TEXT_PARTS = ("text_config", "llm_config", "language_config")
"""Where models that see or hear keep the configuration of their text model."""
INNER_TYPES = {"gemma3": "gemma3_text", "gemma3n": "gemma3n_text", "llama4": "llama4_text"}
"""Type of the text model where its part names none: the classes of transformers know it."""
DEFAULTS = "library_defaults.json"
SHOWN = 40
"""Characters of a foreign text in a message."""


class UnknownShape(LlmopsError):
    """llmops cannot calculate the memory of such a model; the message says why."""


@dataclass(frozen=True)
class Fields:
    """The configuration of a text model.

    Args:
        text: The part of `config.json` for the text model.
        defaults: Values of fields that the file leaves out, by the class that reads it.
        names: Other names of fields, by the class that reads it (`attribute_map`).
    """

    text: Mapping[str, Any]
    defaults: Mapping[str, Any]
    names: Mapping[str, str]

    @property
    def kind(self) -> str:
        """`model_type`; empty if the file has none."""
        value = self.text.get("model_type")
        return value if isinstance(value, str) else ""

    def value(self, name: str) -> Any:
        """The field as the library would see it; None if neither the file nor the library has it."""
        for present in (name, self.names.get(name, name)):
            if present in self.text:
                return self.text[present]
        return self.defaults.get(name, self.defaults.get(self.names.get(name, name)))

    def number(self, name: str, limit: int = LARGEST) -> int | None:
        """A positive whole number; None if there is none, or it is null.

        Raises:
            UnknownShape: The field is something else.
        """
        value = self.value(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= limit:
            raise UnknownShape(f"its {name} in config.json is {shown(value)}", about=name)
        return value

    def whole(self, name: str, limit: int = LARGEST) -> int:
        """A positive whole number that the model cannot be without.

        Raises:
            UnknownShape: The field is missing, or something else.
        """
        value = self.number(name, limit)
        if value is None:
            raise UnknownShape(f"config.json has no {name}", about=name)
        return value

    def count(self, name: str) -> int:
        """A whole number, 0 if there is none.

        Raises:
            UnknownShape: The field is something else.
        """
        return 0 if self.value(name) in (None, 0, False) else self.whole(name)

    def flag(self, name: str) -> bool:
        """Whether the field is true; False if there is none.

        Raises:
            UnknownShape: The field is something else.
        """
        value = self.value(name)
        if value is not None and not isinstance(value, bool):
            raise UnknownShape(f"its {name} in config.json is {shown(value)}", about=name)
        return bool(value)

    def sequence(self, name: str) -> Sequence[Any] | None:
        """A list; None if there is none, or it is null.

        Raises:
            UnknownShape: The field is something else.
        """
        value = self.value(name)
        if value is not None and not isinstance(value, list | tuple):
            raise UnknownShape(f"its {name} in config.json is {shown(value)}", about=name)
        return cast("Sequence[Any] | None", value)

    def layers(self) -> int:
        """Number of layers.

        Raises:
            UnknownShape: The file does not say.
        """
        return self.whole("num_hidden_layers", MOST_LAYERS)

    def rope(self) -> Iterator[Mapping[str, Any]]:
        """Each set of parameters of the position embedding: one for all layers, or one for each kind of layer."""
        scaling = self.value("rope_scaling") or self.value("rope_parameters")
        if not isinstance(scaling, Mapping):
            return
        parameters = cast("Mapping[str, Any]", scaling)
        nested = [cast("Mapping[str, Any]", part) for part in parameters.values() if isinstance(part, Mapping)]
        yield from nested if nested and len(nested) == len(parameters) else (parameters,)


def fields_of(config: Mapping[str, Any]) -> Fields:
    """The text model's configuration in a `config.json`."""
    text = text_of(config)
    kind, outer = text.get("model_type"), config.get("model_type")
    if text is not config and kind is None and isinstance(outer, str) and outer in INNER_TYPES:
        kind = INNER_TYPES[outer]
        text = {**text, "model_type": kind}
    library = _library().get(kind, {}) if isinstance(kind, str) else {}
    return Fields(text, library.get("defaults", {}), library.get("names", {}))


def text_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a `config.json` for the text model."""
    parts = (config.get(name) for name in TEXT_PARTS)
    return next((cast("Mapping[str, Any]", part) for part in parts if isinstance(part, Mapping) and part), config)


def shown(value: object) -> str:
    """A value of a foreign file, short enough for a message."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, str):
        return repr(value if len(value) <= SHOWN else f"{value[:SHOWN]}...")
    return "a very large number" if isinstance(value, int) and abs(value) > LARGEST else repr(value)


@cache
def _library() -> Mapping[str, Mapping[str, Any]]:
    """Defaults by `model_type`; `tests/opt_in/vllm/library_defaults.py` makes the file."""
    content = json.loads((files("llmops.preflight.fit") / DEFAULTS).read_text(encoding="utf-8"))
    return cast("Mapping[str, Mapping[str, Any]]", content["models"])
