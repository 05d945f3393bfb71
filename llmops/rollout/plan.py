"""What a rollout would do, without doing any of it."""

from __future__ import annotations

import difflib
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from llmops.clients.kubernetes.problems import NotFound
from llmops.manifests.text import as_yaml
from llmops.preflight.finding import Finding
from llmops.releases.difference import diff
from llmops.releases.release import Release
from llmops.rollout.ops.companions import companions_of
from llmops.rollout.ops.pinning import pin
from llmops.rollout.ops.preflight_run import examine
from llmops.rollout.ops.scaling import preview
from llmops.rollout.platform import Platform

# Fields that the API server adds to every object.
_NOISE = ("managedFields", "resourceVersion", "uid", "generation", "creationTimestamp")


@dataclass(frozen=True)
class Plan:
    """A release that a rollout would try.

    Args:
        release: Everything pinned.
        standing: Whether it serves, was rejected, or would be tried.
        changes: Differences from stable.
        objects: `Kind name` -> the diff that a promotion would apply, as lines.
        findings: Of the preflight.
    """

    release: Release
    standing: str
    changes: list[str]
    objects: dict[str, list[str]]
    findings: tuple[Finding, ...]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "release": self.release.id,
            "pins": self.release.model_dump(mode="json"),
            "standing": self.standing,
            "changes": self.changes,
            "objects": self.objects,
            "preflight": [asdict(finding) for finding in self.findings],
        }


def make_plan(platform: Platform, model: str, *, engine_version: str | None, revision: str | None) -> Plan:
    """Resolve a model's policies, and compare with what serves. Changes nothing: objects go through a dry run.

    Raises:
        BadInput, BadRelease, ClusterCannot, Unavailable: As the release stage would.
    """
    records, spec = platform.records, platform.spec(model)
    release = pin(platform, model, engine_version=engine_version, revision=revision)
    state = records.proven_state(model)
    rejection = records.rejection(model, release.id)
    if state.stable == release.id:
        standing = "serves already"
    elif rejection:
        at = f"{rejection.finished:%Y-%m-%d %H:%M} UTC at {rejection.stage}"
        standing = f"was rejected on {at}: {rejection.reason}"
    else:
        standing = "would be tried"
    return Plan(
        release=release,
        standing=standing,
        changes=diff(records.release(model, state.stable) if state.stable else None, release),
        objects=_object_changes(platform, release),
        findings=examine(platform, spec, release),
    )


def _object_changes(platform: Platform, release: Release) -> dict[str, list[str]]:
    spec = platform.spec(release.model)
    changes: dict[str, list[str]] = {}
    engine = preview(platform, release, spec)
    for rendered in [*engine, *companions_of(platform, spec, release)]:
        kind, name = rendered["kind"], rendered["metadata"]["name"]
        now = then = None
        with suppress(NotFound):
            now = platform.cluster.get(kind, name)
            then = platform.cluster.apply(rendered, dry_run=True)
        # If the namespace or the kind is missing, there is no dry run: show the rendered object.
        then = then or rendered
        lines = difflib.unified_diff(_lines(now), _lines(then), "now", "then", lineterm="", n=2)
        changes[f"{kind} {name}"] = list(lines) or ["unchanged"]
    return changes


def _lines(obj: dict[str, Any] | None) -> list[str]:
    if obj is None:
        return []
    meta = {key: value for key, value in obj["metadata"].items() if key not in _NOISE}
    return as_yaml([{key: value for key, value in obj.items() if key != "status"} | {"metadata": meta}]).splitlines()
