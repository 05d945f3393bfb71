"""Pods as a kubelet 1.37 and containerd 2.4 recorded them, and what llmops makes of each.

`make e2e-containers` makes the pods on a real node, and with LLMOPS_RECORD records them anew.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmops.clients.kubernetes.diagnosis.pod import diagnose
from llmops.errors import BadRelease, ClusterCannot

FOLDER = Path(__file__).parents[2] / "fixtures" / "kubelet"
RIGHT: dict[str, tuple[str, type, str]] = {
    "claim-absent": ("Unschedulable", ClusterCannot, 'persistentvolumeclaim "absent" not found'),
    "config-absent": ("ConfigMapMissing", ClusterCannot, 'configmap "absent" not found'),
    "deadline": ("Evicted", ClusterCannot, "DeadlineExceeded"),
    "digest-absent": ("ImageNotFound", BadRelease, "not found"),
    "disk-of-pod": ("Evicted", ClusterCannot, "Pod ephemeral local storage usage exceeds"),
    "disk-of-volume": ("Evicted", ClusterCannot, 'Usage of EmptyDir volume "v" exceeds the limit "10Mi"'),
    "exit-one": ("CrashLoop", BadRelease, "torch.OutOfMemoryError: CUDA out of memory"),
    "exit-zero": ("CrashLoop", BadRelease, "exit code 0"),
    "hook-fails": ("CrashLoop", BadRelease, "exit code 137"),
    "host-unknown": ("RegistryUnreachable", ClusterCannot, "registry.invalid.example"),
    "init-fails": ("ForeignContainerFailed", ClusterCannot, "llmops did not put init into the pod"),
    "key-absent": ("ConfigMapKeyMissing", ClusterCannot, "couldn't find key absent in ConfigMap"),
    "liveness-probe": ("LivenessProbeFailed", BadRelease, "killed by its liveness probe"),
    "many-gpus": ("Unschedulable", ClusterCannot, "Insufficient nvidia.com/gpu"),
    "memory": ("OutOfMemory", BadRelease, "more memory than its limit"),
    "memory-volume-full": ("CrashLoop", BadRelease, "No space left on device"),
    "much-cpu": ("Unschedulable", ClusterCannot, "Insufficient cpu"),
    "name-invalid": ("InvalidImageName", BadRelease, "invalid reference format"),
    "never-pulled": ("ImageNeverPulled", ClusterCannot, "pull policy of Never"),
    "other-node": ("Unschedulable", ClusterCannot, "didn't match Pod's node affinity/selector"),
    "path-absent": ("VolumeNotMounted", ClusterCannot, 'path "/no/such" does not exist'),
    "program-absent": ("ContainerCannotStart", BadRelease, "/no/such/program"),
    "program-not-executable": ("ContainerCannotStart", BadRelease, "permission denied"),
    "pull-secret-absent": ("ImageNotFound", BadRelease, "not found"),
    "readiness-probe": ("", ClusterCannot, "running, not ready yet"),
    "refused-by-node": ("NodeRefusedPod", ClusterCannot, "Node didn't have enough resource: cpu"),
    "repository-absent": ("ImageNotFound", BadRelease, "nobody/nothing"),
    "root-read-only": ("CrashLoop", BadRelease, "Read-only file system: '/x'"),
    "secret-absent": ("SecretMissing", ClusterCannot, 'secret "absent" not found'),
    "secret-volume-absent": ("SecretMissing", ClusterCannot, 'secret "absent" not found'),
    "startup-probe": ("StartupProbeFailed", BadRelease, "connect: connection refused"),
    "tag-absent": ("ImageNotFound", BadRelease, "vllm-openai:v9.99.9"),
    "user-is-root": ("ImageRunsAsRoot", BadRelease, "image will run as root"),
}  # fmt: skip


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
