"""The command line as a person and as a program uses it: real processes, real exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from llmops.config import names
from tests.support.world import Model


def llmops(model: Model, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "llmops.cli", "--settings", str(model.settings_file), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )


def versions(model: Model) -> dict[str, str]:
    """Resource version of every object in the namespace, without Leases, which nodes renew."""
    kinds = ("ConfigMap", "Deployment", "Service", "PodDisruptionBudget", "Job", "Secret", "PersistentVolumeClaim")
    return {
        f"{kind}/{obj['metadata']['name']}": obj["metadata"]["resourceVersion"]
        for kind in kinds
        for obj in model.cluster.list(kind)
    }


def test_plan_shows_everything_and_changes_nothing(serving: Model) -> None:
    serving.push("v0.40.0")
    before = versions(serving)
    try:
        shown = llmops(serving, "plan", serving.name)
        answer = llmops(serving, "plan", serving.name, "--json")
    finally:
        serving.sandbox.images.remove(serving.image, "v0.40.0")
    assert versions(serving) == before
    assert shown.returncode == 0, shown.stderr
    assert "engine v0.32.0 -> v0.40.0" in shown.stdout
    assert "would be tried" in shown.stdout
    plan: dict[str, Any] = json.loads(answer.stdout)
    assert plan["changes"] == ["engine v0.32.0 -> v0.40.0"]
    changed = "\n".join(plan["objects"][f"Deployment {serving.name}"])
    assert plan["pins"]["engine"]["digest"] in changed
    assert names.RELEASE_LABEL in changed
    assert all(finding["severity"] != "error" for finding in plan["preflight"])


def test_plan_of_what_serves_says_so(serving: Model) -> None:
    shown = llmops(serving, "plan", serving.name)
    assert shown.returncode == 0, shown.stderr
    assert "serves already" in shown.stdout


def test_status_and_history_are_for_people_and_programs(serving: Model) -> None:
    assert serving.name in llmops(serving, "status").stdout
    [status] = json.loads(llmops(serving, "status", serving.name, "--json").stdout)
    assert status["stable"] == status["deployed"] == serving.serving()
    assert (status["ready"], status["replicas"], status["trial"]) == (1, 1, None)
    history = json.loads(llmops(serving, "history", serving.name, "--json").stdout)
    assert [record["verdict"] for record in history] == ["Passed"]
    assert "Passed" in llmops(serving, "history", serving.name).stdout


def test_a_model_that_is_not_there_is_bad_input(serving: Model) -> None:
    for command in ("plan", "rollout", "status", "history", "rollback"):
        answer = llmops(serving, command, "nobody")
        assert answer.returncode == 2, answer.stderr
        assert "nobody: there is no such model" in answer.stderr
        assert serving.name in answer.stderr
        assert not answer.stdout


def test_check_tells_every_mistake_by_file_line_and_field(serving: Model) -> None:
    assert llmops(serving, "check").returncode == 0
    wrong = serving.folder / "models" / "wrong.yaml"
    wrong.write_text("name: wrong\nweights:\n  repo: no-owner\nengine:\n  version: latest\nreplica: 2\n")
    try:
        answer = llmops(serving, "check")
    finally:
        wrong.unlink()
    assert answer.returncode == 2
    for line, field in ((3, "weights.repo"), (5, "engine.version"), (6, "replicas")):
        assert f"wrong.yaml:{line}" in answer.stderr
        assert field in answer.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("namespace: [1]\n", "namespace"),
        ("namespaces: x\n", "namespaces"),
        ("a: b: c\n", "wrong-settings.yaml:1: is not valid YAML"),
        ("kubeconfig: /nowhere/kubeconfig\n", "/nowhere/kubeconfig"),
    ],
)
def test_wrong_settings_are_bad_input(serving: Model, content: str, words: str) -> None:
    settings = serving.folder / "wrong-settings.yaml"
    settings.write_text(content + f"models_dir: {serving.folder / 'models'}\n")
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "llmops.cli", "--settings", str(settings), "status"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert answer.returncode == 2, answer.stderr
    assert words in answer.stderr
    assert "Traceback" not in answer.stderr


def test_an_api_server_that_is_away_is_told_as_such(serving: Model) -> None:
    kubeconfig = serving.folder / "kubeconfig"
    content = serving.sandbox.kubeconfig.read_text()
    port = content.split("https://127.0.0.1:")[1].split('"')[0]
    kubeconfig.write_text(content.replace(f":{port}", ":1"))
    settings = serving.folder / "away.yaml"
    given = json.loads(serving.settings_file.read_text())
    settings.write_text(json.dumps(given | {"kubeconfig": str(kubeconfig)}))
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "llmops.cli", "--settings", str(settings), "status"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert answer.returncode == 5, answer.stderr
    assert "127.0.0.1:1" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_rejection_is_told_in_sentences(model: Model) -> None:
    """Slow: a rollout up to its canary. A terminal gets the stages' lines, no JSON and no lines of Dagster."""
    model.push("v0.99.0", crash_on_load="no such kernel")
    answer = llmops(model, "rollout", model.name)
    assert answer.returncode == 3, answer.stderr
    assert " rejected at canary: " in answer.stderr
    assert "RuntimeError: no such kernel (nothing serves)" in answer.stderr
    assert "model.safetensors is complete, " in answer.stderr
    assert '{"event"' not in answer.stderr
    assert "Not executing" not in answer.stderr
    assert answer.stdout.startswith("Failed: ")
