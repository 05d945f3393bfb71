"""Pods as a kubelet 1.37 and containerd 2.4 recorded them, and what llmops makes of each.

`make e2e-containers` makes the pods on a real node, and with LLMOPS_RECORD records them anew.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmops.clients.kubernetes.diagnosis.pod import diagnose
from llmops.errors import ClusterCannot
from tests.support.kubelet_pods import RIGHT

FOLDER = Path(__file__).parents[2] / "fixtures" / "kubelet"


def test_every_recording_has_its_row() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == set(RIGHT)


@pytest.mark.parametrize("name", RIGHT)
def test_a_recorded_pod_has_its_diagnosis(name: str) -> None:
    recorded = json.loads((FOLDER / f"{name}.json").read_text())
    code, verdict, words = RIGHT[name]
    finding = diagnose(recorded["pod"], recorded["events"])
    assert (finding.code, finding.verdict) == (code, verdict), finding.message
    assert words in finding.message


@pytest.mark.parametrize("name", RIGHT)
def test_nothing_in_a_job_speaks_against_the_release(name: str) -> None:
    recorded = json.loads((FOLDER / f"{name}.json").read_text())
    assert diagnose(recorded["pod"], recorded["events"], runs_once=True).verdict is ClusterCannot
