"""Changes of a Deployment after which the measured engines are no longer the release's, by comparing objects."""

from __future__ import annotations

from typing import Any

import pytest

from llmops.clients.kubernetes.ownership import shown
from llmops.config import names
from llmops.rollout.ops.measured import changes
from tests.unit.validation.test_drift_differences import deployment, engine, entry, in_engine


def seen(live: dict[str, Any], then: dict[str, Any] | None = None, track: names.Track = "canary") -> list[str]:
    return [shown(change.path) for change in changes(live, then or deployment(), track)]


def test_what_is_put_beside_the_engine_leaves_it_the_releases() -> None:
    beside = {
        "f:spec": {
            "f:replicas": {},
            "f:template": {
                "f:metadata": {"f:annotations": {"f:kubectl.kubernetes.io/restartedAt": {}, "f:injected": {}}},
                "f:spec": {
                    "f:containers": {'k:{"name":"side"}': {".": {}, "f:name": {}, "f:image": {}}},
                    "f:volumes": {'k:{"name":"side"}': {".": {}, "f:name": {}, "f:emptyDir": {}}},
                },
            },
        }
    }
    live = deployment(entry("injector", beside))
    live["spec"]["replicas"] = 3
    template = live["spec"]["template"]
    template["metadata"]["annotations"] |= {"kubectl.kubernetes.io/restartedAt": "T", "injected": "true"}
    template["spec"]["containers"].append({"name": "side", "image": "s"})
    template["spec"]["volumes"].append({"name": "side", "emptyDir": {}})
    # Fields of an admission rule have no manager.
    engine(live)["env"].append({"name": "HTTP_PROXY", "value": "p"})
    engine(live)["terminationMessagePath"] = "/dev/termination-log"
    assert seen(live) == []


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"image": "i@sha256:2"}, "image"),
        ({"args": ["--a", "--b", "--c"]}, "args"),
        ({"command": ["sh"]}, "command"),
        ({"resources": {"limits": {"cpu": "1"}}}, "resources"),
    ],
)
@pytest.mark.parametrize("track", ["canary", "stable"])
def test_what_somebody_changed_of_the_engine_is_seen(change: dict[str, Any], field: str, track: names.Track) -> None:
    live = deployment(entry("keel", in_engine({f"f:{name}": {} for name in change})))
    engine(live).update(change)
    assert seen(live, track=track) == [f"spec.template.spec.containers[engine].{field}"]


def test_a_variable_that_was_added_or_taken_away_is_seen() -> None:
    added = {"f:env": {'k:{"name":"X"}': {".": {}, "f:name": {}, "f:value": {}}}}
    live = deployment(entry("kubectl-set", in_engine(added)))
    engine(live)["env"] = [{"name": "X", "value": "1"}]
    field = "spec.template.spec.containers[engine].env"
    assert seen(live) == [f"{field}[HOME].name", f"{field}[HOME].value", f"{field}[X]"]


def test_the_same_content_from_another_registry_is_the_release() -> None:
    live = deployment(entry("mirror", in_engine({"f:image": {}})))
    engine(live)["image"] = "mirror.local/hub/i@sha256:1"
    assert seen(live) == []
    engine(live)["image"] = "i:latest"
    assert seen(live) == ["spec.template.spec.containers[engine].image"]


def test_a_stable_that_an_earlier_version_has_applied_is_nobodys_change() -> None:
    then = deployment()
    engine(then)["args"] = ["--a", "--b", "--new-default"]
    assert seen(deployment(), then, "stable") == []
    assert seen(deployment(), then, "canary") == ["spec.template.spec.containers[engine].args"]


def test_a_service_that_leads_to_other_pods_is_seen() -> None:
    ours = {"f:spec": {"f:selector": {"f:llmops.dev/track": {}}, "f:ports": {}}}

    def service(track: str, *managers: dict[str, Any]) -> dict[str, Any]:
        return {
            "metadata": {"name": "m-canary", "managedFields": [entry("llmops", ours, operation="Apply"), *managers]},
            "spec": {"selector": {"llmops.dev/track": track}, "ports": [{"port": 8000}]},
        }

    by = entry("kubectl-patch", {"f:spec": {"f:selector": {"f:llmops.dev/track": {}}}})
    assert seen(service("stable", by), service("canary")) == ["spec.selector[llmops.dev/track]"]
    assert seen(service("canary", by), service("canary")) == []
