"""Every file refuses NaN, infinities and numbers beyond all bounds in every number: no limit compares with them."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import hypothesis
import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from llmops.config.catalog.load import load_model
from llmops.config.catalog.spec import ModelSpec
from llmops.config.settings import Settings, load_settings
from llmops.config.tenants import Tenant, read_tenants
from llmops.costs.prices import DEFAULT, load_prices
from llmops.errors import BadInput
from llmops.evaluation.suites import load_suites
from tests.support.generation import instances
from tests.support.quoting import quoted_yaml

Place = tuple[str | int, ...]
NOT_FINITE = st.sampled_from([math.nan, math.inf, -math.inf])
PRICES: dict[str, Any] = yaml.safe_load(files("llmops.costs").joinpath(DEFAULT).read_text())
MODELS = instances(ModelSpec, {"name": st.just("it")})
TENANTS = instances(Tenant, {"name": st.just("it"), "models": st.just(["tiny"])})


def tenants(path: Path) -> object:
    return read_tenants(path.parent, {}, "llm-serving").all()


def suite(path: Path) -> object:
    return load_suites(path.parent, [path.stem])


SUITES: list[dict[str, Any]] = [
    {"kind": "quality", "scorer": "exact", "sampling": {"temperature": 0.5, "seed": 1}, "timeout_seconds": 9.0},
    {"kind": "load", "requests": 5, "rate": 2.0, "warmup_requests": 1, "timeout_seconds": 9.0, "seed": 3},
    {"kind": "tool", "tool": "lm-eval", "arguments": ["--tasks", "x"], "timeout_seconds": 9.0},
]
WRITTEN: dict[str, tuple[st.SearchStrategy[dict[str, Any]], Callable[[Path], object]]] = {
    "model": (MODELS.map(lambda spec: spec.model_dump(mode="json")), load_model),
    "tenant": (TENANTS.map(lambda tenant: tenant.model_dump(mode="json")), tenants),
    "settings": (st.just(Settings.model_validate({}).model_dump(mode="json")), load_settings),
    "prices": (st.just(PRICES), load_prices),
    "suite": (st.sampled_from(SUITES), suite),
}


def numbers(content: Any, place: Place = ()) -> Iterator[Place]:
    """Places of the numbers in a content."""
    if isinstance(content, dict):
        for key, value in cast(dict[str, Any], content).items():
            yield from numbers(value, (*place, key))
    elif isinstance(content, list):
        for index, value in enumerate(cast(list[Any], content)):
            yield from numbers(value, (*place, index))
    elif isinstance(content, int | float) and not isinstance(content, bool):
        yield place


def with_number(content: Any, place: Place, number: float) -> Any:
    """A copy with another number at that place."""
    changed = copy.deepcopy(content)
    holder = changed
    for part in place[:-1]:
        holder = holder[part]
    holder[place[-1]] = number
    return changed


def refusal(kind: str, data: st.DataObject, number: float) -> tuple[str, str]:
    """The message on a file with this number in the place of one of its own, and the name of that field."""
    contents, load = WRITTEN[kind]
    content = data.draw(contents)
    places = list(numbers(content))
    assume(places)
    place = data.draw(st.sampled_from(places))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "it.yaml"
        path.write_text(quoted_yaml(with_number(content, place, number)))
        path.with_suffix(".jsonl").write_text(json.dumps({"id": "a", "prompt": "?", "expected": "b", "answer": "b"}))
        with pytest.raises(BadInput) as raised:
            load(path)
    message = str(raised.value)
    assert str(path) in message
    return message, str(place[-1])


@pytest.mark.parametrize("kind", WRITTEN)
@given(data=st.data(), number=NOT_FINITE)
def test_a_file_with_a_number_that_is_not_finite_is_refused(kind: str, data: st.DataObject, number: float) -> None:
    message, field = refusal(kind, data, number)
    assert field in message
    assert f"ound {number!r}" in message


@pytest.mark.parametrize("kind", WRITTEN)
@hypothesis.settings(max_examples=15)
@given(data=st.data(), number=st.sampled_from([10**20, -(10**20), 2e12, 1e300, -1e300]))
def test_a_file_with_a_number_beyond_bounds_is_refused(kind: str, data: st.DataObject, number: float) -> None:
    message, field = refusal(kind, data, number)
    assert field in message


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize(
    ("scorer", "expected"), [("number", "{%s}"), ("number", '{"value": {%s}}'), ("json-schema", '{"const": {%s}}')]
)
def test_no_case_expects_a_number_that_is_not_finite(tmp_path: Path, scorer: str, expected: str, number: str) -> None:
    (tmp_path / "it.yaml").write_text(f"kind: quality\nscorer: {scorer}\n")
    case = f'{{"id": "a", "prompt": "?", "answer": "1", "expected": {expected.replace("{%s}", number)}}}'
    (tmp_path / "it.jsonl").write_text(case)
    with pytest.raises(BadInput, match=r"it\.jsonl:1: expected.*finite number"):
        load_suites(tmp_path, ["it"])
