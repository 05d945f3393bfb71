"""llmops shows texts of engines, hubs and people literally: without markup and without control of the terminal."""

from __future__ import annotations

import datetime
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmops_sandbox.sandbox import Sandbox
from rich.console import Console

from llmops.cli import show
from llmops.cli.actions.revalidate import show_validation
from llmops.cli.findings import show_findings
from llmops.cli.queries.history import show_history
from llmops.config import names
from llmops.config.redaction import printable
from llmops.defs.console import console_logger
from llmops.preflight.finding import Finding
from llmops.releases.records import Record
from llmops.releases.validations import CheckResult, Validation, Validations
from llmops.releases.validations import Finding as Found
from tests.support.world import new_model

HOSTILE = "a [/INST] [bold]b[/bold] [link=http://x]c[/link] [red] :smile: \x1b[2J\x1b]8;;http://y\x07d\r\x9b2J\x7f"
SHOWN = r"a [/INST] [bold]b[/bold] [link=http://x]c[/link] [red] :smile: \x1b[2J\x1b]8;;http://y\x07d\x0d\x9b2J\x7f"
NOW = datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC)
RECORD = Record(
    model="tiny",
    release="r1",
    verdict="Failed",
    reason=HOSTILE,
    stage="canary",
    image=f"vllm/vllm-openai:v1@sha256:{'0' * 64}",
    commit="0" * 40,
    finished=NOW,
)
VALIDATION = Validation(
    model="tiny",
    release="r1",
    run="",
    requested_by="",
    started=NOW,
    finished=NOW,
    checks=(
        CheckResult(
            check="figures",
            value="Failed",
            line=HOSTILE,
            findings=(Found(subject=HOSTILE, severity="error", message=HOSTILE, remedy=HOSTILE),),
        ),
    ),
)
FINDING = Finding("error", HOSTILE, HOSTILE, HOSTILE, model="tiny")


def joined(text: str) -> str:
    """The text of a table, with the lines of its cells joined."""
    return re.sub(r"[\s│┃]+", "", text)


def harmless(text: str) -> bool:
    """Whether the text has no control characters for a terminal."""
    return not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)


@given(st.text())
def test_any_text_is_printable_and_one_without_control_characters_stays(text: str) -> None:
    assert harmless(printable(text))
    if harmless(text):
        assert printable(text) == text
    assert printable(printable(text)) == printable(text)


@pytest.mark.parametrize("terminal", [False, True])
def test_tables_and_lines_show_what_is_there(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    monkeypatch.setenv("COLUMNS", "2000")
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
        assert Console().is_terminal
    show_history([RECORD])
    show_validation(VALIDATION)
    show_findings([FINDING])
    show.table(("a", HOSTILE), [("b", HOSTILE)])
    show.say(HOSTILE)
    show.say(HOSTILE, "red", err=True)
    out, err = capsys.readouterr()
    # rich's own sequences set colours only.
    out, err = (re.sub(r"\x1b\[[0-9;]*m", "", text) for text in (out, err))
    assert harmless(out)
    assert harmless(err)
    # Of history 1, of the validation 3 (its subjects are not shown), of findings 3, of the table 2, of the line 1.
    assert joined(out).count(joined(SHOWN)) == 10
    assert err == f"{SHOWN}\n"


def test_the_log_of_a_run_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    logger = console_logger(dg.build_init_logger_context())
    assert isinstance(logger, logging.Logger)
    logger.warning("%s", HOSTILE)
    assert SHOWN in (log := capsys.readouterr().err)
    assert harmless(log)


def test_the_commands_show_records_of_all_models(sandbox: Sandbox, tmp_path: Path) -> None:
    with new_model(sandbox, tmp_path) as model:
        model.records.save_record(RECORD.model_copy(update={"model": model.name}))
        Validations(model.cluster).save(VALIDATION.model_copy(update={"model": model.name}))

        def llmops(*arguments: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-W", "ignore", "-m", "llmops.cli", "--settings", str(model.settings_file)]
            return subprocess.run(
                [*command, *arguments],
                capture_output=True,
                text=True,
                timeout=120,
                env={**os.environ, "COLUMNS": "2000"},
            )

        for command in (["status"], ["status", model.name], ["history", model.name]):
            answer = llmops(*command)
            assert answer.returncode == 0, answer.stderr
            assert joined(SHOWN) in joined(answer.stdout)
            assert harmless(answer.stdout + answer.stderr)
        history = llmops("history", model.name, "--json")
        assert json.loads(history.stdout)[0]["reason"] == HOSTILE
        assert harmless(history.stdout.replace("\x7f", "").replace("\x9b", ""))
        wrong = model.folder / "models" / "wrong.yaml"
        wrong.write_text(json.dumps({"name": "wrong", "weights": {"repo": HOSTILE}}))
        shown = llmops("status")
        assert shown.returncode == 0
        assert "wrong is left out" in shown.stderr
        assert harmless(shown.stdout + shown.stderr)
        refused = llmops("check")
        assert refused.returncode == 2
        assert "[/INST]" in refused.stderr
        assert harmless(refused.stderr)
        assert "Traceback" not in refused.stderr
        model.cluster.delete("ConfigMap", names.validation_name(model.name))
