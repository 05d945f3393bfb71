"""Which fields differ, and who set them, from the objects as an API server gives them."""

from __future__ import annotations

import copy
from typing import Any

from llmops.cluster.ownership import ABSENT, owners, shown, value_at
from llmops.stages.validation.drift import REPLICAS, Difference, differences, stray_pods

IMAGE = ("f:spec", "f:template", "f:spec", "f:containers", 'k:{"name":"engine"}', "f:image")
OURS: dict[str, Any] = {
    "f:metadata": {"f:labels": {"f:llmops.dev/release": {}}},
    "f:spec": {
        "f:replicas": {},
        "f:template": {
            "f:spec": {
                "f:containers": {
                    'k:{"name":"engine"}': {
                        ".": {},
                        "f:name": {},
                        "f:image": {},
                        "f:args": {},
                        "f:env": {'k:{"name":"HOME"}': {".": {}, "f:name": {}, "f:value": {}}},
                    }
                },
                "f:volumes": {'k:{"name":"tmp"}': {".": {}, "f:emptyDir": {}, "f:name": {}}},
            }
        },
    },
}


def entry(manager: str, fields: dict[str, Any], *, operation: str = "Update", **more: str) -> dict[str, Any]:
    return {"manager": manager, "operation": operation, "time": "2026-11-25T03:00:00Z", "fieldsV1": fields, **more}


def deployment(*managers: dict[str, Any]) -> dict[str, Any]:
    engine: dict[str, Any] = {
        "name": "engine",
        "image": "i@sha256:1",
        "args": ["--a", "--b"],
        "env": [{"name": "HOME", "value": "/h"}],
        # A default that nobody set.
        "imagePullPolicy": "IfNotPresent",
    }
    return {
        "metadata": {
            "name": "m",
            "labels": {"llmops.dev/release": "r1"},
            "managedFields": [entry("llmops", OURS, operation="Apply"), *managers],
        },
        "spec": {
            "replicas": 1,
            "template": {
                "metadata": {"annotations": {}},
                "spec": {"containers": [engine], "volumes": [{"name": "tmp", "emptyDir": {}}]},
            },
        },
        "status": {"replicas": 1},
    }


def engine(obj: dict[str, Any]) -> dict[str, Any]:
    return obj["spec"]["template"]["spec"]["containers"][0]


def in_engine(fields: dict[str, Any]) -> dict[str, Any]:
    return {"f:spec": {"f:template": {"f:spec": {"f:containers": {'k:{"name":"engine"}': fields}}}}}


def found(live: dict[str, Any], *ignored: tuple[str, ...]) -> dict[str, Difference]:
    then = deployment()
    return {shown(each.path): each for each in differences(live, then, ignored)}


def test_what_is_as_it_was_is_no_difference_whoever_else_set_it_to_the_same() -> None:
    status = entry("kube-controller-manager", {"f:status": {"f:replicas": {}}}, subresource="status")
    revision = entry("kube-controller-manager", {"f:metadata": {"f:annotations": {"f:revision": {}}}})
    same = entry("argocd", in_engine({"f:image": {}}))
    restarted = entry(
        "kubectl-rollout",
        {"f:spec": {"f:template": {"f:metadata": {"f:annotations": {"f:kubectl.kubernetes.io/restartedAt": {}}}}}},
    )
    live = deployment(status, revision, same, restarted)
    live["spec"]["template"]["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"] = "now"
    live["metadata"]["resourceVersion"] = "9"
    assert found(live) == {}


def test_a_changed_field_is_named_with_its_values_and_who_changed_it() -> None:
    live = deployment(entry("kubectl-edit", in_engine({"f:image": {}, "f:args": {}})))
    engine(live)["image"] = "i@sha256:2"
    engine(live)["args"] = ["--a"]
    seen = found(live)
    assert set(seen) == {f"spec.template.spec.containers[engine].{field}" for field in ("image", "args")}
    image = seen["spec.template.spec.containers[engine].image"]
    assert (image.found, image.wanted) == ("i@sha256:2", "i@sha256:1")
    assert image.by == "kubectl-edit at 2026-11-25T03:00:00Z"


