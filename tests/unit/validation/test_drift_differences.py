"""Which fields differ from the release, and which manager set them."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from llmops.clients.kubernetes.ownership import ABSENT, owners, shown, value_at, without
from llmops.rollout.revalidation.drift import REPLICAS, Difference, differences, stray_pods

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
        # The API server's default.
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


def differences_by_path(live: dict[str, Any], *ignored: tuple[str, ...]) -> dict[str, Difference]:
    return {shown(difference.path): difference for difference in differences(live, deployment(), ignored)}


def test_a_field_that_another_manager_sets_to_the_same_value_is_no_difference() -> None:
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
    assert differences_by_path(live) == {}


def test_a_changed_field_is_named_with_its_values_and_its_manager() -> None:
    live = deployment(entry("kubectl-edit", in_engine({"f:image": {}, "f:args": {}})))
    engine(live)["image"] = "i@sha256:2"
    engine(live)["args"] = ["--a"]
    by_path = differences_by_path(live)
    assert set(by_path) == {f"spec.template.spec.containers[engine].{field}" for field in ("image", "args")}
    image = by_path["spec.template.spec.containers[engine].image"]
    assert (image.actual, image.wanted) == ("i@sha256:2", "i@sha256:1")
    assert str(image.by) == "kubectl-edit (Update) at 2026-11-25T03:00:00Z"


def test_a_scale_names_its_subresource_and_is_ignored_under_an_autoscaler() -> None:
    live = deployment(entry("kubectl", {"f:spec": {"f:replicas": {}}}, subresource="scale"))
    live["spec"]["replicas"] = 4
    assert str(differences_by_path(live)["spec.replicas"].by) == "kubectl (Update of scale) at 2026-11-25T03:00:00Z"
    assert differences_by_path(live, REPLICAS) == {}


def test_a_removed_field_is_a_difference_though_no_manager_owns_it() -> None:
    live = deployment()
    engine(live)["env"] = []
    live["spec"]["template"]["spec"]["volumes"] = []
    by_path = differences_by_path(live)
    home = by_path["spec.template.spec.containers[engine].env[HOME].value"]
    assert home.actual is ABSENT
    assert "spec.template.spec.volumes[tmp].emptyDir" in by_path


def test_an_added_structure_is_one_difference_at_its_outermost_field() -> None:
    added = {"f:env": {'k:{"name":"X"}': {".": {}, "f:name": {}, "f:value": {}}}, "f:command": {}}
    sidecar = {"f:spec": {"f:template": {"f:spec": {"f:containers": {'k:{"name":"side"}': {".": {}, "f:image": {}}}}}}}
    live = deployment(entry("kubectl-edit", in_engine(added)), entry("injector", sidecar))
    engine(live)["env"].append({"name": "X", "value": "1"})
    engine(live)["command"] = ["sh"]
    live["spec"]["template"]["spec"]["containers"].append({"name": "side", "image": "s"})
    by_path = differences_by_path(live)
    assert set(by_path) == {
        "spec.template.spec.containers[engine].env[X]",
        "spec.template.spec.containers[engine].command",
        "spec.template.spec.containers[side]",
    }
    assert all(difference.wanted is ABSENT for difference in by_path.values())
    assert by_path["spec.template.spec.containers[side]"].by == owners(live)[2]


def test_every_kind_of_path_segment_leads_to_its_value() -> None:
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


def pod_of(main: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A ReplicaSet of a Deployment, and a pod of it that admission rules changed."""
    replica_set = {"metadata": {"uid": "set-1", "name": "m-1", "creationTimestamp": "T1"}, "spec": main["spec"]}
    own = copy.deepcopy(engine(main))
    own |= {"command": ["/vault-env"], "args": ["vllm", *own["args"]], "terminationMessagePath": "/dev/termination-log"}
    own["env"].append({"name": "HTTP_PROXY", "value": "p"})
    pod = {
        "metadata": {"name": "m-1-x", "ownerReferences": [{"kind": "ReplicaSet", "uid": "set-1"}]},
        "spec": {"containers": [{"name": "injected", "image": "s"}, own]},
        "status": {"phase": "Running", "containerStatuses": [{"name": "engine", "imageID": "sha256:c"}]},
    }
    return copy.deepcopy(replica_set), pod


