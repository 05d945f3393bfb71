"""Brings a release's files to the volume: resumed after any kill, proven while they arrive, in place only when whole.

What lies in the staging folder under its own name has been hashed and was right. What is on its way lies in
`.cache` below it. So a second run trusts the names, continues the parts, and fetches the rest.

A folder that is in place already and was found wrong is set right where it is: engines may be serving from it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from llmops.worker import manifest
from llmops.worker.checksum import Reading
from llmops.worker.files import locked, size_of, sync_folder
from llmops.worker.pins import FilePin, Pins
from llmops.worker.repair import set_aside
from llmops.worker.report import Progress, Result, WorkerError

LOCK_WAIT_SECONDS = 60.0  # A pod that is being deleted has at most this long to let go.
MARGIN = 0.01  # Of the missing bytes, for the file system's own needs.
MARGIN_BYTES = 16 << 20
WORK_FOLDER = ".cache"  # Below staging; no pinned file may lie in it (see pins.unsafe_path).


def download(
    pins: Pins,
    *,
    root: Path,
    staging: Path,
    target: Path,
    token_file: Path | None,
    reading: Reading = Reading(),  # noqa: B008 - immutable
) -> Result:
    """Make sure that `target` holds the release's files.

    Args:
        pins: The files.
        root: Where the volume is mounted; named in messages about space.
        staging: Folder to write to, on the same volume as `target`.
        target: Folder of the weights; appears when it is complete.
        token_file: File with the hub token, if one is needed.
        reading: How files are read that are in place, to tell which of them are wrong.

    Raises:
        WorkerError: With the kind that says what has to happen next.
        OSError: The volume cannot be read or written.
    """
    if _complete(target, pins):
        return Result("download", "ok", f"{target.name}: already there", details={"bytes": 0, "total": pins.size})
    with locked(staging.with_name(f"{staging.name}.lock"), wait=LOCK_WAIT_SECONDS):
        if _complete(target, pins):
            return Result("download", "ok", f"{target.name}: another pod fetched it", details={"total": pins.size})
        # The library reads its settings when it is imported, and keeps its caches under the home directory, which
        # a Job's pod may not write to. Its telemetry would tell the hub about the machine.
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("HF_HOME", str(staging / WORK_FOLDER / "home"))
        from llmops.worker.hub.fetching import fetch_all
        from llmops.worker.hub.transfer import Hub

        (staging / WORK_FOLDER).mkdir(parents=True, exist_ok=True)
        hub = Hub(pins, staging / WORK_FOLDER, token_file)
        in_place = target.is_dir()
        missing = set_aside(target, pins, reading) if in_place else _missing(pins, staging)
        absent = sum(file.size - hub.received(file) for file in missing)
        _need_space(root, absent)
        with Progress(pins.size, done=pins.size - absent) as progress:
            fetch_all(missing, hub, target if in_place else staging, progress)
        if in_place:
            shutil.rmtree(staging)
            manifest.forget(target)
            message = f"{target.name}: {len(missing)} of {len(pins.files)} files were wrong and are fetched again"
        else:
            _publish(staging, target)
            message = f"{target.name}: {len(pins.files)} files"
        return Result("download", "ok", message, details=progress.figures())


def _complete(target: Path, pins: Pins) -> bool:
    """Whether every file is there with its size, and no check has found one of them wrong."""
    return not _missing(pins, target) and not manifest.known_problems(target)


def _missing(pins: Pins, folder: Path) -> list[FilePin]:
    return [file for file in pins.files if size_of(folder / file.path) != file.size]


def _need_space(root: Path, missing: int) -> None:
    needed = missing + min(MARGIN_BYTES, missing) + int(missing * MARGIN)
    volume = os.statvfs(root)
    free = volume.f_bavail * volume.f_frsize
    if free < needed:
        raise WorkerError(
            "no_space",
            f"the volume at {root} has {free} bytes free and needs {needed} "
            f"({missing} still missing, the rest is margin)",
            remedy=f"Enlarge the volume by {needed - free} bytes or collect old weights.",
        )


def _publish(staging: Path, target: Path) -> None:
    """Move the complete folder to its name."""
    shutil.rmtree(staging / WORK_FOLDER)
    for parent, _, _ in os.walk(staging):
        sync_folder(Path(parent))
    target.parent.mkdir(parents=True, exist_ok=True)
    manifest.forget(target)
    staging.rename(target)
    sync_folder(target.parent)
    sync_folder(staging.parent)
