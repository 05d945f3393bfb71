"""What a volume refuses, told apart from what a retry heals."""

from __future__ import annotations

import errno
import shutil
import unicodedata
from collections import defaultdict
from pathlib import Path

from llmops.worker.pins import Pins
from llmops.worker.report import Result, WorkerError

_RIGHTS = "Give the pod's user the right to read and write the volume (fsGroup, or the owner of its folder)."
_NAMES = "Use a volume that takes the name, or leave the file out with weights.exclude."
_PLACE = "Remove what is in the place of the folder or file."
_REMEDIES = {
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EROFS: "Mount the volume for writing; the claim has to be ReadWriteMany.",
    errno.ENAMETOOLONG: _NAMES,
    errno.EILSEQ: _NAMES,
    errno.EINVAL: _NAMES,
    errno.EEXIST: _PLACE,
    errno.ENOTDIR: _PLACE,
    errno.EISDIR: _PLACE,
    errno.ELOOP: _PLACE,
}


def as_result(command: str, error: OSError) -> Result:
    """The result of a command that an error of the volume ended: full, refused for good, or to be tried again."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Result(command, "no_space", f"the volume is full: {error}", "Enlarge the volume or collect old weights.")
    # An error without the name of a file is not about one.
    if error.filename is not None and (remedy := _REMEDIES.get(error.errno or 0)):
        return Result(command, "volume_refuses", f"the volume refuses it: {error}", remedy)
    return Result(command, "io_error", f"input or output failed: {error}", "Check the volume and its node, then retry.")


def refuse_alike(pins: Pins, probe: Path) -> None:
    """Refuse a volume that takes two of the pinned names for one, as SMB does with `A` and `a`.

    Args:
        pins: The files.
        probe: A folder on the volume that does not exist, to try the names in.

    Raises:
        WorkerError: It does (kind `volume_refuses`).
    """
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for file in pins.files:
        path = ""
        for part in Path(file.path).parts:
            path = f"{path}/{part}" if path else part
            names = alike[unicodedata.normalize("NFC", path).casefold()]
            if path not in names:
                names.append(path)
    for group in (names for names in alike.values() if len(names) > 1):
        shutil.rmtree(probe, ignore_errors=True)
        for number, path in enumerate(group):
            try:
                (probe / path).mkdir(parents=True)
            except FileExistsError as error:
                raise WorkerError(
                    "volume_refuses",
                    f"the volume takes {path} and {group[number - 1]} of {pins.repo} for one name",
                    remedy="Use a volume whose names differ by case, or leave one out with weights.exclude.",
                ) from error
    shutil.rmtree(probe, ignore_errors=True)
