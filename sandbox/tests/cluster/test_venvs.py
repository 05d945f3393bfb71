"""Environments of real programs: a step that fails names the program and shows its output; a finished one is kept."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from llmops_sandbox.programs.venvs import Venv, read_requirements

from llmops.errors import ClusterCannot


def test_a_failed_step_names_the_program_and_shows_the_end_of_its_output(tmp_path: Path) -> None:
    venv = Venv(tmp_path, "LiteLLM", "PyPI")
    with pytest.raises(ClusterCannot) as raised:
        venv.run("packages", sys.executable, "-c", "print('no such wheel'); raise SystemExit(3)")
    assert (raised.value.code, raised.value.about) == ("InstallationFailed", "LiteLLM")
    assert "packages ended with exit code 3:\nno such wheel" in raised.value.message
    assert str(tmp_path / "install.log") in raised.value.remedy


def test_a_step_runs_without_the_checkouts_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    program = "import os; raise SystemExit('PYTHONPATH' in os.environ)"
    Venv(tmp_path, "LiteLLM", "PyPI").run("packages", sys.executable, "-c", program)


def test_a_mark_holds_for_the_content_that_it_was_made_of(tmp_path: Path) -> None:
    venv = Venv(tmp_path / "litellm", "LiteLLM", "PyPI")
    assert not venv.has("made", b"a==1")
    with venv.locked():
        venv.mark("made", b"a==1")
    assert venv.has("made", b"a==1")
    assert not venv.has("made", b"a==2")


def test_requirements_are_those_of_a_checkout(tmp_path: Path) -> None:
    with pytest.raises(ClusterCannot) as raised:
        read_requirements(tmp_path / "requirements.txt")
    assert (raised.value.code, raised.value.about) == ("CheckoutMissing", str(tmp_path / "requirements.txt"))
