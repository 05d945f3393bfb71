"""Reads the catalog: `models/*.yaml` to specs."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from pathlib import Path

from llmops.config.catalog import named
from llmops.config.catalog.routing import routing_check
from llmops.config.catalog.spec import ModelSpec
from llmops.config.loading import Folder, read_entry, read_folder
from llmops.config.settings.allowed import Allowed
from llmops.errors import BadInput

Catalog = Mapping[str, ModelSpec]
"""Name -> spec, sorted by name."""


def load_catalog(models_dir: Path) -> Catalog:
    """Read every `*.yaml` of a folder.

    Returns:
        The specs by name, sorted by name.

    Raises:
        BadInput: The folder is missing or empty, or a file has a mistake; see `Folder.all`.
    """
    return read_catalog(models_dir).all()


def read_catalog(models_dir: Path, allowed: Allowed | None = None) -> Folder[ModelSpec]:
    """Read every `*.yaml` of a folder. A file with a mistake is left out: it stops no other model.

    Args:
        models_dir: The folder.
        allowed: What entries may name; None allows all.

    Raises:
        BadInput: The folder is missing or empty.
    """
    if not models_dir.is_dir():
        raise BadInput(
            f"{models_dir}: is not a folder.",
            code="NoCatalog",
            about=str(models_dir),
            remedy="Set models_dir in the settings to the catalog's folder.",
        )
    check = routing_check({path.stem for path in models_dir.glob("*.yaml")})
    may = allowed or Allowed()
    read = read_folder(
        models_dir, ModelSpec, lambda spec: chain(check(spec.name, spec.routing), named.problems(spec, may))
    )
    if read.entries or read.refused:
        return read
    raise BadInput(f"{models_dir}: has no model.", code="EmptyCatalog", about=str(models_dir), remedy="Add NAME.yaml.")


def load_model(path: Path) -> ModelSpec:
    """Read one file of the catalog.

    Raises:
        BadInput: The file has a mistake; see `Folder.all`.
    """
    return read_entry(path, ModelSpec)
