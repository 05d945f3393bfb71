"""Finds the files of a published folder that have to be downloaded again."""

from __future__ import annotations

import shutil
from pathlib import Path

from llmops.worker.checksum import Reading, Shard, checksum
from llmops.worker.pins import FilePin, Pins
from llmops.worker.report import emit


def set_aside(target: Path, pins: Pins, reading: Reading) -> list[FilePin]:
    """Compare each file with its pin, remove files that are not pinned, and return the wrong files.

    Wrong files stay until they are replaced: an engine may have one open. Only extra files, which an engine could
    load, and folders in the place of files are removed.

    Args:
        target: The folder.
        pins: The files that the folder must have, and no others.
        reading: How to read the files.

    Raises:
        OSError: The volume cannot be read or written.
    """
    problems = {problem.path: problem for problem in checksum(target, pins, Shard(), reading, record=False).problems}
    pinned = {file.path for file in pins.files}
    for path, problem in problems.items():
        if path not in pinned or (target / path).is_dir():
            _remove(target / path)
        emit("wrong", path=path, kind=problem.kind, expected=problem.expected, found=problem.found)
    return [file for file in pins.files if file.path in problems]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
