"""A damaged results file gives an error, or only figures that the whole file has, too."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmops.errors import MeasurementFailed
from llmops.evaluation.formats import TOOLS, ToolName
from llmops.evaluation.formats.reading import Files
from tests.unit.formats.conftest import DATA

FOLDERS: dict[str, ToolName] = {
    "lm-eval-0.4.13/one-task": "lm-eval",
    "inspect-ai-0.3.285/json": "inspect-ai",
    "inspect-ai-0.3.285/eval": "inspect-ai",
    "promptfoo-0.121.20/good": "promptfoo",
    "vllm-bench-0.32.0/good": "vllm-bench",
    "guidellm-0.8.1/good": "guidellm",
}
JUNK = st.sampled_from([None, "x", "NaN", [], {}, True, float("nan"), float("inf"), -1, 2, 1e308])
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@cache
def files_of(folder: str) -> Files:
    return {path.name: path.read_bytes() for path in sorted((DATA / folder).iterdir())}


@cache
def whole(folder: str) -> Any:
    return TOOLS[FOLDERS[folder]].parse(files_of(folder))


def places(node: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every place in a JSON document but its root."""
    children: Any = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in children:
        yield (*path, key)
        yield from places(value, (*path, key))


@cache
def places_of(folder: str) -> list[tuple[str | int, ...]]:
    """Places in the results file, those near its root as likely as the many far below."""
    every = list(places(json.loads(files_of(folder)[main_file(folder)])))
    shallow = [place for place in every if len(place) <= 3]
    return every + shallow * (1 + len(every) // max(1, len(shallow)))


def main_file(folder: str) -> str:
    return next(name for name in files_of(folder) if not name.startswith("samples_"))


def damage(folder: str, place: tuple[str | int, ...], change: Callable[[Any, str | int], None]) -> Files:
    name = main_file(folder)
    content = json.loads(files_of(folder)[name])
    node: Any = content
    for key in place[:-1]:
        node = node[key]
    change(node, place[-1])
    return {**files_of(folder), name: json.dumps(content).encode()}


def check(folder: str, files: Files) -> None:
    """The damaged files give an error, or figures that the whole files have, too."""
    try:
        reading = TOOLS[FOLDERS[folder]].parse(files)
    except MeasurementFailed:
        return
    expected = whole(folder)
    for name, value in reading.figures.items():
        assert value == pytest.approx(expected.figures.get(name)), name
    for name, scores in reading.scores.items():
        # The damage may rename a case.
        assert sorted(scores.values()) == sorted(expected.scores[name].values()), name
    assert reading.cases == expected.cases


@pytest.mark.parametrize("folder", FOLDERS)
@given(data=st.data())
@QUICK
def test_a_file_that_is_cut_off_gives_no_figure(folder: str, data: st.DataObject) -> None:
    files = files_of(folder)
    name = data.draw(st.sampled_from(sorted(files)))
    kept = data.draw(st.integers(0, len(files[name].rstrip()) - 1))
    with pytest.raises(MeasurementFailed):
        TOOLS[FOLDERS[folder]].parse({**files, name: files[name][:kept]})


@pytest.mark.parametrize("folder", [folder for folder in FOLDERS if not folder.endswith("/eval")])
@given(data=st.data())
@QUICK
def test_a_file_in_which_something_is_missing_gives_no_other_figure(folder: str, data: st.DataObject) -> None:
    place = data.draw(st.sampled_from(places_of(folder)))

    def remove(node: Any, key: str | int) -> None:
        del node[key]

    check(folder, damage(folder, place, remove))


@pytest.mark.parametrize("folder", [folder for folder in FOLDERS if not folder.endswith("/eval")])
@given(data=st.data())
@QUICK
def test_a_file_in_which_something_is_of_another_kind_gives_no_other_figure(folder: str, data: st.DataObject) -> None:
    damaged = [place for place in places_of(folder) if not is_number(folder, place) and not names_a_figure(place)]
    place = data.draw(st.sampled_from(damaged))
    junk = data.draw(JUNK)

    def replace(node: Any, key: str | int) -> None:
        node[key] = junk

    check(folder, damage(folder, place, replace))


def is_number(folder: str, place: tuple[str | int, ...]) -> bool:
    """A number that becomes another number is a measurement, if nothing contradicts it."""
    node: Any = document(folder)
    for key in place:
        node = node[key]
    return isinstance(node, int | float) and not isinstance(node, bool)


def names_a_figure(place: tuple[str | int, ...]) -> bool:
    """A score of inspect-ai that has another name is another figure."""
    return place[:2] == ("results", "scores") and place[-1] == "name"


@cache
def document(folder: str) -> Any:
    return json.loads(files_of(folder)[main_file(folder)])


@pytest.mark.parametrize("folder", [folder for folder in FOLDERS if not folder.endswith("/eval")])
@given(data=st.data())
@QUICK
def test_a_number_that_is_none_gives_no_other_figure(folder: str, data: st.DataObject) -> None:
    place = data.draw(st.sampled_from([place for place in places_of(folder) if is_number(folder, place)]))
    junk = data.draw(st.sampled_from([None, "x", float("nan"), float("inf"), [], {}]))

    def replace(node: Any, key: str | int) -> None:
        node[key] = junk

    check(folder, damage(folder, place, replace))


@given(content=st.binary(max_size=200))
@QUICK
def test_any_bytes_are_refused(content: bytes) -> None:
    for tool in TOOLS.values():
        with pytest.raises(MeasurementFailed):
            tool.parse({"results_2026-11-25T00-00-00.json": content})
