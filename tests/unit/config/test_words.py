"""Every field of what people write, with a value of every wrong kind: the message is ours, and says what is right."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError

from llmops.config.catalog.spec import ModelSpec
from llmops.config.loading import explain
from llmops.config.settings import Settings
from llmops.config.tenants import Tenant
from llmops.costs.prices import Prices
from llmops.evaluation.suites import LoadProfile, Suite, ToolSuite

WRONG: tuple[Any, ...] = (
    None,
    True,
    7,
    -1,
    0,
    1.5,
    1e300,
    float("nan"),
    10**30,
    "",
    " x ",
    "x" * 300,
    [],
    ["x"],
    [[]],
    [{}],
    [None],
    {},
    {"x": 1},
    {"x": {}},
    {"name": 5, "key": []},
    {5: 1},
    datetime.date(2026, 1, 2),
    b"x",
)
# Pydantic's sentences, by what all of them have; and names of Python's.
FOREIGN = re.compile(
    r"[Ii]nput (is|should)|should|valid (string|dictionary|integer|number|boolean|tuple|list)|instance of|<class"
    r"|pydantic|NoneType"
    r"|\b(str|dict|tuple)\b|Traceback|Value error|has a value that is not allowed here"
)


def places(model: type[BaseModel], above: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    for name, field in model.model_fields.items():
        yield (*above, name)
        for part, inner in models(field.annotation):
            yield from places(inner, (*above, name, *part))


def models(annotation: Any) -> Iterator[tuple[tuple[int, ...], type[BaseModel]]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield (), annotation
    for part in get_args(annotation):
        index = (0,) if getattr(annotation, "__origin__", None) in (tuple, list) else ()
        yield from (((*index, *path), model) for path, model in models(part))


def content(place: tuple[str | int, ...], value: Any) -> Any:
    for part in reversed(place):
        value = [value] if isinstance(part, int) else {part: value}
    return value


@pytest.mark.parametrize("model", [ModelSpec, Settings, Tenant, Prices, Suite, LoadProfile, ToolSuite])
def test_no_sentence_of_a_library_reaches_people(model: type[BaseModel], tmp_path: Path) -> None:
    problems = 0
    for place in places(model):
        for value in WRONG:
            try:
                model.model_validate(content(place, value), context={"folder": tmp_path})
            except ValidationError as error:
                for _, message in explain(error, model):
                    problems += 1
                    # What is found, and the description of the field, may have any words.
                    words = re.sub(r" \(found .*| is not a field; .*|: [A-Z].*", "", message, flags=re.DOTALL)
                    assert not FOREIGN.search(words), (place, value, message)
    assert problems > 100


def test_a_text_where_a_mapping_belongs_is_told_the_fields() -> None:
    with pytest.raises(ValidationError) as raised:
        Settings.model_validate({"alerts": [{"name": "a", "kind": "slack", "url": "https://x"}]})
    assert list(explain(raised.value, Settings)) == [
        (("alerts", 0, "url"), "must be a mapping with at least name and key (found 'https://x')")
    ]
