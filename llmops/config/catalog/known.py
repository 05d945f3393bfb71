"""Names of models that people give: what they are told of one that the catalog does not have."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from llmops.config.loading import did_you_mean
from llmops.errors import BadInput


def check_known(names: Iterable[str], known: Collection[str], models_dir: Path) -> None:
    """Refuse names that are no model's.

    Args:
        names: What was asked for.
        known: Names of all models.
        models_dir: The catalog's folder, for the message.

    Raises:
        BadInput: Some are no model's; the message has all of them, with what is spelled nearly like them.
    """
    if unknown := sorted(set(names).difference(known)):
        hints = "".join(did_you_mean(name, known).capitalize() for name in unknown)
        raise BadInput(
            f"{', '.join(unknown)}: there is no such model in {models_dir}",
            remedy=f"{hints}There is {', '.join(sorted(known)) or 'none'}.",
        )


def not_known(name: str, known: Collection[str]) -> str:
    """What is wrong with a field of a file that names no model."""
    return f"is {name!r}, which is not in the catalog; {did_you_mean(name, known)}Allowed: {', '.join(known)}"
