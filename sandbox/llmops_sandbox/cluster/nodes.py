"""The declaration of the sandbox's nodes: names, labels, taints and capacity."""

from __future__ import annotations

import shutil
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from llmops.config.loading import read_file
from llmops.config.schema import Strict


class Taint(Strict):
    """A taint of a node."""

    key: str
    value: str = ""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]


class Node(Strict):
    """One node."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")]
    capacity: dict[str, str] = Field(description="Kubernetes quantities, also offered in full to pods.")
    labels: dict[str, str] = Field(default_factory=dict[str, str])
    taints: tuple[Taint, ...] = ()


class Declaration(Strict):
    """The content of `nodes.yaml`."""

    nodes: Annotated[tuple[Node, ...], Field(min_length=1)]
    back_off_seconds: Annotated[float, Field(ge=0)] = Field(
        10, description="Wait before the second restart of a container or pull of an image; doubled each time."
    )
    back_off_limit_seconds: Annotated[float, Field(ge=0)] = Field(300, description="The longest such wait.")
    route_seconds: Annotated[float, Field(ge=0)] = Field(
        0, description="By how much Services lag behind their pods, as endpoints of a real cluster do."
    )


def load_nodes(path: Path) -> Declaration:
    """Read a declaration.

    Raises:
        BadInput: The file cannot be read, or has wrong fields; the message has one line per field.
    """
    return read_file(path, Declaration)


def write_default_nodes(path: Path) -> None:
    """Write the packaged declaration to `path`, unless the file exists."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with as_file(files("llmops_sandbox.cluster") / "nodes.yaml") as packaged:
            shutil.copyfile(packaged, path)
