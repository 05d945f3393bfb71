"""Statuses and Events as kubelets, containerd, CRI-O and device plugins write them, and what they say of the release.

The words are those of public bug reports and of a kubelet 1.37 with containerd 2.4; names are made up.
"""

# ruff: noqa: E501 - messages are quoted whole
from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.clients.kubernetes.diagnosis.finding import Diagnosis
from llmops.clients.kubernetes.diagnosis.output import cause_in
from llmops.clients.kubernetes.diagnosis.pod import diagnose, overdue
from llmops.clients.kubernetes.progress import messages
from llmops.config import names
from llmops.errors import BadRelease, ClusterCannot
from llmops.rollout.ops.crashes import crash

Pod = dict[str, Any]
IMAGE = "registry.example/team/engine@sha256:" + "7" * 64


def pod(*containers: Pod, phase: str = "Pending", image: str = IMAGE, **status: Any) -> Pod:
    return {
        "metadata": {"name": "web-1"},
        "spec": {"nodeName": "gpu-7", "containers": [{"name": "engine", "image": image}]},
        "status": {
            "phase": phase,
            "startTime": "2026-03-01T10:00:00Z",
            "containerStatuses": list(containers),
            **status,
        },
    }


def container(name: str = "engine", restarts: int = 0, *, ready: bool = False, **state: Any) -> Pod:
    last = {"lastState": state.pop("last")} if "last" in state else {}
    return {"name": name, "restartCount": restarts, "ready": ready, "state": state, **last}


def pulling(message: str, reason: str = "ErrImagePull", image: str = IMAGE) -> Pod:
    return pod(container(waiting={"reason": reason, "message": message}), image=image)


def event(reason: str, message: str, second: int, kind: str = "Warning", container: str = "engine") -> Pod:
    place = {"fieldPath": f"spec.containers{{{container}}}"} if container else {}
    return {
        "reason": reason,
        "message": message,
        "type": kind,
        "lastTimestamp": f"2026-03-01T10:00:{second:02}Z",
        "involvedObject": {"kind": "Pod", "name": "web-1", **place},
    }


PREFIX = f'rpc error: code = Unknown desc = failed to pull and unpack image "{IMAGE}": '


@pytest.mark.parametrize(
    ("said", "code", "verdict", "heals"),
    [
        (f'failed to resolve reference "{IMAGE}": {IMAGE}: not found', "ImageNotFound", BadRelease, "never"),
        (f"failed to resolve image: {IMAGE}: not found", "ImageNotFound", BadRelease, "never"),
        ("no match for platform in manifest: not found", "ImageNotFound", BadRelease, "never"),
        (
            "reading manifest 1.2 in registry.example/team/engine: manifest unknown",
            "ImageNotFound",
            BadRelease,
            "never",
        ),
        (
            "failed to unpack image on snapshotter overlayfs: unexpected media type text/html for sha256:5be0: not found",
            "ImageContentBroken",
            ClusterCannot,
            "maybe",
        ),
        (
            "failed to copy: httpReadSeeker: failed open: content at https://mirror.example/v2/team/engine/blobs/sha256:9d"
            " not found: not found",
            "ImageContentBroken",
            ClusterCannot,
            "maybe",
        ),
        (
            "failed to get reader from content store: content digest sha256:9d2a: not found",
            "ImageContentBroken",
            ClusterCannot,
            "maybe",
        ),
        (
            "failed to copy: httpReadSeeker: failed open: could not fetch content descriptor sha256:9d2a "
            "(application/vnd.oci.image.layer.v1.tar+gzip) from remote: not found",
            "ImageContentBroken",
            ClusterCannot,
            "maybe",
        ),
        (
            'failed to do request: Head "https://registry.example/v2/team/engine/manifests/1": dial tcp: lookup '
            "registry.example on 10.96.0.10:53: no such host",
            "RegistryUnreachable",
            ClusterCannot,
            "maybe",
        ),
        (
            "failed to fetch anonymous token: unexpected status from GET request to https://auth.example/token: 502 Bad "
            "Gateway: <html><body>denied, forbidden</body></html>",
            "RegistryUnreachable",
            ClusterCannot,
            "maybe",
        ),
        (
            "failed to copy: httpReadSeeker: failed open: unexpected status from GET request to https://r.example/v2/x: "
            "429 Too Many Requests: toomanyrequests",
            "RegistryRateLimited",
            ClusterCannot,
            "maybe",
        ),
        (
            "failed to extract layer sha256:9d2a: write /var/lib/containerd/x: no space left on device",
            "NodeDiskUnusable",
            ClusterCannot,
            "maybe",
        ),
        (
            "pull access denied, repository does not exist or may require authorization: server message: "
            "insufficient_scope: authorization failed",
            "ImagePullDenied",
            ClusterCannot,
            "never",
        ),
        ("the snapshotter had a bad day", "ImagePullFailed", ClusterCannot, "maybe"),
    ],
)
def test_only_a_registry_without_the_manifest_speaks_against_the_release(
    said: str, code: str, verdict: type, heals: str
) -> None:
    for message in (PREFIX + said, f'Back-off pulling image "{IMAGE}": ErrImagePull: {PREFIX}{said}'):
        finding = diagnose(pulling(message))
        assert (finding.code, finding.verdict, finding.heals) == (code, verdict, heals)
        assert said[:100] in finding.message


