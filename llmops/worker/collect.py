"""Deletes weights that no release needs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from llmops.worker import manifest
from llmops.worker.files import TRASH_PREFIX, inside, locked, remove_folder
from llmops.worker.report import Result, WorkerError, emit


def collect(root: Path, model: str, keep: Iterable[str], *, everything: bool = False) -> Result:
    """Delete each folder of weights and staging of a model whose key is not in `keep`, with its manifest.

    It deletes the manifest first and renames the folder before it deletes files: no pod mounts half of a folder. It
    keeps a folder that a download writes to, and deletes the remains of an earlier, killed collection.

    Args:
        root: Mount path of the volume.
        model: Name of the model.
        keep: Keys of the folders to keep.
        everything: Allow `keep` to be empty.

    Raises:
        WorkerError: `keep` is empty without `everything` (kind `usage`).
        OSError: A file cannot be deleted.
    """
    kept = set(keep)
    if not kept and not everything:
        raise WorkerError(
            "usage", f"no key of {model} to keep: this would delete all its weights", remedy="Give --keep or --all."
        )
    if len(Path(model).parts) != 1:
        raise WorkerError("usage", f"{model!r} is not the name of a model")
    weights, staging = inside(root, f"weights/{model}"), inside(root, f"staging/{model}")
    deleted: list[str] = []
    busy: list[str] = []
    freed = 0
    for key in sorted((_keys(weights) | _keys(staging)) - kept):
        try:
            with locked(staging / f"{key}.lock", wait=0):
                freed += _size(weights / key) + _size(staging / key)
                manifest.forget(weights / key)
                remove_folder(weights / key)
                remove_folder(staging / key)
                (staging / f"{key}.lock").unlink()
        except WorkerError as error:
            if error.kind != "busy":
                raise
            busy.append(key)
            continue
        deleted.append(key)
        emit("deleted", key=key)
    for folder in (weights, staging):
        for trash in folder.glob(f"{TRASH_PREFIX}*"):
            freed += _size(trash)
            shutil.rmtree(trash)
    message = f"{model}: {len(deleted)} folders deleted, {freed} bytes freed"
    if busy:
        message += f"; kept {', '.join(busy)}: a download writes there"
    return Result("collect", "ok", message, details={"freed_bytes": freed, "deleted": deleted, "busy": busy})


def _keys(folder: Path) -> set[str]:
    """Keys of which a folder, or a file beside it, exists."""
    if not folder.is_dir():
        return set()
    names = {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")}
    suffixes = (".json", ".sha256", ".manifest", ".lock")
    return {next((name.removesuffix(end) for end in suffixes if name.endswith(end)), name) for name in names}


def _size(folder: Path) -> int:
    """Bytes of the files below a folder; 0 if the folder does not exist."""
    return sum((Path(parent) / name).lstat().st_size for parent, _, names in os.walk(folder) for name in names)
