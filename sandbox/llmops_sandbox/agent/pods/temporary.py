"""Short names for the temporary folders of containers.

A Unix socket's path has at most 107 characters, and programs such as vLLM's engine put sockets into TMPDIR. The folder
of an attempt is too deep for that, so TMPDIR is a link to it.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

LINKS = "tmp"


def temporary_folder(attempt: Path) -> Path:
    """TMPDIR of an attempt of a container, whose folder is `DIR/pods/UID/containers/NAME/NUMBER`."""
    name = hashlib.sha256(str(attempt).encode()).hexdigest()[:8]
    return attempt.parents[4] / LINKS / name


def make_temporary_folder(attempt: Path) -> None:
    """Make the folder, and the link to it."""
    (attempt / "tmp").mkdir(parents=True)
    link = temporary_folder(attempt)
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(attempt / "tmp")


def prune_links(folder: Path) -> None:
    """Remove the links whose pods are gone; `folder` is the sandbox's."""
    with contextlib.suppress(FileNotFoundError):
        for link in (folder / LINKS).iterdir():
            if not link.exists():
                link.unlink(missing_ok=True)
