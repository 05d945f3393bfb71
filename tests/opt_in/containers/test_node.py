"""What only a real node does: users, rights, file systems, groups of volumes, accounts and names."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable
from typing import Any

from llmops_sandbox.containers.address import ADDRESS, NODE, REGISTRY
from llmops_sandbox.containers.configs import PLAIN_STORAGE_CLASS
from llmops_sandbox.sandbox import WORKER_IMAGE

from llmops.clients.kubernetes.client import Cluster
from tests.support.kubelet_pods import POD_SECURITY, pod, python

Object = dict[str, Any]
STATUS = """
import json, os
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
def write(path):
    try:
        open(path + "/x", "w").close()
        return "written"
    except OSError as error:
        return error.strerror
print(json.dumps({
    "user": os.getuid(), "group": os.getgid(), "groups": sorted(os.getgroups()),
    **{key: status[key].strip() for key in ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp")},
    "root": write("/"), "tmp": write("/tmp") if os.path.ismount("/tmp") else "not mounted",
}))
"""


def wait(cluster: Cluster, name: str, done: Callable[[Object], bool], seconds: float = 180) -> Object:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        current = cluster.get("Pod", name)
        if current and done(current):
            return current
        time.sleep(0.3)
    raise AssertionError(json.dumps(cluster.get("Pod", name), indent=1))


def ended(current: Object) -> bool:
    return current["status"]["phase"] in ("Succeeded", "Failed")


def output(cluster: Cluster, made: Object) -> str:
    """The output of a pod that runs once."""
    made["spec"]["restartPolicy"] = "Never"
    name = made["metadata"]["name"]
    cluster.create(made)
    current = wait(cluster, name, ended)
    log = cluster.logs(name, container="engine")
    assert current["status"]["phase"] == "Succeeded", log
    cluster.delete("Pod", name, wait=60)
    return log


def test_a_container_has_the_user_that_its_pod_says_and_no_rights(probe: Cluster) -> None:
    volumes = [{"name": "tmp", "emptyDir": {}}]
    container = {"command": python(STATUS), "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}]}
    said = json.loads(output(probe, pod("rights", container, volumes=volumes)))
    assert (said["user"], said["group"]) == (2000, 2000)
    assert (said["CapEff"], said["CapBnd"]) == ("0" * 16, "0" * 16)
    assert (said["NoNewPrivs"], said["Seccomp"]) == ("1", "2")
    assert said["root"] == "Read-only file system"
    assert said["tmp"] == "written"


def test_an_image_is_pulled_by_digest_and_the_status_names_it(probe: Cluster) -> None:
    name, _, tag = WORKER_IMAGE.rpartition(":")
    request = urllib.request.Request(
        f"http://{REGISTRY}/v2/{name.partition('/')[2]}/manifests/{tag}",
        headers={"Accept": "application/vnd.oci.image.manifest.v1+json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        digest = answer.headers["Docker-Content-Digest"]
    probe.create(pod("digest", {"image": f"{name}@{digest}"}))
    current = wait(probe, "digest", lambda current: current["status"]["phase"] == "Running")
    assert current["status"]["containerStatuses"][0]["imageID"].endswith(digest)
    probe.delete("Pod", "digest")


def test_a_volume_takes_the_pods_group_where_its_driver_applies_it(probe: Cluster) -> None:
    """A hostPath keeps the group of its folder, as NFS does."""
    code = python("import os; s = os.stat('/v'); open('/v/x', 'w').close(); print(s.st_gid)")
    probe.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "plain"},
            "spec": {
                "accessModes": ["ReadWriteMany"],
                "storageClassName": PLAIN_STORAGE_CLASS,
                "resources": {"requests": {"storage": "1Gi"}},
            },
        }
    )

    def made(source: Object) -> Object:
        return pod(
            "volume",
            {"command": code, "volumeMounts": [{"name": "v", "mountPath": "/v"}]},
            {"securityContext": {**POD_SECURITY, "fsGroup": 2000}, "restartPolicy": "Never"},
            [{"name": "v", **source}],
        )

    assert output(probe, made({"emptyDir": {}})).strip() == "2000"
    probe.create(made({"persistentVolumeClaim": {"claimName": "plain"}}))
    assert wait(probe, "volume", ended)["status"]["phase"] == "Failed"
    assert "Permission denied" in probe.logs("volume", container="engine")


def test_a_part_of_a_volume_is_mounted_alone(probe: Cluster) -> None:
    source = {"configMap": {"name": "kube-root-ca.crt"}}
    mount = {"name": "v", "mountPath": "/etc/one", "subPath": "ca.crt"}
    container = {"command": python("print(open('/etc/one').read())"), "volumeMounts": [mount]}
    assert "BEGIN CERTIFICATE" in output(probe, pod("part", container, volumes=[{"name": "v", **source}]))


def test_a_pod_reaches_the_api_server_by_name_with_its_own_account(probe: Cluster) -> None:
    code = """
import json, ssl, urllib.request
folder = "/var/run/secrets/kubernetes.io/serviceaccount/"
context = ssl.create_default_context(cafile=folder + "ca.crt")
headers = {"Authorization": "Bearer " + open(folder + "token").read(), "Content-Type": "application/json"}
body = json.dumps({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).encode()
url = "https://kubernetes.default.svc/apis/authentication.k8s.io/v1/selfsubjectreviews"
with urllib.request.urlopen(urllib.request.Request(url, body, headers), context=context, timeout=10) as reply:
    print(json.load(reply)["status"]["userInfo"]["username"])
"""
    made = pod("account", {"command": python(code)}, {"automountServiceAccountToken": True})
    assert output(probe, made).strip() == "system:serviceaccount:probe:default"


def test_a_container_that_ends_gets_its_hook_and_its_grace(probe: Cluster) -> None:
    """The kubelet runs preStop before SIGTERM, and both within the pod's grace period."""
    code = """
import signal, sys, time
began = time.time()
def stop(*_):
    print("term", flush=True); time.sleep(1); print("ended", flush=True); sys.exit(0)
signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
while True: time.sleep(0.1)
"""
    before = "import time; open('/proc/1/fd/1', 'w').write('hook\\n'); time.sleep(1)"
    hook = {"preStop": {"exec": {"command": python(before)}}}
    probe.create(pod("ending", {"command": python(code), "lifecycle": hook}, {"terminationGracePeriodSeconds": 30}))
    wait(probe, "ending", lambda current: current["status"]["phase"] == "Running")
    lines: list[str] = []
    for line in probe.follow_logs("ending", container="engine", stop=lambda: False):
        lines.append(line.strip())
        if line.strip() == "ready":
            probe.delete("Pod", "ending")
        if line.strip() == "ended":
            break
    assert lines == ["ready", "hook", "term", "ended"]


def test_the_node_is_one_with_containers(probe: Cluster) -> None:
    node = probe.get("Node", NODE)
    assert node is not None
    info = node["status"]["nodeInfo"]
    assert info["containerRuntimeVersion"].startswith("containerd://2.")
    assert any(address["address"] == ADDRESS for address in node["status"]["addresses"])
    assert node["status"]["allocatable"]["nvidia.com/gpu"] == "2"
