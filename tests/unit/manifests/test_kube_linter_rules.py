"""kube-linter's checks by its names for them, on what we render (stackrox/kube-linter, docs/generated/checks.md).

Left out, and why: `unset-cpu-requirements` asks for a limit of CPU, which would throttle an engine between two tokens;
`read-secret-from-env-var`, as vLLM takes its API key from a variable alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from llmops.config.settings import Settings
from tests.api.manifests.test_everything import ENTRIES, MODELS, changed
from tests.support.everything import everything

Pod = dict[str, Any]
SETTINGS = Settings.model_validate({})
OBJECTS = [
    each
    for spec in MODELS.values()
    for name in ("as it is", "ingress", "in pods")
    for each in everything(changed(spec, ENTRIES[name]), SETTINGS)
]
PODS = [each["spec"]["template"]["spec"] for each in OBJECTS if each["kind"] in ("Deployment", "Job")]
ENGINES = [each["spec"]["template"]["spec"] for each in OBJECTS if each["kind"] == "Deployment"]


def containers(pod: Pod) -> list[dict[str, Any]]:
    return [*pod.get("initContainers", ()), *pod["containers"]]


def secured(pod: Pod, **wanted: Any) -> bool:
    return all(each["securityContext"].get(name) == value for each in containers(pod) for name, value in wanted.items())


RULES: dict[str, Callable[[Pod], bool]] = {
    "latest-tag": lambda pod: all(
        "@sha256:" in each["image"] or each["image"].rpartition(":")[2][0].isdigit() for each in containers(pod)
    ),
    "unset-memory-requirements": lambda pod: all(
        {"requests", "limits"} <= each["resources"].keys() and "memory" in each["resources"]["limits"]
        for each in containers(pod)
    ),
    "privileged-container": lambda pod: not any(each["securityContext"].get("privileged") for each in containers(pod)),
    "privilege-escalation-container": lambda pod: secured(pod, allowPrivilegeEscalation=False),
    "no-read-only-root-fs": lambda pod: secured(pod, readOnlyRootFilesystem=True),
    "drop-net-raw-capability": lambda pod: secured(pod, capabilities={"drop": ["ALL"]}),
    "run-as-non-root": lambda pod: pod["securityContext"]["runAsNonRoot"] is True,
    "host-network": lambda pod: not pod.get("hostNetwork"),
    "host-pid": lambda pod: not pod.get("hostPID"),
    "host-ipc": lambda pod: not pod.get("hostIPC"),
    "default-service-account": lambda pod: pod["automountServiceAccountToken"] is False,
    "sensitive-host-mounts": lambda pod: not any("hostPath" in each for each in pod["volumes"]),
    "duplicate-env-var": lambda pod: all(
        len({v["name"] for v in each["env"]}) == len(each["env"]) for each in containers(pod)
    ),
    "env-var-secret": lambda pod: (
        not any("KEY" in v["name"] and "value" in v for each in containers(pod) for v in each["env"])
    ),
}


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_every_pod_keeps_to(rule: str) -> None:
    assert len(PODS) > 20
    assert [pod for pod in PODS if not RULES[rule](pod)] == []


def test_no_liveness_probe_and_no_readiness_probe() -> None:
    assert all({"startupProbe", "livenessProbe", "readinessProbe"} <= pod["containers"][0].keys() for pod in ENGINES)


def test_exposed_services() -> None:
    assert {each["spec"]["type"] for each in OBJECTS if each["kind"] == "Service"} == {"ClusterIP"}


def test_non_isolated_pod() -> None:
    policies = [each for each in OBJECTS if each["kind"] == "NetworkPolicy"]
    assert {each["spec"]["podSelector"]["matchLabels"]["llmops.dev/model"] for each in policies} == set(MODELS)