@given(
    st.sampled_from(
        ["not-found", "denied", "forbidden", "503", "x509", "unauthorized", "eof", "manifest-unknown", "v1"]
    ),
    st.sampled_from(["not-found", "429", "denied", "toomanyrequests", "500", "latest"]),
)
def test_the_name_of_an_image_says_nothing(part: str, tag: str) -> None:
    image = f"registry.example/{part}/engine:{tag}"
    timeout = (
        f'failed to pull and unpack image "{image}": failed to resolve reference "{image}": failed to do request: '
    )
    away = (
        timeout
        + f'Head "https://registry.example/v2/{part}/engine/manifests/{tag}": dial tcp 10.1.2.3:443: i/o timeout'
    )
    assert diagnose(pulling(away, image=image)).code == "RegistryUnreachable"
    gone = f'failed to pull and unpack image "{image}": failed to resolve reference "{image}": {image}: not found'
    assert diagnose(pulling(gone, image=image)).code == "ImageNotFound"


def test_a_runtimes_words_without_the_word_error_are_told_and_not_the_kubelets_event() -> None:
    said = f'failed to pull and unpack image "{IMAGE}": failed to do request: dial tcp: lookup r.example: no such host'
    events = [
        event("Failed", f'Failed to pull image "{IMAGE}": {said}', 1),
        event("Failed", "Error: ImagePullBackOff", 9),
    ]
    assert "lookup r.example: no such host" in diagnose(pulling(said), events).message
    backing_off = pulling(f'Back-off pulling image "{IMAGE}"', "ImagePullBackOff")
    assert "lookup r.example: no such host" in diagnose(backing_off, events).message


def test_the_event_of_another_containers_image_is_not_the_engines() -> None:
    events = [
        event("Failed", 'Failed to pull image "a": dial tcp 10.0.0.9:443: i/o timeout', 1),
        event("Failed", 'Failed to pull image "proxy": proxy: not found', 5, container="proxy"),
    ]
    finding = diagnose(pulling(f'Back-off pulling image "{IMAGE}"', "ImagePullBackOff"), events)
    assert (finding.code, finding.verdict) == ("RegistryUnreachable", ClusterCannot)


OURS_LOADS = container(running={"startedAt": "2026-03-01T10:00:09Z"})
KILLED = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
FAILED = {"terminated": {"exitCode": 2, "reason": "Error", "message": "cannot reach the vault"}}
BACK_OFF = {"reason": "CrashLoopBackOff", "message": "back-off 40s"}


