"""Copies of a model with one fault each, as a damaged download, a wrong conversion or a changed default plants it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

WEIGHTS = "model.safetensors"
Numbers = NDArray[np.float32]
Change = Callable[[Numbers], Numbers]


def copied(model: Path, folder: Path) -> Path:
    """A copy of a model, to change."""
    shutil.copytree(model, folder)
    return folder


def change_weights(folder: Path, changes: Mapping[str, Change]) -> None:
    """Change tensors of bfloat16 in place.

    Args:
        folder: A model of one safetensors file.
        changes: End of a tensor's name -> what to make of its values.
    """
    path = folder / WEIGHTS
    content = bytearray(path.read_bytes())
    length = int.from_bytes(content[:8], "little")
    header: dict[str, Any] = json.loads(content[8 : 8 + length])
    changed = 0
    for name, entry in header.items():
        change = next((change for end, change in changes.items() if name.endswith(end)), None)
        if change is None:
            continue
        assert entry["dtype"] == "BF16"
        start, end = (8 + length + offset for offset in entry["data_offsets"])
        halves = np.frombuffer(bytes(content[start:end]), dtype="<u2").astype(np.uint32) << 16
        values = change(halves.view(np.float32).reshape(entry["shape"]).copy())
        content[start:end] = _rounded(values).tobytes()
        changed += 1
    assert changed, f"no tensor ends with {', '.join(changes)}"
    path.write_bytes(content)


def _rounded(values: Numbers) -> NDArray[np.uint16]:
    """To the nearest bfloat16."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").reshape(-1)


def quantized(bits: int, group: int = 32) -> Change:
    """Values rounded to so many bits, in groups with a scale each."""

    def change(values: Numbers) -> Numbers:
        groups = values.reshape(-1, group)
        most = 2 ** (bits - 1) - 1
        scale = np.maximum(np.abs(groups).max(axis=1, keepdims=True) / most, 1e-12)
        return (np.round(groups / scale) * scale).reshape(values.shape).astype(np.float32)

    return change


def swapped(one: int, other: int) -> Change:
    """Two rows in each other's place."""

    def change(values: Numbers) -> Numbers:
        values[[one, other]] = values[[other, one]]
        return values

    return change


def change_json(folder: Path, name: str, change: Callable[[Any], None]) -> None:
    """Change a JSON file of a model in place."""
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))
