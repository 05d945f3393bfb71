"""Waits for Jobs and rollouts, with real controllers and scheduler, and a hand-driven kubelet."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from llmops_sandbox.cluster.controlplane import ControlPlane

from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.problems import NotFound, TimedOut
from llmops.clients.kubernetes.wait import JobOutcome, wait_for_job, wait_for_rollout, wait_until
from llmops.clients.kubernetes.watch import Object
from llmops.errors import BadRelease, ClusterCannot
from tests.api.cluster.conftest import NODE, Kubelet, api_server_away, eventually, pod_template

WEB = {"app": "web"}
GPU_CONTAINER = {"name": "engine", "image": "x", "resources": {"limits": {"nvidia.com/gpu": "1"}}}


class Waiter:
    """A wait in a thread, so that the test can play the kubelet meanwhile."""

    def __init__(self, wait: Callable[[], Any]) -> None:
        self._wait = wait
        self._value: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value = self._wait()
        except BaseException as error:  # noqa: BLE001 - raised again in the thread of the test
            self._error = error

    @property
    def waits(self) -> bool:
        return self._thread.is_alive()

    def result(self, within: float) -> Any:
        """What the wait returns or raises; fails if it does not end within this many seconds."""
        self._thread.join(within)
        assert not self._thread.is_alive(), f"the wait has not ended after {within} s"
        if self._error is not None:
            raise self._error
        return self._value


def deployment(replicas: int = 1, image: str = "example.com/x:1", **spec: Any) -> Object:
    spec = {"containers": [{"name": "engine", "image": image}], **spec}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": WEB},
            "template": pod_template(WEB, **spec),
        },
    }


def job(**spec: Any) -> Object:
    template = pod_template({"app": "job"}, restartPolicy="Never")
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "job"},
        "spec": {"backoffLimit": 0, **spec, "template": template},
    }


def rollout(cluster: Cluster, timeout: float = 60, **options: Any) -> Waiter:
    return Waiter(lambda: wait_for_rollout(cluster, "web", timeout=timeout, **options))


def finish(cluster: Cluster, timeout: float = 60, **options: Any) -> Waiter:
    return Waiter(lambda: wait_for_job(cluster, "job", timeout=timeout, **options))


def test_a_rollout_is_done_when_all_new_pods_are_available(cluster: Cluster, kubelet: Kubelet) -> None:
    cluster.apply(deployment(replicas=2))
    lines: list[str] = []
    waiter = rollout(cluster, on_progress=lines.append)
    first, second = kubelet.pods(WEB, 2)
    kubelet.ready(first)
    eventually(lambda: True if any("2 of 2 new pods, 1 available" in line for line in lines) else None)
    assert waiter.waits
    kubelet.ready(second)
    assert waiter.result(within=3)["status"]["availableReplicas"] == 2
    assert all(line != following for line, following in pairwise(lines))


def test_a_rollout_waits_for_the_new_template_and_not_for_the_old_pods(cluster: Cluster, kubelet: Kubelet) -> None:
    cluster.apply(deployment())
    [old] = kubelet.pods(WEB)
    kubelet.ready(old)
    rollout(cluster).result(within=10)
    cluster.apply(deployment(image="example.com/x:2"))
    waiter = rollout(cluster)
    [new] = [pod for pod in kubelet.pods(WEB, 2) if pod["metadata"]["uid"] != old["metadata"]["uid"]]
    time.sleep(1)
    assert waiter.waits
    kubelet.ready(new)
    waiter.result(within=5)


def test_a_drained_rollout_waits_for_the_last_old_pod(cluster: Cluster, kubelet: Kubelet) -> None:
    cluster.apply(deployment(terminationGracePeriodSeconds=60))
    [old] = kubelet.pods(WEB)
    kubelet.ready(old)
    rollout(cluster).result(within=10)
    cluster.apply(deployment(image="example.com/x:2", terminationGracePeriodSeconds=60))
    served, drained = rollout(cluster), rollout(cluster, drained=True)
    [new] = [pod for pod in kubelet.pods(WEB, 2) if pod["metadata"]["uid"] != old["metadata"]["uid"]]
    kubelet.ready(new)
    served.result(within=5)
    time.sleep(0.5)
    assert drained.waits
    kubelet.remove(old)
    drained.result(within=5)


def test_a_bad_flag_fails_within_seconds_and_quotes_the_pod(cluster: Cluster, kubelet: Kubelet) -> None:
    cluster.apply(deployment())
    waiter = rollout(cluster)
    [pod] = kubelet.pods(WEB)
    end = {"exitCode": 2, "reason": "Error", "message": "vllm: error: unrecognized arguments: --nope"}
    kubelet.say(pod, state={"terminated": {**end, "startedAt": None, "finishedAt": None}})
    with pytest.raises(BadRelease, match="unrecognized arguments: --nope") as raised:
        waiter.result(within=8)
    assert raised.value.code == "ArgumentsRefused"
    assert raised.value.about == f"Pod {pod['metadata']['name']}, container engine"


def test_one_crash_is_forgiven_and_two_are_not(cluster: Cluster, kubelet: Kubelet) -> None:
    cluster.apply(deployment())
    waiter = rollout(cluster, allow_pending_seconds=1)
    [pod] = kubelet.pods(WEB)
    ended = {"terminated": {"exitCode": 1, "reason": "Error", "startedAt": None, "finishedAt": None}}
    kubelet.say(pod, "Running", state={"running": {}}, lastState=ended, restartCount=1)
    time.sleep(2)
    assert waiter.waits
    waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
    kubelet.say(pod, "Running", state=waiting, lastState=ended, restartCount=1)
    with pytest.raises(BadRelease) as raised:
        waiter.result(within=8)
    assert raised.value.code == "CrashLoop"


def test_a_missing_image_fails_within_seconds(cluster: Cluster, kubelet: Kubelet) -> None:
    cluster.apply(deployment())
    waiter = rollout(cluster)
    [pod] = kubelet.pods(WEB)
    kubelet.say(pod, state={"waiting": {"reason": "ErrImagePull", "message": "example.com/x:1: not found"}})
    with pytest.raises(BadRelease, match=r"example\.com/x:1: not found") as raised:
        waiter.result(within=3)
    assert raised.value.code == "ImageNotFound"


def test_a_startup_probe_that_never_passed_is_found_in_the_events(cluster: Cluster, kubelet: Kubelet) -> None:
    cluster.apply(deployment())
    waiter = rollout(cluster)
    [pod] = kubelet.pods(WEB)
    kubelet.event(pod, "Unhealthy", "Startup probe failed: connection refused")
    kubelet.event(pod, "Killing", "Container engine failed startup probe, will be restarted")
    ended = {"terminated": {"exitCode": 137, "reason": "Error", "startedAt": None, "finishedAt": None}}
    kubelet.say(pod, "Running", state={"running": {}}, lastState=ended, restartCount=1)
    with pytest.raises(BadRelease, match="connection refused") as raised:
        waiter.result(within=8)
    assert raised.value.code == "StartupProbeFailed"


@pytest.mark.usefixtures("agent")
def test_a_lack_of_capacity_is_the_clusters_fault_after_the_time_allowed(cluster: Cluster) -> None:
    cluster.apply(deployment(nodeName=None, containers=[GPU_CONTAINER]))
    started = time.monotonic()
    with pytest.raises(ClusterCannot, match=r"nvidia\.com/gpu") as refused:
        rollout(cluster, allow_pending_seconds=2).result(within=10)
    assert time.monotonic() - started >= 2
    assert refused.value.code == "Unschedulable"
    assert not isinstance(refused.value, TimedOut)


def test_a_node_being_added_is_waited_for_to_the_deadline(cluster: Cluster, kubelet: Kubelet) -> None:
    cluster.apply(deployment(nodeName=None, containers=[GPU_CONTAINER]))
    waiter = rollout(cluster, allow_pending_seconds=3, timeout=6)
    [pod] = kubelet.pods(WEB)
    kubelet.event(pod, "TriggeredScaleUp", "pod triggered scale-up")
    started = time.monotonic()
    with pytest.raises(TimedOut, match="pod triggered scale-up") as raised:
        waiter.result(within=15)
    assert raised.value.code == "NodeBeingAdded"
    assert time.monotonic() - started > 4


def test_a_pod_that_runs_but_never_gets_ready_is_the_releases_fault(cluster: Cluster, kubelet: Kubelet) -> None:
    cluster.apply(deployment())
    waiter = rollout(cluster, timeout=3)
    [pod] = kubelet.pods(WEB)
    kubelet.say(pod, "Running", state={"running": {}})
    with pytest.raises(BadRelease, match="within 3 s") as raised:
        waiter.result(within=15)
    assert raised.value.code == "NeverReady"
    assert raised.value.about == f"Pod {pod['metadata']['name']}, container engine"


def test_a_quota_that_refuses_the_pods_ends_the_rollout(cluster: Cluster) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}}
    cluster.apply({**quota, "spec": {"hard": {"pods": "0"}}})
    eventually(lambda: (cluster.get("ResourceQuota", "none") or {}).get("status", {}).get("hard"))
    cluster.apply(deployment())
    with pytest.raises(ClusterCannot, match="exceeded quota: none") as refused:
        rollout(cluster, allow_pending_seconds=1).result(within=10)
    assert (refused.value.code, refused.value.about) == ("QuotaExceeded", "Deployment web")


def quota(cluster: Cluster, **hard: str) -> None:
    obj = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "team"}}
    cluster.apply({**obj, "spec": {"hard": {key.replace("_", "."): value for key, value in hard.items()}}})
    eventually(lambda: (cluster.get("ResourceQuota", "team") or {}).get("status", {}).get("hard"))


def test_pods_that_a_quota_never_takes_end_a_job_within_seconds(cluster: Cluster) -> None:
    quota(cluster, limits_cpu="4")
    lines: list[str] = []
    cluster.create(job(backoffLimit=3))
    outcome: JobOutcome = finish(cluster, on_line=lines.append).result(within=15)
    assert (outcome.succeeded, outcome.reason) == (False, "QuotaDemandsLimits")
    with pytest.raises(ClusterCannot, match=r"must specify limits\.cpu for: engine") as refused:
        outcome.raise_for_failure()
    assert refused.value.about == "Job job"
    assert "LimitRange" in refused.value.remedy
    assert any("must specify limits.cpu" in line for line in lines)


def test_pods_that_a_limit_range_never_takes_end_a_rollout_within_seconds(cluster: Cluster) -> None:
    limits = [{"type": "Container", "max": {"memory": "1Gi"}}]
    cluster.apply({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "r"}, "spec": {"limits": limits}})
    memory = {"limits": {"memory": "4Gi"}}
    cluster.apply(deployment(containers=[{"name": "engine", "image": "x", "resources": memory}]))
    with pytest.raises(ClusterCannot, match="maximum memory usage per Container is 1Gi, but limit is 4Gi") as refused:
        rollout(cluster).result(within=15)
    assert (refused.value.code, refused.value.about) == ("LimitRangeRefuses", "Deployment web")


def test_a_node_that_refuses_one_pod_after_the_other_is_named(cluster: Cluster) -> None:
    """A kubelet whose GPU is gone refuses each pod, and the ReplicaSet makes a new one at once."""
    cluster.apply(deployment())
    waiter = rollout(cluster)
    refused: set[str] = set()
    status = {"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": "no healthy devices present"}

    def refuse() -> bool | None:
        for pod in cluster.list("Pod", labels=WEB):
            name = pod["metadata"]["name"]
            if name not in refused:
                cluster.patch("Pod", name, {"status": status}, subresource="status")
                refused.add(name)
        return None if waiter.waits else True

    eventually(refuse, seconds=30)
    with pytest.raises(ClusterCannot, match="no healthy devices present") as raised:
        waiter.result(within=1)
    assert raised.value.code == "NodeRefusedPod"
    assert f"node {NODE} refused it" in raised.value.message
    assert raised.value.remedy.endswith(f"kubectl cordon {NODE}")
    assert len(refused) < 8


def test_a_pod_that_does_not_go_is_named_with_its_node(cluster: Cluster, kubelet: Kubelet) -> None:
    cluster.apply(deployment(terminationGracePeriodSeconds=60))
    [pod] = kubelet.pods(WEB)
    kubelet.ready(pod)
    name = pod["metadata"]["name"]
    with pytest.raises(TimedOut, match=f"Pod {name} on node {NODE} is terminating") as raised:
        cluster.delete("Deployment", "web", propagation="Foreground", wait=3)
    assert (raised.value.code, raised.value.about) == ("PodsLinger", "Deployment web")
    assert raised.value.remedy
    kubelet.remove(pod)


def test_a_deployment_that_is_deleted_ends_the_wait(cluster: Cluster, kubelet: Kubelet) -> None:
    cluster.apply(deployment())
    waiter = rollout(cluster)
    kubelet.pods(WEB)
    cluster.delete("Deployment", "web")
    with pytest.raises(ClusterCannot) as raised:
        waiter.result(within=3)
    assert (raised.value.code, raised.value.about) == ("ObjectReplaced", "Deployment web")
    with pytest.raises(NotFound) as raised:
        wait_for_rollout(cluster, "web", timeout=1)
    assert raised.value.about == "Deployment web"


def test_a_rollout_outlives_a_killed_api_server(cluster: Cluster, kubelet: Kubelet, plane: ControlPlane) -> None:
    cluster.apply(deployment())
    waiter = rollout(cluster)
    [pod] = kubelet.pods(WEB)
    with api_server_away(plane):
        time.sleep(2)
        assert waiter.waits
    kubelet.ready(pod)
    waiter.result(within=30)


def test_a_job_gives_its_results_by_index(cluster: Cluster, kubelet: Kubelet) -> None:
    cluster.create(job(completionMode="Indexed", completions=2, parallelism=2))
    waiter = finish(cluster)
    for pod in kubelet.pods({"batch.kubernetes.io/job-name": "job"}, 2):
        index = pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"]
        kubelet.ended(pod, 0, f'{{"shard": {index}}}')
    outcome: JobOutcome = waiter.result(within=10)
    assert outcome.succeeded
    assert outcome.results == {0: '{"shard": 0}', 1: '{"shard": 1}'}
    assert outcome.raise_for_failure() is outcome
    assert wait_for_job(cluster, "job", timeout=5).results == outcome.results


def test_a_failed_job_quotes_its_pods_termination_message(cluster: Cluster, kubelet: Kubelet) -> None:
    cluster.create(job())
    waiter = finish(cluster)
    [pod] = kubelet.pods({"batch.kubernetes.io/job-name": "job"})
    kubelet.ended(pod, 1, "sha256 of model.safetensors is wrong")
    outcome: JobOutcome = waiter.result(within=10)
    assert not outcome.succeeded
    assert outcome.reason == "BackoffLimitExceeded"
    assert outcome.diagnosis is not None
    assert outcome.diagnosis.exit_code == 1
    assert outcome.failures == {0: "sha256 of model.safetensors is wrong"}
    with pytest.raises(ClusterCannot, match=r"Job job .*BackoffLimitExceeded.*sha256 of model\.safetensors") as raised:
        outcome.raise_for_failure()
    assert raised.value.code == "Crashed"
    assert raised.value.about == f"Pod {pod['metadata']['name']}, container engine"


def test_a_job_that_retries_and_succeeds_has_not_failed(cluster: Cluster, kubelet: Kubelet) -> None:
    cluster.create(job(backoffLimit=3))
    waiter = finish(cluster)
    [first] = kubelet.pods({"batch.kubernetes.io/job-name": "job"})
    kubelet.ended(first, 1, "the hub hung up")
    [second] = eventually(
        lambda: (
            [
                pod
                for pod in cluster.list("Pod", labels={"batch.kubernetes.io/job-name": "job"})
                if pod["metadata"]["uid"] != first["metadata"]["uid"]
            ]
            or None
        ),
        seconds=30,
    )
    assert waiter.waits
    kubelet.ended(second, 0, "done")
    outcome: JobOutcome = waiter.result(within=10)
    assert (outcome.results, outcome.failures) == ({0: "done"}, {})


def test_a_job_that_cannot_start_fails_within_seconds(cluster: Cluster, kubelet: Kubelet) -> None:
    cluster.create(job(backoffLimit=6))
    waiter = finish(cluster)
    [pod] = kubelet.pods({"batch.kubernetes.io/job-name": "job"})
    missing = {"reason": "CreateContainerConfigError", "message": 'secret "hub" not found'}
    kubelet.say(pod, state={"waiting": missing})
    outcome: JobOutcome = waiter.result(within=3)
    assert outcome.reason == "SecretMissing"
    with pytest.raises(ClusterCannot, match="Secret hub") as raised:
        outcome.raise_for_failure()
    assert raised.value.code == "SecretMissing"


def test_a_job_past_its_own_deadline_is_explained_by_its_deleted_pod(cluster: Cluster, kubelet: Kubelet) -> None:
    cluster.create(job(activeDeadlineSeconds=2))
    waiter = finish(cluster)
    [pod] = kubelet.pods({"batch.kubernetes.io/job-name": "job"})
    kubelet.say(pod, state={"waiting": {"reason": "ErrImagePull", "message": "i/o timeout"}})
    outcome: JobOutcome = waiter.result(within=15)
    assert outcome.reason == "DeadlineExceeded"
    assert outcome.diagnosis is not None
    assert outcome.diagnosis.code == "RegistryUnreachable"


def test_a_job_that_does_not_end_names_the_state_of_its_pods(cluster: Cluster, kubelet: Kubelet) -> None:
    cluster.create(job())
    waiter = finish(cluster, timeout=2)
    [pod] = kubelet.pods({"batch.kubernetes.io/job-name": "job"})
    kubelet.say(pod, state={"waiting": {"reason": "ContainerCreating"}})
    with pytest.raises(TimedOut, match=r"Job job .* within 2 s: .* containers are being created") as raised:
        waiter.result(within=10)
    assert raised.value.code == "TimedOut"
    assert raised.value.about == f"Pod {pod['metadata']['name']}"


def test_a_job_that_is_replaced_ends_the_wait(cluster: Cluster, kubelet: Kubelet) -> None:
    cluster.create(job())
    waiter = finish(cluster)
    kubelet.pods({"batch.kubernetes.io/job-name": "job"})
    cluster.delete("Job", "job", wait=20)
    cluster.create(job())
    with pytest.raises(ClusterCannot) as raised:
        waiter.result(within=3)
    assert (raised.value.code, raised.value.about) == ("ObjectReplaced", "Job job")


def test_a_timed_out_wait_names_the_awaited_state(cluster: Cluster) -> None:
    with pytest.raises(TimedOut, match=r"^it is bound: ") as raised:
        wait_until(cluster, "PersistentVolumeClaim", "w", lambda _: None, timeout=1, describe="it is bound")
    assert raised.value.about == "PersistentVolumeClaim w"