@pytest.mark.parametrize(
    "foreign",
    [
        container("mesh-proxy", 3, waiting=BACK_OFF, last=KILLED),
        container("mesh-proxy", 3, waiting=BACK_OFF, last=FAILED),
        container("mesh-proxy", terminated={"exitCode": 127, "reason": "Error"}),
        container("mesh-proxy", waiting={"reason": "ErrImagePull", "message": "mesh: not found"}),
        container("mesh-proxy", waiting={"reason": "CreateContainerConfigError", "message": 'secret "s" not found'}),
        container("mesh-proxy", waiting={"reason": "RunContainerError", "message": 'exec: "envoy": not found'}),
    ],
)
@pytest.mark.parametrize("initial", [True, False])
def test_a_container_that_somebody_else_added_is_named_and_never_rejects(foreign: Pod, *, initial: bool) -> None:
    where = "initContainerStatuses" if initial else "containerStatuses"
    given_pod = pod(OURS_LOADS, phase="Running")
    given_pod["status"][where] = [foreign, *given_pod["status"].get(where, [])]
    finding = diagnose(given_pod)
    assert (finding.cause, finding.code) == ("foreign", "ForeignContainerFailed")
    assert (finding.verdict, finding.heals) == (ClusterCannot, "maybe")
    assert "mesh-proxy" in finding.message
    assert "mesh-proxy" in finding.remedy
    assert finding.about == "Pod web-1, container mesh-proxy"


def test_our_own_problem_comes_before_that_of_others() -> None:
    ended = container(restarts=2, waiting=BACK_OFF, last={"terminated": {"exitCode": 1, "reason": "Error"}})
    foreign = container("mesh-proxy", 3, waiting=BACK_OFF, last=KILLED)
    finding = diagnose(pod(foreign, ended, phase="Running"))
    assert (finding.code, finding.verdict, finding.container) == ("CrashLoop", BadRelease, "engine")


def test_a_container_of_others_that_runs_again_is_no_problem() -> None:
    assert diagnose(pod(container("mesh-proxy", 1, running={}, last=KILLED), OURS_LOADS, phase="Running")).healthy


def test_a_pod_that_waits_for_others_at_the_deadline_is_not_the_releases_fault() -> None:
    waits = pod(container("mesh-proxy", running={}), container(running={}, ready=True), phase="Running")
    late = overdue(waits, diagnose(waits))
    assert (late.code, late.verdict, late.container) == ("ForeignContainerNeverReady", ClusterCannot, "mesh-proxy")
    ours = pod(container("mesh-proxy", running={}), container(running={}), phase="Running")
    late = overdue(ours, diagnose(ours))
    assert (late.code, late.verdict, late.container) == ("NeverReady", BadRelease, "engine")


def test_a_probe_of_others_does_not_explain_the_engines_end() -> None:
    ended = container(restarts=1, running={}, last={"terminated": {"exitCode": 137, "reason": "Error"}})
    events = [
        event("Unhealthy", "Startup probe failed: dial tcp 10.0.0.4:8000: connection refused", 1),
        event("Killing", "Container engine failed startup probe, will be restarted", 2, "Normal"),
        event("Unhealthy", "Readiness probe failed: HTTP 503 from the mesh", 9, container="mesh-proxy"),
    ]
    finding = diagnose(pod(ended, phase="Running"), events)
    assert finding.code == "StartupProbeFailed"
    assert "10.0.0.4:8000" in finding.message


def test_a_job_that_another_container_keeps_from_completing_is_told() -> None:
    done = container(names.WORKER_CONTAINER, terminated={"exitCode": 0, "reason": "Completed"})
    finding = diagnose(pod(done, container("mesh-proxy", running={}), phase="Running"), runs_once=True)
    assert (finding.code, finding.container, finding.heals) == ("ForeignContainerRunsOn", "mesh-proxy", "maybe")
    alone = diagnose(pod(container(names.WORKER_CONTAINER, running={}), phase="Running"), runs_once=True)
    assert alone.cause == "starting"


