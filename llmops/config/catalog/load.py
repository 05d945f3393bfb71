"""Reading the catalog: `models/*.yaml` to specs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from llmops.config.catalog.routing import routing_check
from llmops.config.catalog.spec import ModelSpec
from llmops.config.loading import read_entry, read_folder
from llmops.errors import BadInput

Catalog = Mapping[str, ModelSpec]
"""Name -> spec, sorted by name."""


def load_catalog(models_dir: Path) -> Catalog:
    """Read every `*.yaml` of a folder.

    Returns:
        The specs by name, sorted by name.

    Raises:
        BadInput: The folder is missing or empty, or any file is wrong; the message has one line per mistake, over
            all files.
    """
    if not models_dir.is_dir():
        raise BadInput(
            f"{models_dir}: is not a folder.", remedy="Name the catalog's folder as models_dir in the settings."
        )
    check = routing_check({path.stem for path in models_dir.glob("*.yaml")})
    if specs := read_folder(models_dir, ModelSpec, lambda spec: check(spec.name, spec.routing)):
        return specs
    raise BadInput(f"{models_dir}: holds no model.", remedy="Add one as NAME.yaml.")


def load_model(path: Path) -> ModelSpec:
    """Read one file of the catalog.

    Raises:
        BadInput: The file is wrong; the message has one line per mistake.
    """
    return read_entry(path, ModelSpec)
