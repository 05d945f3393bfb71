"""The package has few rooms, and each room few files."""

from __future__ import annotations

from pathlib import Path

import llmops

PACKAGE = Path(llmops.__file__).parent
ROOMS = 16
"""Most entries at the top of the package, without `__init__.py`."""
FILES = 15
"""Most modules in one folder."""


def modules(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.suffix == ".py"]


def test_the_top_has_few_entries() -> None:
    entries = {path.name for path in PACKAGE.iterdir()} - {"__init__.py", "__pycache__"}
    assert len(entries) <= ROOMS, sorted(entries)


def test_no_folder_has_many_files() -> None:
    folders = {PACKAGE, *(path.parent for path in PACKAGE.rglob("*.py"))}
    assert [folder for folder in sorted(folders) if len(modules(folder)) > FILES] == []


def test_every_folder_has_a_docstring() -> None:
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    silent = [folder for folder in folders if not (folder / "__init__.py").read_text().startswith('"""')]
    assert silent == []