def test_the_result_of_a_job_is_its_workers_and_not_the_last_words_of_a_proxy() -> None:
    def ended(name: str, message: str) -> Pod:
        return container(name, terminated={"exitCode": 0, "message": message})

    both = pod(ended(names.WORKER_CONTAINER, "result"), ended("mesh-proxy", "bye"), phase="Succeeded")
    assert messages([both], "Succeeded", names.CONTAINERS) == {0: "result"}


def test_a_restarted_proxy_is_no_crash_of_the_engine() -> None:
    engine = container(running={})
    assert crash(pod(container("mesh-proxy", 4, running={}, last=KILLED), engine), "in the test", 0) is None
    assert crash(pod(container("mesh-proxy", terminated=KILLED["terminated"]), engine), "in the test", 0) is None


@pytest.mark.parametrize(
    ("reason", "message", "code"),
    [
        (
            "UnexpectedAdmissionError",
            "Pod was rejected: Allocate failed due to no healthy devices present; cannot allocate unhealthy devices "
            "nvidia.com/gpu, which is unexpected",
            "NodeRefusedPod",
        ),
        (
            "OutOfcpu",
            "Pod was rejected: Node didn't have enough resource: cpu, requested: 8000, used: 1, capacity: 4",
            "NodeRefusedPod",
        ),
        (
            "TopologyAffinityError",
            "Pod was rejected: Resources cannot be allocated with Topology locality",
            "NodeRefusedPod",
        ),
        ("VolumeAttachmentLimitExceeded", "Node has reached its limit", "NodeRefusedPod"),
        ("Evicted", "Pod ephemeral local storage usage exceeds the total limit of containers 10Mi.", "Evicted"),
        ("Terminated", "Pod was terminated in response to imminent node shutdown.", "Evicted"),
    ],
)
def test_what_a_node_does_to_a_pod_is_told_with_the_node_and_is_not_the_releases_fault(
    reason: str, message: str, code: str
) -> None:
    finding = diagnose(pod(phase="Failed", reason=reason, message=message))
    assert (finding.code, finding.cause, finding.verdict) == (code, "evicted", ClusterCannot)
    assert "node gpu-7" in finding.message
    assert message[:60] in finding.message
    if code == "NodeRefusedPod":
        assert finding.remedy.endswith("kubectl cordon gpu-7")


def test_a_container_that_was_lost_with_its_node_has_not_crashed() -> None:
    unknown = {"exitCode": 137, "reason": "ContainerStatusUnknown", "message": "The container could not be located"}
    finding = diagnose(pod(container(restarts=2, terminated=unknown), phase="Failed"))
    assert (finding.code, finding.verdict) == ("ContainerLost", ClusterCannot)


SYNC = 'MountVolume.SetUp failed for volume "cfg" : failed to sync configmap cache: timed out waiting for the condition'
NOT_THERE = 'MountVolume.SetUp failed for volume "cfg" : configmap "web.options" not found'


@pytest.mark.parametrize("message", [SYNC, NOT_THERE])
@pytest.mark.parametrize("later", ["Pulling", "Pulled", "Created"])
def test_a_mount_that_healed_is_not_told(message: str, later: str) -> None:
    creating = pod(container(waiting={"reason": "ContainerCreating"}))
    failed = event("FailedMount", message, 2, container="")
    assert diagnose(creating, [event(later, 'image "x"', 10, "Normal"), failed]).cause == "starting"
    assert diagnose(creating, [event(later, 'image "x"', 1, "Normal"), failed]).cause == "mount"
    started = pod(
        container(waiting={"reason": "ContainerCreating"}),
        conditions=[{"type": "PodReadyToStartContainers", "status": "True"}],
    )
    assert diagnose(started, [failed]).cause == "starting"


