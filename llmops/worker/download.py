"""Downloads a release's files to the volume: resumes after any kill, hashes on arrival, publishes a complete folder.

A file in the staging folder under its final name has the right hash. A partial file is in `.cache` below it. So a
second run trusts the names, resumes the parts, and downloads the rest.

A published folder with wrong files is repaired in place, because engines may serve from it.
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
from llmops.worker.volume import refuse_alike

LOCK_WAIT_SECONDS = 60.0  # A terminating pod releases the lock within this time.
MARGIN = 0.01  # Share of the missing bytes, for the file system's metadata.
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
        root: Mount path of the volume, for messages about space.
        staging: Folder to write to, on the same volume as `target`.
        target: Folder of the weights; it appears when it is complete.
        token_file: File with the hub token, if there is one.
        reading: How to read a published folder, to find its wrong files.

    Raises:
        WorkerError: Its kind says what to do next.
        OSError: The volume cannot be read or written.
    """
    if _complete(target, pins):
        return Result("download", "ok", f"{target.name}: already there", details={"bytes": 0, "total": pins.size})
    with locked(staging.with_name(f"{staging.name}.lock"), wait=LOCK_WAIT_SECONDS):
        if _complete(target, pins):
            return Result("download", "ok", f"{target.name}: another pod downloaded it", details={"total": pins.size})
        # Before the import, when the library reads its settings. A Job's pod may not write to the home directory,
        # where the library has its caches. Telemetry would tell the hub about the machine.
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("HF_HOME", str(staging / WORK_FOLDER / "home"))
        from llmops.worker.hub.fetching import fetch_all
        from llmops.worker.hub.transfer import Hub

        (staging / WORK_FOLDER).mkdir(parents=True, exist_ok=True)
        refuse_alike(pins, staging / WORK_FOLDER / "names")
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
            message = f"{target.name}: {len(missing)} of {len(pins.files)} files were wrong and are downloaded again"
        else:
            _publish(staging, target)
            message = f"{target.name}: {len(pins.files)} files"
        return Result("download", "ok", message, details=progress.figures())


def _complete(target: Path, pins: Pins) -> bool:
    """Whether every file exists with its size, and no check has found a wrong file."""
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
            f"the volume at {root} has {free} bytes free, and the download needs {needed} "
            f"({missing} missing, the rest is margin)",
            remedy=f"Enlarge the volume by {needed - free} bytes or collect old weights.",
        )


def _publish(staging: Path, target: Path) -> None:
    """Move the complete folder to its final name."""
    shutil.rmtree(staging / WORK_FOLDER)
    for parent, _, _ in os.walk(staging):
        sync_folder(Path(parent))
    target.parent.mkdir(parents=True, exist_ok=True)
    manifest.forget(target)
    staging.rename(target)
    sync_folder(target.parent)
    sync_folder(staging.parent)
