"""Figures, tables and links of a stage, which the orchestrator keeps with its run for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

OutcomeT = TypeVar("OutcomeT", bound=BaseModel)


@dataclass(frozen=True)
class Markdown:
    """A table, a list or an image."""

    text: str


@dataclass(frozen=True)
class Link:
    """The address of a page."""

    url: str


@dataclass(frozen=True)
class File:
    """A file on this machine."""

    path: Path


@dataclass(frozen=True)
class Json:
    """Data for programs."""

    content: Any


Value = str | int | float | Markdown | Link | File | Json
Shown = Mapping[str, Value]
"""By name; text and numbers appear as they are."""


@dataclass(frozen=True)
class Done(Generic[OutcomeT]):
    """A stage's work.

    Args:
        outcome: For the later stages, and for a later run.
        shown: For people.
    """

    outcome: OutcomeT
    shown: Shown


def numbers(figures: Mapping[str, float]) -> dict[str, Value]:
    """Figures as numbers under names without slashes, so that a UI plots them over time."""
    return {name.replace("/", "_"): float(round(value, 4)) for name, value in figures.items()}


def speed(size: int, seconds: float) -> float:
    """How fast bytes were read, in MB/s."""
    return round(size / 1e6 / max(seconds, 1e-3), 1)
