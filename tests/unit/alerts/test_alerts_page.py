"""docs/guides/alerts.md describes alerts as llmops sends them, and its examples work."""

from __future__ import annotations

import datetime
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from llmops.alerts.delivery import GIVEN_UP_AFTER
from llmops.alerts.outbox import KEPT, KEPT_ALERTS, LINE_LENGTH, Alert
from llmops.alerts.posting import ANSWER_SECONDS
from llmops.alerts.signing import parse_key, signed_headers
from llmops.alerts.targets import webhook
from llmops.config.alerting import ALERT_KINDS, SEVERITIES
from llmops.config.settings import Settings
from llmops.defs.alerts.sensors import DELIVERY_SECONDS
from llmops.service.figures import Figures
from llmops.service.metrics import FiguresCollector
from tests.api.alerts.conftest import KEY

PAGE = (Path(__file__).parents[3] / "docs" / "guides" / "alerts.md").read_text()


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_example_of_a_receiver_verifies() -> None:
    code = PAGE.partition("<!-- verify -->\n```python\n")[2].partition("```")[0]
    made: dict[str, Any] = {}
    exec(code, made)
    verify, now, body = made["verify"], int(time.time()), b'{"type":"llmops.rejected"}'
    headers = signed_headers(parse_key(KEY), "5f0c8f3f7a1d4b6e9c2a", now, body)
    assert verify(KEY, headers, body)
    assert not verify(KEY, headers, body + b" ")
    assert not verify(KEY, headers | {"webhook-id": "another"}, body)
    assert not verify(KEY, signed_headers(parse_key(KEY), "5f0c", now - 301, body), body)
    assert not verify(KEY, signed_headers(bytes(32), "5f0c", now, body), body)


def test_the_example_of_a_key_makes_one(capsys: pytest.CaptureFixture[str]) -> None:
    exec(blocks("python")[0], {})
    assert len(parse_key(capsys.readouterr().out.strip())) == 32


def test_the_examples_settings_are_settings() -> None:
    settings = Settings.model_validate(YAML(typ="safe").load(blocks("yaml")[0]))
    assert [target.kind for target in settings.alerts] == ["slack", "webhook", "apprise"]


def test_the_example_of_a_body_is_one() -> None:
    shown = json.loads(blocks("json")[0])
    settings = Settings.model_validate(YAML(typ="safe").load(blocks("yaml")[0]))
    data = {key: value for key, value in shown["data"].items() if key not in ("text", "run_url", "report_url")}
    alert = Alert.model_validate(data | {"at": datetime.datetime.fromisoformat(shown["timestamp"])})
    assert json.loads(webhook.content(alert, settings)) == shown


def test_every_alert_kind_and_metric_is_in_a_table() -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \| (\w+)", PAGE, re.MULTILINE)
    documented = {name for name, _ in rows}
    assert set(ALERT_KINDS) <= documented
    nothing = Figures(frozenset(), {}, {}, {}, frozenset(), {})
    families = {
        f"{family.name}_total" if family.type == "counter" else family.name: family.type
        for family in FiguresCollector(nothing).collect()
    }
    assert {name: kind for name, kind in rows if name.startswith("llmops_")} == families
    assert all(f"`{severity}`" in PAGE for severity in SEVERITIES)


def test_the_numbers_are_those_of_the_code() -> None:
    assert f"every {DELIVERY_SECONDS} seconds" in PAGE
    assert f"within {ANSWER_SECONDS:g} seconds" in PAGE
    assert f"at most {LINE_LENGTH} characters" in PAGE
    assert (GIVEN_UP_AFTER.days, KEPT.days, KEPT_ALERTS) == (1, 7, 1000)
