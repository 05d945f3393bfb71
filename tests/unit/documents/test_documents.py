"""Files, settings, commands and targets that the documents name exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from llmops.cli.app import LazyCommand, build
from llmops.config.settings import Settings

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PLACEHOLDERS = {"MODEL": "m", "RELEASE": "0123456789ab", "FILE": "f", "V": "0.1", "R": "main", "PORT": "8080", "N": "3"}


def commands(page: Path) -> list[str]:
    """Lines of the page's command blocks, continued lines joined, comments and prompts gone."""
    blocks = [text for kind, text in BLOCK.findall(page.read_text()) if kind in ("", "sh", "bash", "console")]
    text = "\n".join(blocks).replace("\\\n", " ")
    lines = (re.sub(r"\s#.*", "", line).strip().removeprefix("$ ") for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def named(program: str) -> list[tuple[str, str]]:
    return [(page.name, line) for page in PAGES for line in commands(page) if line.split()[0] == program]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text()) if not re.match(r"[a-z]+:", link)]
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_setting_has_a_row() -> None:
    rows = (
        line for line in (ROOT / "docs" / "start" / "cluster.md").read_text().splitlines() if line.startswith("| `")
    )
    assert set(Settings.model_fields) == {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}


@pytest.mark.parametrize(("page", "line"), named("llmops"))
def test_every_command_of_llmops_exists(page: str, line: str) -> None:
    # Brackets mark optional words; the test passes all of them.
    words = [PLACEHOLDERS.get(word, word) for word in shlex.split(re.sub(r"[\[\]]", "", line))][1:]
    # Typer's copy of click has no public name, so commands have no type here.
    command: Any = build()
    context = None
    while hasattr(command, "commands"):
        context = command.make_context(command.name, list(words), parent=context, resilient_parsing=True)
        left = [word for word in words if not word.startswith("-")]
        assert left, f"{page}: {line}: names no command"
        assert left[0] in command.commands, f"{page}: {line}: there is no command {left[0]}"
        command, words = command.commands[left[0]], words[words.index(left[0]) + 1 :]
        command = command.load() if isinstance(command, LazyCommand) else command
    try:
        command.make_context(command.name, words, parent=context)
    except Exception as error:  # noqa: BLE001 - usage errors are of a class without a public name
        pytest.fail(f"{page}: {line}: {error}")


@pytest.mark.parametrize(("page", "line"), named("make"))
def test_every_target_of_make_exists(page: str, line: str) -> None:
    targets = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert line.split()[1] in targets, page
