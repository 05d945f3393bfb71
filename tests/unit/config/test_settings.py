"""Settings: an empty file is all defaults, and each mistake has line, field and value. The subject is the wording."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmops.config.settings import Settings, load_settings
from llmops.errors import BadInput


def write(folder: Path, text: str) -> Path:
    path = folder / "settings.conf"
    path.write_text(text)
    return path


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "---\n", "~\n", "{}\n"])
def test_an_empty_file_is_all_defaults(tmp_path: Path, text: str) -> None:
    assert load_settings(write(tmp_path, text)) == Settings.model_validate({})


def test_json_is_yaml(tmp_path: Path) -> None:
    assert load_settings(write(tmp_path, '{"namespace": "here",\n\t"history_limit": 3}')).history_limit == 3


def test_all_mistakes_come_at_once_with_line_field_and_value(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "namespace: 12\n"
        "storage_clas: fast\n"
        "alerts:\n"
        "  - name: team\n"
        "    kind: webhook\n"
        "    url: {name: alerts, key: url}\n"
        "network:\n"
        "  pipeline:\n"
        "    - cidr: 10.0.0.0/99\n"
        "prices: 3\n",
    )
    with pytest.raises(BadInput) as raised:
        load_settings(path)
    assert (raised.value.code, raised.value.about) == ("InvalidFile", f"{path}:1: namespace")
    lines = [line.removeprefix(f"{path}:") for line in raised.value.message.splitlines()]
    starts = (
        "1: namespace: must be a text (found 12); put it in quotes",
        "2: storage_clas: is not a field; did you mean storage_class? Allowed: access, alerts",
        "4: alerts[0]: signing_key is for kind webhook, and that needs one",
        "9: network.pipeline[0].cidr: ",
        "10: prices: must be a path (found 3); put it in quotes",
    )
    assert len(lines) == len(starts), lines
    for line, start in zip(lines, starts, strict=True):
        assert line.startswith(start), line
    assert "'10.0.0.0/99'" in lines[3]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("a: b: c\n", "1: is not valid YAML"),
        ("- namespace\n", "1: must be a mapping of fields to values"),
        ("namespace: a\nnamespace: b\n", "2: namespace: is given twice, first in line 1"),
        ("stuck_after_hours: 1:30\n", "1: stuck_after_hours: must be a number"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, mistake: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(BadInput) as raised:
        load_settings(path)
    assert raised.value.code == "InvalidFile"
    assert raised.value.message.startswith(f"{path}:{mistake}")


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as raised:
        load_settings(tmp_path / "none.yaml")
    assert (raised.value.code, raised.value.about) == ("InvalidFile", f"{tmp_path / 'none.yaml'}:1")
