"""What starts a rollout without a person: new image tags, new model revisions, changed entries. One file each.

A trigger decides, and knows no orchestrator: `llmops.defs.triggers` makes a sensor of each.
"""

from __future__ import annotations

from llmops.triggers import catalog_changes, image_tags, model_revisions
from llmops.triggers.trigger import AnyTrigger

TRIGGERS: tuple[AnyTrigger, ...] = (image_tags.TRIGGER, model_revisions.TRIGGER, catalog_changes.TRIGGER)
