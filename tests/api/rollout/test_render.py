"""`llmops render` writes every object, with a cluster and without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from llmops_sandbox.cluster.binaries import find_or_build_kubectl
from llmops_sandbox.cluster.controlplane import ControlPlane

from llmops.clients.kubernetes.client import Cluster
from llmops.config.settings import load_settings
from llmops.manifests.records import pins_config_map
from llmops.manifests.volume import namespace
from llmops.releases.records import Records
from llmops.releases.release import Release

ENTRY = {
    "name": "tiny",
    "weights": {"repo": "a/b"},
    "engine": {"version": "0.32.0", "env": {"B": "1e3", "A": "x"}},
    "replicas": 2,
    "access": {"api_key": {"name": "k", "key": "k"}},
    "exposure": {"kind": "ingress", "host": "tiny.example.com"},
}


def release() -> Release:
    return Release.model_validate(
        {
            "model": "tiny",
            "weights": {"repo": "a/b", "commit": "0" * 40, "files": [{"path": "m.safetensors", "size": 1}]},
            "engine": {"image": "vllm/vllm-openai", "tag": "v0.32.0", "digest": f"sha256:{'0' * 64}"},
            **{name: {} for name in ("gpu", "resources", "evaluation", "rollout", "access")},
            "suites": [],
        }
    )


def write_installation(folder: Path, **settings: Any) -> Path:
    (folder / "models").mkdir()
    (folder / "models" / "tiny.yaml").write_text(json.dumps(ENTRY))
    (folder / "pins.json").write_text(release().model_dump_json())
    file = folder / "settings.yaml"
    base = {"kubeconfig": str(folder / "there-is-no-cluster"), "models_dir": str(folder / "models")}
    file.write_text(json.dumps(base | settings))
    return file


def render(settings: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "llmops.cli", "--settings", str(settings), "render", "tiny", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": "random"})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_a_cluster_equal_pins_render_to_equal_bytes_in_every_process(tmp_path: Path) -> None:
    settings = write_installation(tmp_path)
    pins = f"--pins={tmp_path / 'pins.json'}"
    text = render(settings, pins)
    assert text == render(settings, pins)
    kinds = [obj["kind"] for obj in yaml.safe_load_all(text)]
    assert kinds[-2:] == ["NetworkPolicy", "Ingress"]
    assert kinds.index("ConfigMap") < kinds.index("Deployment")
    with_base = [obj["kind"] for obj in yaml.safe_load_all(render(settings, pins, "--base"))]
    assert with_base == ["Namespace", "PersistentVolumeClaim", *kinds]


def test_kubectl_diff_finds_no_difference_to_the_applied_objects(plane: ControlPlane, tmp_path: Path) -> None:
    file = write_installation(tmp_path, kubeconfig=str(plane.kubeconfig))
    settings = load_settings(file)
    cluster = Cluster.connect(settings)
    cluster.apply(namespace(settings))
    records = Records(cluster)
    records.save_release(pins_config_map(release()))
    records.update_state("tiny", stable=release().id)
    text = render(file)
    assert text == render(file, f"--pins={tmp_path / 'pins.json'}") == render(file, f"--release={release().id}")
    kubectl = [str(find_or_build_kubectl()), "--kubeconfig", str(plane.kubeconfig)]
    command = [*kubectl, "diff", "--server-side", "--field-manager=llmops", "--filename=-"]
    before = subprocess.run(command, input=text, capture_output=True, text=True)
    assert before.returncode == 1, before.stderr
    for obj in yaml.safe_load_all(text):
        cluster.apply(obj)
    after = subprocess.run(command, input=text, capture_output=True, text=True)
    assert after.returncode == 0, after.stdout + after.stderr
    changed = text.replace("terminationGracePeriodSeconds: ", "terminationGracePeriodSeconds: 1")
    differs = subprocess.run(command, input=changed, capture_output=True, text=True)
    assert differs.returncode == 1
    assert "terminationGracePeriodSeconds" in differs.stdout
