"""Objects as YAML: the same bytes each time, and the same objects for every reader, Python or kubectl."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from llmops_sandbox.cluster.binaries import find_or_build_kubectl
from ruamel.yaml import YAML

from llmops.config.settings import Settings
from llmops.manifests.engine import objects
from llmops.manifests.text import as_yaml
from llmops.releases.release import Release

# Values of variables that some readers of YAML take for another type.
TREACHEROUS = [
    *("1e3", "0x1f", "0o17", "017", "0b11", "1e", "1_000", "1,000", "12:30:45", "2026-11-27", ".5", "+1", "-.inf"),
    *(".NaN", "y", "No", "off", "~", "=", "null", "<<", "", " x ", "a: b", "x: |", "#c", "- d", "*e", "&f", "!g", "%h"),
    *("@i", "{j}", "[k]", "|", "two\nlines", "two\nlines\n", "\n", "  indented\nx", "tab\there", "é😀", "\u2028"),
]


def note(values: dict[str, str]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": values}


@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.text(st.characters(exclude_categories=["Cs"]))))
def test_what_is_written_is_what_is_read(values: dict[str, str]) -> None:
    text = as_yaml([note(values)])
    assert yaml.safe_load(text) == note(values)


@pytest.mark.parametrize("value", TREACHEROUS)
def test_text_stays_text_to_readers_of_either_version(value: str) -> None:
    text = as_yaml([note({"x": value})])
    assert yaml.safe_load(text)["data"]["x"] == value
    assert YAML(typ="safe").load(text)["data"]["x"] == value


def test_kubectl_reads_the_same_text() -> None:
    values = {f"v{number}": value for number, value in enumerate(TREACHEROUS)}
    kubectl = str(find_or_build_kubectl())
    command = [kubectl, "label", "--local", "--filename=-", "--output=json", "read=by-kubectl"]
    done = subprocess.run(command, input=as_yaml([note(values)]), capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["data"] == values


def test_no_document_refers_to_another_place(release: Release, settings: Settings) -> None:
    shared = {"a": "b"}
    assert "&id" not in as_yaml([{"x": shared, "y": shared}])
    wanted = objects(release, settings, "stable", 2, surge=True)
    text = as_yaml(wanted)
    assert list(yaml.safe_load_all(text)) == wanted
    assert text == as_yaml(objects(release, settings, "stable", 2, surge=True))
