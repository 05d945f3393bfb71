"""What has to be fetched again of a folder of weights that a check found wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

from llmops.worker.checksum import Reading, Shard, checksum
from llmops.worker.pins import FilePin, Pins
from llmops.worker.report import emit


def set_aside(target: Path, pins: Pins, reading: Reading) -> list[FilePin]:
    """Compare every file with its pin, remove what no pin names, and tell which files are wrong.

    Wrong files stay until they are replaced: an engine that has one open goes on with what it has read. Removed is
    only what could be loaded by mistake, and what stands in the way of a file.

    Args:
        target: The folder.
        pins: The files that have to be there, and no others.
        reading: How to read them.

    Raises:
        OSError: The volume cannot be read or written.
    """
    found = {problem.path: problem for problem in checksum(target, pins, Shard(), reading, record=False).problems}
    pinned = {file.path for file in pins.files}
    for path, problem in found.items():
        if path not in pinned or (target / path).is_dir():
            _remove(target / path)
        emit("wrong", path=path, kind=problem.kind, expected=problem.expected, found=problem.found)
    return [file for file in pins.files if file.path in found]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