@pytest.mark.parametrize(
    ("message", "code", "verdict"),
    [
        (
            "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: "
            'unable to start container process: error during container init: exec: "/opt/serve": stat /opt/serve: no such '
            "file or directory: unknown",
            "ContainerCannotStart",
            BadRelease,
        ),
        ("exec /usr/bin/serve: exec format error", "ContainerCannotStart", BadRelease),
        (
            "failed to create shim task: OCI runtime create failed: error running prestart hook #0: exit status 1, stderr: "
            "nvidia-container-cli: initialization error: driver rpc error: timed out",
            "NodeCannotStart",
            ClusterCannot,
        ),
        (
            'failed to reserve container name "engine_web-1": name is reserved for "9d2a"',
            "NodeCannotStart",
            ClusterCannot,
        ),
        ("context deadline exceeded", "NodeCannotStart", ClusterCannot),
    ],
)
def test_a_container_that_the_node_cannot_start_is_told_from_one_that_no_node_can(
    message: str, code: str, verdict: type
) -> None:
    waiting = diagnose(pod(container(waiting={"reason": "RunContainerError", "message": message})))
    ended = {"terminated": {"exitCode": 128, "reason": "StartError", "message": message}}
    again = diagnose(pod(container(restarts=1, waiting=BACK_OFF, last=ended)))
    for finding in (waiting, again):
        assert (finding.code, finding.verdict) == (code, verdict)
        assert message[-40:] in finding.message


CRASHED = """(EngineCore pid=88) INFO 03-01 10:00:00 [core.py:212] init engine took 40 seconds
(EngineCore pid=88) ERROR 03-01 10:09:12 [core.py:845] EngineCore encountered a fatal error.
(EngineCore pid=88) ERROR 03-01 10:09:12 [core.py:845] Traceback (most recent call last):
(EngineCore pid=88) ERROR 03-01 10:09:12 [core.py:845]   File "/usr/lib/worker.py", line 31, in execute_model
(EngineCore pid=88) ERROR 03-01 10:09:12 [core.py:845] torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB
(APIServer pid=1) ERROR 03-01 10:09:12 [async_llm.py:600] AsyncLLM output_handler failed.
(APIServer pid=1) ERROR 03-01 10:09:12 [async_llm.py:600] vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the root cause.
(APIServer pid=1) INFO:     Shutting down
(APIServer pid=1) INFO:     Finished server process [1]
"""


@pytest.mark.parametrize(
    ("output", "cause"),
    [
        (CRASHED, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"),
        (
            "usage: vllm serve\nvllm serve: error: unrecognized arguments: --bad",
            "vllm serve: error: unrecognized arguments: --bad",
        ),
        (
            "terminate called after throwing an instance of 'c10::Error'\n  what():  CUDA error: no device",
            "what():  CUDA error: no device",
        ),
        (
            "Fatal Python error: Segmentation fault\n\nExtension modules: numpy (total: 1)",
            "Fatal Python error: Segmentation fault",
        ),
        ("ValueError: no such model\nINFO:     Application shutdown complete.", "ValueError: no such model"),
        ("WARNING 03-01 10:00:00 [x.py:1] ImportError: no flash\nKilled", "Killed"),
        ("INFO:     only chatter", "only chatter"),
        ("", ""),
    ],
)
def test_the_cause_of_a_crash_is_the_error_that_no_other_error_caused(output: str, cause: str) -> None:
    assert cause_in(output) == cause


@given(st.text())
def test_any_output_has_at_most_one_line_of_cause(output: str) -> None:
    assert len(cause_in(output).splitlines()) <= 1


def test_the_first_line_of_a_crash_says_why_and_the_rest_has_the_whole_output() -> None:
    last = {"terminated": {"exitCode": 1, "reason": "Error", "message": CRASHED}}
    told = crash(pod(container(restarts=1, running={}, last=last)), "during the evaluation", 0)
    assert told is not None
    line, _, rest = told.partition("\n")
    assert line.endswith("(Error, exit code 1): torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB")
    assert CRASHED.strip() in rest


def test_a_diagnosis_of_nothing_is_healthy() -> None:
    assert isinstance(diagnose({}), Diagnosis)