def test_a_scale_is_told_by_its_subresource_and_left_to_an_autoscaler() -> None:
    live = deployment(entry("kubectl", {"f:spec": {"f:replicas": {}}}, subresource="scale"))
    live["spec"]["replicas"] = 4
    assert found(live)["spec.replicas"].by == "kubectl (scale) at 2026-11-25T03:00:00Z"
    assert found(live, REPLICAS) == {}


def test_what_was_taken_away_is_found_though_nobody_owns_it_any_more() -> None:
    live = deployment()
    engine(live)["env"] = []
    live["spec"]["template"]["spec"]["volumes"] = []
    seen = found(live)
    home = seen["spec.template.spec.containers[engine].env[HOME].value"]
    assert home.found is ABSENT
    assert "spec.template.spec.volumes[tmp].emptyDir" in seen


def test_what_was_added_is_one_finding_for_the_outermost_of_it() -> None:
    added = {"f:env": {'k:{"name":"X"}': {".": {}, "f:name": {}, "f:value": {}}}, "f:command": {}}
    sidecar = {"f:spec": {"f:template": {"f:spec": {"f:containers": {'k:{"name":"side"}': {".": {}, "f:image": {}}}}}}}
    live = deployment(entry("kubectl-edit", in_engine(added)), entry("injector", sidecar))
    engine(live)["env"].append({"name": "X", "value": "1"})
    engine(live)["command"] = ["sh"]
    live["spec"]["template"]["spec"]["containers"].append({"name": "side", "image": "s"})
    seen = found(live)
    assert set(seen) == {
        "spec.template.spec.containers[engine].env[X]",
        "spec.template.spec.containers[engine].command",
        "spec.template.spec.containers[side]",
    }
    assert all(each.wanted is ABSENT for each in seen.values())
    assert seen["spec.template.spec.containers[side]"].by.startswith("injector")


def test_values_are_found_by_every_kind_of_segment() -> None:
    obj = {"a": [{"k": 1, "p": "TCP", "v": "x"}], "s": ["one", "two"]}
    assert value_at(obj, ("f:a", 'k:{"k":1,"p":"TCP"}', "f:v")) == "x"
    assert value_at(obj, ("f:a", 'k:{"k":2,"p":"TCP"}', "f:v")) is ABSENT
    assert value_at(obj, ("f:s", 'v:"two"')) == "two"
    assert value_at(obj, ("f:s", 'v:"three"')) is ABSENT
    assert value_at(obj, ("f:s", "i:0")) == "one"
    assert value_at(obj, ("f:s", "i:2")) is ABSENT
    assert value_at(obj, ("f:a", "f:b")) is ABSENT
    assert shown(("f:metadata", "f:labels", "f:llmops.dev/x")) == "metadata.labels[llmops.dev/x]"
    assert [owner.manager for owner in owners({"metadata": {}})] == []


def test_pods_that_run_something_else_or_belong_to_nobody_are_named() -> None:
    main = deployment()
    pod: dict[str, Any] = {
        "metadata": {"name": "m-1", "ownerReferences": [{"kind": "ReplicaSet"}]},
        "spec": {"containers": [{"name": "injected"}, copy.deepcopy(engine(main))]},
        "status": {"phase": "Running"},
    }
    assert stray_pods(main, [pod]) == []
    other = copy.deepcopy(pod)
    other["spec"]["containers"][1]["image"] = "old"
    assert 'runs image "old"' in stray_pods(main, [other])[0].message
    other["metadata"]["deletionTimestamp"] = "now"
    assert stray_pods(main, [other]) == []
    alone = copy.deepcopy(pod)
    del alone["metadata"]["ownerReferences"]
    assert "is of no Deployment" in stray_pods(main, [alone])[0].message
