"""A command's module is imported when the command is called."""

from __future__ import annotations

import subprocess
import sys

import pytest

from llmops.cli.app import COMMANDS, LazyCommand, build

HEAVY = ("aiohttp", "dagster", "kubernetes", "llmops_sandbox", "matplotlib", "openai", "pydantic", "scipy")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_module_with_the_same_help(name: str) -> None:
    lazy = build().commands[name]
    assert isinstance(lazy, LazyCommand)
    command = lazy.load()
    assert command.name == name
    assert command.help == lazy.help == COMMANDS[name][1]


def test_help_imports_nothing_that_a_command_needs() -> None:
    program = f"""
import contextlib, io, sys
from llmops.cli.app import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main(["--help"])
print([name for name in {HEAVY} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_wrong_option_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    from llmops.cli.app import main

    with pytest.raises(SystemExit) as ended:
        main(["status", "--no-such-option"])
    assert ended.value.code == 2
    assert "--no-such-option" in capsys.readouterr().err
