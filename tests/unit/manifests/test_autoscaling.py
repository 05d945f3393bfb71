"""The autoscaler of each kind, the bounds of replicas, and refused combinations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from hypothesis import given
from hypothesis import settings as examined
from hypothesis import strategies as st
from pydantic import ValidationError

from llmops.config import names
from llmops.config.catalog.spec import ModelSpec
from llmops.config.settings import Settings
from llmops.errors import BadInput
from llmops.manifests.companions.autoscaling import adapter_rules, most_replicas, objects, scale
from llmops.manifests.engine import deployment
from llmops.releases.ledger import declaration, terms
from llmops.releases.release import Release

ROOT = Path(__file__).parents[3]


def entry(**sections: Any) -> ModelSpec:
    base = {"name": "tiny", "weights": {"repo": "acme/tiny"}, "engine": {"version": "0.32.0"}}
    return ModelSpec.model_validate(base | sections)


def refused(**sections: Any) -> str:
    with pytest.raises(ValidationError) as raised:
        entry(**sections)
    return str(raised.value)


def test_a_fixed_number_of_replicas_has_no_autoscaler(release: Release, settings: Settings) -> None:
    assert objects(entry(replicas=3), release, settings) == []
    assert (scale(entry(replicas=3)), most_replicas(entry(replicas=3))) == (3, 3)


def test_the_default_is_the_articles_autoscaler(release: Release, settings: Settings) -> None:
    (autoscaler,) = objects(entry(replicas=2, autoscaling={}), release, settings)
    kubernetes_validate.validate(autoscaler, "1.37", strict=True)
    assert autoscaler["apiVersion"] == "autoscaling/v2"
    assert autoscaler["metadata"]["namespace"] == "serving"
    # The autoscaler scales stable, never the canary.
    target = deployment(release, settings, "stable", "HorizontalPodAutoscaler", surge=True)
    assert autoscaler["spec"] == {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target["metadata"]["name"]},
        "minReplicas": 2,
        "maxReplicas": 8,
        "metrics": [
            {
                "type": "Pods",
                "pods": {
                    "metric": {"name": "vllm_num_requests_waiting"},
                    "target": {"type": "AverageValue", "averageValue": "5"},
                },
            }
        ],
        "behavior": {
            "scaleUp": {
                "stabilizationWindowSeconds": 60,
                "policies": [{"type": "Pods", "value": 2, "periodSeconds": 60}],
            },
            "scaleDown": {
                "stabilizationWindowSeconds": 600,
                "policies": [{"type": "Pods", "value": 1, "periodSeconds": 300}],
            },
        },
    }


def test_running_requests_can_keep_replicas(release: Release, settings: Settings) -> None:
    (autoscaler,) = objects(entry(autoscaling={"waiting": 3, "running": 40}), release, settings)
    amounts = {
        metric["pods"]["metric"]["name"]: metric["pods"]["target"]["averageValue"]
        for metric in autoscaler["spec"]["metrics"]
    }
    assert amounts == {"vllm_num_requests_waiting": "3", "vllm_num_requests_running": "40"}


def test_kind_cpu_scales_by_the_use_of_cpu(release: Release, settings: Settings) -> None:
    (autoscaler,) = objects(entry(autoscaling={"kind": "cpu"}), release, settings)
    kubernetes_validate.validate(autoscaler, "1.37", strict=True)
    target = {"type": "Utilization", "averageUtilization": 70}
    assert autoscaler["spec"]["metrics"] == [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    # Utilization is a share of requests: every container needs one.
    pod = deployment(release, settings, "stable", 1, surge=True)["spec"]["template"]["spec"]
    assert all("cpu" in container["resources"]["requests"] for container in pod["containers"])


def test_keda_queries_prometheus(release: Release, settings: Settings) -> None:
    spec = entry(replicas=2, autoscaling={"kind": "keda", "max": 4, "running": 20})
    with pytest.raises(BadInput) as raised:
        objects(spec, release, settings)
    assert (raised.value.code, raised.value.about) == ("NoPrometheus", "model tiny")
    monitored = settings.model_copy(
        update={"monitoring": settings.monitoring.model_copy(update={"prometheus_url": "http://prometheus:9090"})}
    )
    (autoscaler,) = objects(spec, release, monitored)
    assert (autoscaler["kind"], scale(spec)) == ("ScaledObject", "ScaledObject")
    wanted = autoscaler["spec"]
    assert wanted["scaleTargetRef"] == {"name": "tiny"}
    assert (wanted["minReplicaCount"], wanted["maxReplicaCount"]) == (2, 4)
    assert [trigger["metadata"]["threshold"] for trigger in wanted["triggers"]] == ["5", "20"]
    first = wanted["triggers"][0]["metadata"]
    assert first["query"] == 'sum(vllm:num_requests_waiting{namespace="serving",model="tiny",track="stable"})'
    assert first["serverAddress"] == "http://prometheus:9090"
    behaviour = wanted["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    (queue,) = objects(entry(autoscaling={}), release, settings)
    assert behaviour == queue["spec"]["behavior"]


def test_zero_replicas_are_refused() -> None:
    """A rollout compares with serving replicas, and nothing keeps a request until an engine has loaded."""
    assert "replicas" in refused(replicas=0, autoscaling={"kind": "keda"})


def test_an_autoscaled_deployment_names_its_autoscaler_and_no_replicas(release: Release, settings: Settings) -> None:
    scaled = deployment(release, settings, "stable", scale(entry(autoscaling={})), surge=True)
    assert "replicas" not in scaled["spec"]
    assert scaled["metadata"]["annotations"] == {names.AUTOSCALER_ANNOTATION: "HorizontalPodAutoscaler"}
    fixed = deployment(release, settings, "stable", scale(entry(replicas=3)), surge=True)
    assert fixed["spec"]["replicas"] == 3
    assert "annotations" not in fixed["metadata"]


@pytest.mark.parametrize(
    ("sections", "problem"),
    [
        ({"replicas": 9, "autoscaling": {}}, "autoscaling.max: is 8"),
        ({"replicas": 2, "rollout": {"strategy": "in-place"}, "autoscaling": {}}, "rollout.strategy: is in-place"),
        (
            {"engine": {"version": "1", "options": {"max_num_seqs": 32}}, "autoscaling": {"running": 32}},
            "autoscaling.running: is 32",
        ),
        ({"autoscaling": {"scale_up": {"period_seconds": 0}}}, "greater than or equal to 1"),
        ({"autoscaling": {"scale_down": {"window_seconds": 3601}}}, "less than or equal to 3600"),
    ],
)
def test_inconsistent_autoscaling_is_refused(sections: dict[str, Any], problem: str) -> None:
    assert problem in refused(**sections)


def test_a_change_of_autoscaling_is_no_new_release_and_asks_for_a_run() -> None:
    before, after = entry(replicas=2), entry(replicas=2, autoscaling={})
    assert terms(before, {}) == terms(after, {})
    assert declaration(before, {}) != declaration(after, {})


def test_the_file_for_the_adapter_has_the_tested_rule() -> None:
    """tests/opt_in/stack/test_autoscaling.py tests the rule in a real adapter."""
    assert yaml.safe_load((ROOT / "k8s/autoscaling/prometheus-adapter.yaml").read_text()) == adapter_rules()


@examined(deadline=None, max_examples=40)
@given(
    replicas=st.integers(1, 12),
    most=st.integers(1, 12),
    kind=st.sampled_from(["queue", "cpu", "keda"]),
    running=st.none() | st.integers(1, 500),
    up=st.tuples(st.integers(0, 3600), st.integers(1, 50), st.integers(1, 1800)),
)
def test_kubernetes_accepts_every_accepted_entry(
    replicas: int, most: int, kind: str, running: int | None, up: tuple[int, int, int]
) -> None:
    pace = dict(zip(("window_seconds", "pods", "period_seconds"), up, strict=True))
    scaling = {"kind": kind, "max": most, "running": running, "scale_up": pace, "scale_down": pace}
    if most < replicas:
        assert "max" in refused(replicas=replicas, autoscaling=scaling)
        return
    spec = entry(replicas=replicas, autoscaling=scaling)
    settings = Settings.model_validate({"monitoring": {"prometheus_url": "http://p:9090"}})
    release = Release.model_validate(
        {
            "model": "tiny",
            "weights": {"repo": "a/b", "commit": "0" * 40, "files": [{"path": "m.safetensors", "size": 1}]},
            "engine": {"image": "vllm/vllm-openai", "tag": "v0.32.0", "digest": f"sha256:{'0' * 64}"},
            **{name: {} for name in ("gpu", "resources", "evaluation", "rollout", "access")},
            "suites": [],
        }
    )
    (autoscaler,) = objects(spec, release, settings)
    assert [autoscaler] == objects(spec, release, settings)
    if kind != "keda":
        kubernetes_validate.validate(autoscaler, "1.37", strict=True)
        assert 1 <= autoscaler["spec"]["minReplicas"] <= autoscaler["spec"]["maxReplicas"]