def test_a_change_by_an_admission_rule_makes_no_stray_pod() -> None:
    main = deployment()
    replica_set, pod = pod_of(main)
    assert stray_pods(main, [pod], [replica_set]) == []
    # A terminating pod gets no requests.
    pod["spec"]["containers"][1]["image"] = "i@sha256:2"
    assert len(stray_pods(main, [pod], [replica_set])) == 1
    assert stray_pods(main, [pod | {"metadata": pod["metadata"] | {"deletionTimestamp": "T"}}], [replica_set]) == []


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"image": "i@sha256:2"}, 'runs image "i@sha256:2" (by ReplicaSet m-1 of T1); its Deployment has "i@sha256:1"'),
        ({"args": ["--a"]}, 'runs args ["--a"] (by'),
        ({"command": ["sh"]}, 'runs command ["sh"] (by'),
        ({"env": []}, "runs env[HOME] nothing (by"),
        ({"env": [{"name": "HOME", "value": "/h"}, {"name": "X", "value": "1"}]}, 'runs env[X] {"name": "X", "value"'),
    ],
)
def test_the_message_on_a_pod_of_another_template_has_the_differing_part(change: dict[str, Any], part: str) -> None:
    main = deployment()
    replica_set, pod = pod_of(main)
    replica_set["spec"]["template"]["spec"]["containers"][0] |= change
    [stray] = stray_pods(main, [pod], [replica_set])
    assert stray.subject == "pod m-1-x"
    assert part in stray.message


def test_the_message_on_a_stray_pod_begins_with_its_image() -> None:
    main = deployment()
    replica_set, pod = pod_of(main)
    replica_set["spec"]["template"]["spec"]["containers"][0] |= {"image": "i@sha256:2", "args": [], "env": []}
    [stray] = stray_pods(main, [pod], [replica_set])
    assert stray.message.startswith('pod m-1-x runs image "i@sha256:2" (by')
    assert stray.message.endswith('"i@sha256:1", and 2 more')


def test_a_volume_counts_if_the_engine_mounts_it() -> None:
    main = deployment()
    engine(main)["volumeMounts"] = [{"name": "tmp", "mountPath": "/tmp"}]
    replica_set, pod = pod_of(main)
    replica_set["spec"]["template"]["spec"]["volumes"].append({"name": "of-a-sidecar", "emptyDir": {}})
    assert stray_pods(main, [pod], [replica_set]) == []
    replica_set["spec"]["template"]["spec"]["volumes"][0] = {"name": "tmp", "hostPath": {"path": "/"}}
    assert "runs volume tmp" in stray_pods(main, [pod], [replica_set])[0].message


@pytest.mark.parametrize(
    ("image", "image_id", "same"),
    [
        ("i@sha256:1", "sha256:of-a-configuration", True),
        ("i@sha256:1", "docker.io/i@sha256:of-a-platform", True),
        ("mirror.local/hub/i@sha256:1", "", True),
        ("mirror.local/hub/i:v1", "docker-pullable://mirror.local/hub/i@sha256:1", True),
        ("mirror.local/hub/i:v1", "sha256:of-a-configuration", False),
        # The node still reports the previous image.
        ("i@sha256:2", "docker.io/i@sha256:1", False),
    ],
)
def test_digests_decide_and_an_image_id_can_only_prove_equality(image: str, image_id: str, same: bool) -> None:
    main = deployment()
    replica_set, pod = pod_of(main)
    pod["spec"]["containers"][1]["image"] = image
    pod["status"]["containerStatuses"][0]["imageID"] = image_id
    assert (stray_pods(main, [pod], [replica_set]) == []) is same


def test_the_message_on_a_pods_changed_image_names_the_manager() -> None:
    main = deployment()
    replica_set, pod = pod_of(main)
    pod["spec"]["containers"][1]["image"] = "i@sha256:2"
    field = {"f:spec": {"f:containers": {'k:{"name":"engine"}': {"f:image": {}}}}}
    pod["metadata"]["managedFields"] = [entry("kubectl-set", field)]
    [stray] = stray_pods(main, [pod], [replica_set])
    assert '(set by kubectl-set (Update) at 2026-11-25T03:00:00Z); its Deployment has "i@sha256:1"' in stray.message


def test_a_pod_without_an_owner_is_a_stray_pod() -> None:
    main = deployment()
    _, pod = pod_of(main)
    del pod["metadata"]["ownerReferences"]
    assert [stray.subject for stray in stray_pods(main, [pod], [])] == ["pod m-1-x"]


def test_fields_are_taken_out_of_a_copy() -> None:
    obj = {"a": [{"k": 1, "v": "x"}, {"k": 2, "v": "y", "w": {}}], "b": {"c": 1, "d": 2}, "s": ["one", "two"]}
    paths = (("f:a", 'k:{"k":1}'), ("f:a", 'k:{"k":2}', "f:w"), ("f:b", "f:c"), ("f:s", 'v:"one"'), ("f:none", "f:x"))
    # A merge patch removes what is null, and replaces lists.
    assert without(obj, paths) == {"a": [{"k": 2, "v": "y", "w": None}], "b": {"c": None, "d": 2}, "s": ["two"]}
    assert obj["b"] == {"c": 1, "d": 2}
    assert len(obj["a"]) == 2
