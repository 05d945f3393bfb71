"""Triggers start rollouts without a person: on new image tags, new model revisions, changed entries. One file each.

A trigger knows no orchestrator: `llmops.defs.triggers` makes a Dagster sensor of each.
"""

from __future__ import annotations

from llmops.triggers import catalog_changes, image_tags, model_revisions
from llmops.triggers.trigger import AnyTrigger

TRIGGERS: tuple[AnyTrigger, ...] = (image_tags.TRIGGER, model_revisions.TRIGGER, catalog_changes.TRIGGER)
