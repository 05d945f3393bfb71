"""Hashes of the release ids and rendered objects of the whole catalog: `python -m tests.unit.manifests.golden`.

An object that changes restarts engines, and an id that changes starts a trial, on every installation that upgrades
llmops. A commit that changes one on purpose writes the file again and says what the change does.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from llmops.config.catalog.load import load_catalog
from llmops.config.settings import Settings
from llmops.config.tenants import Tenant
from tests.support.everything import ENTRIES, INSTALLATIONS, PROMETHEUS, base, beside, changed, everything, pinned

GOLDEN = Path(__file__).parent / "golden.json"
MODELS = Path(__file__).parents[3] / "models"
Golden = dict[str, dict[str, str]]


def computed() -> Golden:
    """Per model, entry and installation: the release's id, and a hash of each object."""
    hashes: Golden = {}
    models = load_catalog(MODELS)
    plain = next(iter(INSTALLATIONS))
    for model, spec in models.items():
        tenant = Tenant.model_validate(
            {"name": "research", "models": [model], "key": {"name": "keys", "key": "research"}}
        )
        cases = [(entry, plain) for entry in ENTRIES] + [
            ("as it is", other) for other in INSTALLATIONS if other != plain
        ]
        for entry, installation in cases:
            settings = Settings.model_validate({"monitoring": PROMETHEUS} | INSTALLATIONS[installation])
            changed_spec = changed(spec, ENTRIES[entry])
            objects = [
                *base(settings),
                *everything(changed_spec, settings),
                *beside(changed_spec, {tenant.name: tenant}, settings),
            ]
            hashes[f"{model}, {entry}, {installation}"] = {
                "release": pinned(changed_spec).id,
                **{
                    f"{manifest['kind']} {manifest['metadata']['name']} {index}": _hash(manifest)
                    for index, manifest in enumerate(objects)
                },
            }
    return hashes


def _hash(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:12]


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(computed(), indent=1) + "\n")
