"""Refuses names of models that the catalog does not have."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from llmops.config.loading import did_you_mean
from llmops.errors import BadInput


def check_known(names: Iterable[str], known: Collection[str], models_dir: Path) -> None:
    """Refuse names that no model has.

    Args:
        names: The given names.
        known: Names of all models.
        models_dir: The catalog's folder, for the message.

    Raises:
        BadInput: The catalog lacks some; the message has all of them, with similar names.
    """
    if unknown := sorted(set(names).difference(known)):
        hints = "".join(did_you_mean(name, known).capitalize() for name in unknown)
        raise BadInput(
            f"{', '.join(unknown)}: there is no such model in {models_dir}",
            code="NoSuchModel",
            about=f"model {', '.join(unknown)}",
            remedy=f"{hints}The catalog has {', '.join(sorted(known)) or 'no model'}.",
        )


def not_known(name: str, known: Collection[str]) -> str:
    """The problem of a field that names no model."""
    return f"is {name!r}, which is not in the catalog; {did_you_mean(name, known)}Allowed: {', '.join(known)}"
