"""The node's cgroup: one below each controller (version 1), or one for all (version 2)."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from llmops_sandbox.containers.address import CGROUP
from llmops_sandbox.containers.requirements import CGROUPS, CONTROLLERS, UNIFIED_CONTROLLERS, is_unified


def make(cgroups: Path = CGROUPS) -> None:
    """Make it, with all processors and memory of the machine."""
    if is_unified(cgroups):
        for folder in (cgroups, cgroups / CGROUP):
            folder.mkdir(exist_ok=True)
            (folder / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in UNIFIED_CONTROLLERS))
        return
    for controller in CONTROLLERS:
        (cgroups / controller / CGROUP).mkdir(exist_ok=True)
    for what in ("cpuset.cpus", "cpuset.mems"):
        (cgroups / "cpuset" / CGROUP / what).write_text((cgroups / "cpuset" / what).read_text())


def remove(cgroups: Path = CGROUPS, seconds: float = 10) -> None:
    """Remove it, after the last process in it ended; what still runs after `seconds` keeps its own."""
    deadline = time.monotonic() + seconds
    # Beside version 1, runc makes groups without controllers in a hierarchy of version 2, if one is mounted.
    roots = [cgroups] if is_unified(cgroups) else [cgroups / name for name in (*CONTROLLERS, "unified")]
    while left := [root / CGROUP for root in roots if (root / CGROUP).exists()]:
        for root in left:
            # The files of a cgroup are the kernel's; only folders can be removed, the innermost first.
            for folder in sorted((path for path in root.rglob("*") if path.is_dir()), reverse=True):
                with contextlib.suppress(OSError):
                    folder.rmdir()
            with contextlib.suppress(OSError):
                root.rmdir()
        if time.monotonic() > deadline:
            return
        time.sleep(0.1)
