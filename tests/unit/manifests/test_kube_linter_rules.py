"""kube-linter's checks, under its names, on the rendered objects (stackrox/kube-linter, docs/generated/checks.md).

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
    manifest
    for spec in MODELS.values()
    for name in ("as it is", "ingress", "in pods")
    for manifest in everything(changed(spec, ENTRIES[name]), SETTINGS)
]
PODS = [manifest["spec"]["template"]["spec"] for manifest in OBJECTS if manifest["kind"] in ("Deployment", "Job")]
ENGINES = [manifest["spec"]["template"]["spec"] for manifest in OBJECTS if manifest["kind"] == "Deployment"]


def containers(pod: Pod) -> list[dict[str, Any]]:
    return [*pod.get("initContainers", ()), *pod["containers"]]


def secured(pod: Pod, **wanted: Any) -> bool:
    return all(
        container["securityContext"].get(name) == value
        for container in containers(pod)
        for name, value in wanted.items()
    )


RULES: dict[str, Callable[[Pod], bool]] = {
    "latest-tag": lambda pod: all(
        "@sha256:" in container["image"] or container["image"].rpartition(":")[2][0].isdigit()
        for container in containers(pod)
    ),
    "unset-memory-requirements": lambda pod: all(
        {"requests", "limits"} <= container["resources"].keys() and "memory" in container["resources"]["limits"]
        for container in containers(pod)
    ),
    "privileged-container": lambda pod: (
        not any(container["securityContext"].get("privileged") for container in containers(pod))
    ),
    "privilege-escalation-container": lambda pod: secured(pod, allowPrivilegeEscalation=False),
    "no-read-only-root-fs": lambda pod: secured(pod, readOnlyRootFilesystem=True),
    "drop-net-raw-capability": lambda pod: secured(pod, capabilities={"drop": ["ALL"]}),
    "run-as-non-root": lambda pod: pod["securityContext"]["runAsNonRoot"] is True,
    "host-network": lambda pod: not pod.get("hostNetwork"),
    "host-pid": lambda pod: not pod.get("hostPID"),
    "host-ipc": lambda pod: not pod.get("hostIPC"),
    "default-service-account": lambda pod: pod["automountServiceAccountToken"] is False,
    "sensitive-host-mounts": lambda pod: not any("hostPath" in volume for volume in pod["volumes"]),
    "duplicate-env-var": lambda pod: all(
        len({v["name"] for v in container["env"]}) == len(container["env"]) for container in containers(pod)
    ),
    "env-var-secret": lambda pod: (
        not any("KEY" in v["name"] and "value" in v for container in containers(pod) for v in container["env"])
    ),
}


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_every_pod_passes(rule: str) -> None:
    assert len(PODS) > 20
    assert [pod for pod in PODS if not RULES[rule](pod)] == []


def test_no_liveness_probe_and_no_readiness_probe() -> None:
    assert all({"startupProbe", "livenessProbe", "readinessProbe"} <= pod["containers"][0].keys() for pod in ENGINES)


def test_exposed_services() -> None:
    assert {manifest["spec"]["type"] for manifest in OBJECTS if manifest["kind"] == "Service"} == {"ClusterIP"}


def test_non_isolated_pod() -> None:
    policies = [manifest for manifest in OBJECTS if manifest["kind"] == "NetworkPolicy"]
    assert {policy["spec"]["podSelector"]["matchLabels"]["llmops.dev/model"] for policy in policies} == set(MODELS)
