"""The registry of alert targets: each kind has its module, and settings know no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmops.alerts import targets
from llmops.config.alerting import TARGET_KINDS
from llmops.config.settings import load_settings
from llmops.errors import BadInput


def test_each_kind_is_a_module_that_sends() -> None:
    modules = {path.stem for path in Path(targets.__file__).parent.glob("*.py")}
    assert modules - {"__init__", "message"} == set(TARGET_KINDS)
    for kind in TARGET_KINDS:
        assert callable(targets.target_of(kind).send)


def test_an_unknown_kind_is_refused_with_file_line_field_value_and_the_known_kinds(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("alerts:\n  - name: us\n    kind: pager\n    url: {name: s, key: k}\n")
    with pytest.raises(BadInput) as raised:
        load_settings(file)
    message = str(raised.value)
    assert f"{file}:3: alerts[0].kind" in message
    for word in ("'pager'", *(f"'{kind}'" for kind in TARGET_KINDS)):
        assert word in message
