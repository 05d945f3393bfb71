"""The cost of a tick over a thousand models without news."""

from __future__ import annotations

from pathlib import Path

from llmops_sandbox.cluster.controlplane import ControlPlane

from bench.sensors import run_on


def test_a_thousand_models_over_three_repositories(plane: ControlPlane, tmp_path: Path) -> None:
    """The test first writes the records of a thousand models to a real API server."""
    measured = run_on(plane.kubeconfig, tmp_path)
    # One request for each repository, for any number of models and tags.
    assert measured["sensors.image_tags.idle_requests_most"] == 3
    assert measured["sensors.model_revisions.idle_requests_most"] == 1
    assert measured["sensors.catalog_changes.idle_requests_most"] == 0
    assert measured["sensors.image_tags.cursor_bytes"] < 100_000
