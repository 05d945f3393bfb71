"""Diagnosis of pods, by statuses and events as kubelets, schedulers and autoscalers write them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.clients.kubernetes.diagnosis.finding import Diagnosis
from llmops.clients.kubernetes.diagnosis.pod import diagnose, overdue
from llmops.errors import BadRelease, ClusterCannot, Unavailable

Pod = dict[str, Any]


def pod(phase: str = "Running", conditions: dict[str, str] | None = None, **container: Any) -> Pod:
    return {
        "metadata": {"name": "p"},
        "status": {
            "phase": phase,
            "startTime": "2026-11-25T00:00:00Z",
            "conditions": [{"type": key, "status": value} for key, value in (conditions or {}).items()],
            "containerStatuses": [{"name": "engine", **container}] if container else [],
        },
    }


def waiting(reason: str, message: str = "", **more: Any) -> Pod:
    return pod("Pending", state={"waiting": {"reason": reason, "message": message}}, **more)


def ended(code: int, restarts: int = 0, reason: str = "Error", message: str = "") -> Pod:
    state = {"terminated": {"exitCode": code, "reason": reason, "message": message}}
    return pod(state=state, restartCount=restarts)


def backing_off(code: int, restarts: int) -> Pod:
    last = {"terminated": {"exitCode": code, "reason": "Error"}}
    return waiting("CrashLoopBackOff", "back-off 10s restarting", lastState=last, restartCount=restarts)


def started_again(code: int, restarts: int = 1) -> Pod:
    last = {"terminated": {"exitCode": code, "reason": "Error"}}
    return pod(state={"running": {}}, lastState=last, restartCount=restarts)


def unscheduled(message: str, reason: str = "Unschedulable") -> Pod:
    pending = pod("Pending")
    condition = {"type": "PodScheduled", "status": "False", "reason": reason, "message": message}
    pending["status"]["conditions"] = [condition]
    return pending


def failed(reason: str, message: str = "") -> Pod:
    return {"metadata": {"name": "p"}, "status": {"phase": "Failed", "reason": reason, "message": message}}


def event(reason: str, message: str, minute: int = 0, kind: str = "Warning") -> dict[str, Any]:
    return {"reason": reason, "message": message, "type": kind, "lastTimestamp": f"2026-11-25T00:{minute:02}:00Z"}


NO_GPU = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu. preemption: 0/3 nodes are available"
NOT_FOUND = (
    'Back-off pulling image "ghcr.io/x/y@sha256:0": ErrImagePull: rpc error: code = NotFound desc = failed to pull'
    ' and unpack image "ghcr.io/x/y@sha256:0": ghcr.io/x/y@sha256:0: not found'
)
TIMEOUT = 'rpc error: code = Unknown desc = failed to pull image "a/b:1": dial tcp 10.0.0.1:443: i/o timeout'
PROBED = [
    event("Unhealthy", 'Startup probe failed: Get "http://10.0.0.1:8000/health": connection refused', 1),
    event("Killing", "Container engine failed startup probe, will be restarted", 2, "Normal"),
]


@pytest.mark.parametrize(
    ("finding", "code", "cause", "heals", "verdict"),
    [
        pytest.param(
            diagnose(waiting("ImagePullBackOff", NOT_FOUND)),
            "ImageNotFound",
            "image",
            "never",
            BadRelease,
            id="no image",
        ),
        pytest.param(
            diagnose(waiting("ErrImagePull", "manifest unknown")),
            "ImageNotFound",
            "image",
            "never",
            BadRelease,
            id="no tag",
        ),
        pytest.param(
            diagnose(waiting("InvalidImageName", "couldn't parse")),
            "InvalidImageName",
            "image",
            "never",
            BadRelease,
            id="bad name",
        ),
        pytest.param(
            diagnose(
                waiting(
                    "ErrImagePull", "pull access denied for a/b, repository does not exist or may require authorization"
                )
            ),
            "ImagePullDenied",
            "image",
            "never",
            ClusterCannot,
            id="denied",
        ),
        pytest.param(
            diagnose(waiting("ErrImagePull", TIMEOUT)),
            "RegistryUnreachable",
            "image",
            "maybe",
            ClusterCannot,
            id="registry away",
        ),
        pytest.param(
            diagnose(
                waiting("ImagePullBackOff", 'Back-off pulling image "a/b:1"'),
                [
                    event("BackOff", "Back-off pulling image", 2),
                    event("Failed", 'Failed to pull image "a/b:1": not found', 1),
                ],
            ),
            "ImageNotFound",
            "image",
            "never",
            BadRelease,
            id="older kubelet: the error is in events alone",
        ),
        pytest.param(
            diagnose(waiting("CreateContainerConfigError", 'secret "hub" not found')),
            "SecretMissing",
            "config",
            "never",
            ClusterCannot,
            id="no secret",
        ),
        pytest.param(
            diagnose(waiting("CreateContainerConfigError", "couldn't find key token in Secret ns/hub")),
            "SecretKeyMissing",
            "config",
            "never",
            ClusterCannot,
            id="no key",
        ),
        pytest.param(
            diagnose(waiting("CreateContainerConfigError", "container has runAsNonRoot and image will run as root")),
            "ImageRunsAsRoot",
            "config",
            "never",
            BadRelease,
            id="root image",
        ),
        pytest.param(
            diagnose(waiting("CreateContainerConfigError", "failed to sync secret cache: timed out")),
            "ContainerConfigError",
            "config",
            "maybe",
            ClusterCannot,
            id="kubelet's cache is late",
        ),
        pytest.param(
            diagnose(waiting("RunContainerError", 'exec: "vlm": executable file not found in $PATH')),
            "ContainerCannotStart",
            "config",
            "never",
            BadRelease,
            id="no program",
        ),
        pytest.param(
            diagnose(ended(2, message="usage:\nerror: unrecognized arguments: --x")),
            "ArgumentsRefused",
            "arguments",
            "never",
            BadRelease,
            id="bad flag",
        ),
        pytest.param(
            diagnose(backing_off(2, 0)), "ArgumentsRefused", "arguments", "never", BadRelease, id="bad flag, seen late"
        ),
        pytest.param(diagnose(ended(127)), "CommandNotFound", "config", "never", BadRelease, id="command not found"),
        pytest.param(diagnose(ended(137, reason="OOMKilled")), "OutOfMemory", "oom", "never", BadRelease, id="OOM"),
        pytest.param(diagnose(ended(1)), "Crashed", "crash", "maybe", BadRelease, id="first crash"),
        pytest.param(diagnose(started_again(1)), "Crashed", "crash", "maybe", BadRelease, id="second try"),
        pytest.param(diagnose(ended(1, restarts=1)), "CrashLoop", "crash", "never", BadRelease, id="second crash"),
        pytest.param(diagnose(backing_off(1, 1)), "CrashLoop", "crash", "never", BadRelease, id="crash loop"),
        pytest.param(
            diagnose(ended(0, restarts=1, reason="Completed")),
            "CrashLoop",
            "crash",
            "never",
            BadRelease,
            id="engine that ends",
        ),
        pytest.param(
            diagnose(started_again(137), PROBED),
            "StartupProbeFailed",
            "never-ready",
            "never",
            BadRelease,
            id="startup probe",
        ),
        pytest.param(
            diagnose(ended(1, restarts=5), runs_once=True),
            "CrashLoop",
            "crash",
            "maybe",
            ClusterCannot,
            id="Job counts itself",
        ),
        pytest.param(
            diagnose(ended(137, reason="OOMKilled"), runs_once=True),
            "OutOfMemory",
            "oom",
            "maybe",
            ClusterCannot,
            id="Job's OOM",
        ),
        pytest.param(
            diagnose(unscheduled(NO_GPU)), "Unschedulable", "unschedulable", "maybe", ClusterCannot, id="no GPU"
        ),
        pytest.param(
            diagnose(
                unscheduled(NO_GPU), [event("TriggeredScaleUp", "pod triggered scale-up: [{g 1->2}]", kind="Normal")]
            ),
            "NodeBeingAdded",
            "unschedulable",
            "expected",
            ClusterCannot,
            id="autoscaler adds a node",
        ),
        pytest.param(
            diagnose(
                unscheduled(NO_GPU),
                [
                    event("NotTriggerScaleUp", "max size reached", 5),
                    event("TriggeredScaleUp", "pod triggered scale-up", 1),
                ],
            ),
            "Unschedulable",
            "unschedulable",
            "maybe",
            ClusterCannot,
            id="autoscaler gave up",
        ),
        pytest.param(
            diagnose(unscheduled("", "SchedulingGated")),
            "SchedulingGated",
            "unschedulable",
            "expected",
            ClusterCannot,
            id="queued",
        ),
        pytest.param(
            diagnose(unscheduled('0/3 nodes are available: persistentvolumeclaim "w" is being deleted.')),
            "ClaimDeleted",
            "unschedulable",
            "never",
            ClusterCannot,
            id="claim deleted",
        ),
        pytest.param(
            diagnose(unscheduled('persistentvolumeclaim "w" not found')),
            "Unschedulable",
            "unschedulable",
            "maybe",
            ClusterCannot,
            id="no claim",
        ),
        pytest.param(
            diagnose(
                waiting("ContainerCreating"),
                [event("FailedMount", 'MountVolume.SetUp failed for volume "r" : configmap "pins" not found')],
            ),
            "ConfigMapMissing",
            "mount",
            "never",
            ClusterCannot,
            id="no config map",
        ),
        pytest.param(
            diagnose(waiting("ContainerCreating"), [event("FailedAttachVolume", "Multi-Attach error for volume")]),
            "VolumeNotMounted",
            "mount",
            "maybe",
            ClusterCannot,
            id="volume elsewhere",
        ),
        pytest.param(
            diagnose(failed("Evicted", "low on memory")),
            "Evicted",
            "evicted",
            "maybe",
            ClusterCannot,
            id="evicted",
        ),
        pytest.param(
            diagnose(failed("OutOfnvidia.com/gpu")),
            "NodeRefusedPod",
            "evicted",
            "maybe",
            ClusterCannot,
            id="GPU lost at admission",
        ),
        pytest.param(
            diagnose(pod("Running", {"DisruptionTarget": "True"})),
            "Disrupted",
            "evicted",
            "maybe",
            ClusterCannot,
            id="preempted",
        ),
    ],
)
def test_findings(finding: Diagnosis, code: str, cause: str, heals: str, verdict: type[Exception]) -> None:
    assert (finding.code, finding.cause, finding.heals, finding.verdict) == (code, cause, heals, verdict)
    assert "\n" not in finding.message
    error = finding.error()
    assert isinstance(error, verdict)
    assert error.code == code


@pytest.mark.parametrize(
    ("finding", "quoted"),
    [
        (diagnose(waiting("ImagePullBackOff", NOT_FOUND)), "ghcr.io/x/y@sha256:0: not found"),
        (diagnose(waiting("ErrImagePull", TIMEOUT)), "i/o timeout"),
        (diagnose(waiting("RunContainerError", 'exec: "vlm": not found in $PATH')), 'exec: "vlm": not found in $PATH'),
        (diagnose(ended(2, message="usage:\nerror: unrecognized arguments: --x")), "unrecognized arguments: --x"),
        (diagnose(ended(1, restarts=1)), "exit code 1, 2 times"),
        (diagnose(started_again(137), PROBED), "connection refused"),
        (diagnose(unscheduled(NO_GPU)), "3 Insufficient nvidia.com/gpu"),
        (diagnose(failed("Evicted", "low on memory")), "Evicted: low on memory"),
        (diagnose(waiting("CreateContainerConfigError", 'secret "hub" not found')), "Create the Secret hub."),
        (
            diagnose(waiting("CreateContainerConfigError", "couldn't find key token in Secret ns/hub")),
            "Add the key token to the Secret ns/hub.",
        ),
    ],
)
def test_the_message_quotes_the_cluster_and_the_remedy_names_the_missing_object(
    finding: Diagnosis, quoted: str
) -> None:
    assert quoted in str(finding.error())


def test_an_error_is_about_the_pod_and_its_container() -> None:
    assert diagnose(ended(2)).error().about == "Pod p, container engine"
    assert diagnose(unscheduled(NO_GPU)).error().about == "Pod p"


@pytest.mark.parametrize(
    ("finding", "cause"),
    [
        pytest.param(diagnose(pod("Running", {"Ready": "True"}, state={"running": {}})), "none", id="ready"),
        pytest.param(
            diagnose(pod("Running", {"Ready": "True"}, **started_again(1)["status"]["containerStatuses"][0])),
            "none",
            id="ready after a crash",
        ),
        pytest.param(
            diagnose(pod("Succeeded", state={"terminated": {"exitCode": 0}}), runs_once=True), "none", id="succeeded"
        ),
        pytest.param(diagnose(waiting("ContainerCreating")), "starting", id="being created"),
        pytest.param(diagnose(waiting("PodInitializing")), "starting", id="init containers"),
        pytest.param(diagnose(pod("Pending")), "starting", id="new"),
        pytest.param(diagnose(pod(state={"running": {}})), "starting", id="running"),
        pytest.param(
            diagnose(pod(state={"running": {}}), [event("FailedMount", "timed out, at first")]),
            "starting",
            id="mounted at last",
        ),
        pytest.param(diagnose({}), "starting", id="empty"),
    ],
)
def test_a_healthy_pod_has_no_problem(finding: Diagnosis, cause: str) -> None:
    assert (finding.cause, finding.code) == (cause, "")
    assert finding.healthy
    assert not finding.fatal
    assert finding.events == ()


def test_an_init_container_that_succeeded_is_no_crash() -> None:
    done = pod("Pending")
    done["status"]["initContainerStatuses"] = [{"name": "i", "state": {"terminated": {"exitCode": 0}}}]
    assert diagnose(done).cause == "starting"
    done["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] = 2
    assert diagnose(done).container == "i"


def fetching(code: int, kind: str = "", restarts: int = 1, **state: Any) -> Pod:
    """An engine's pod whose download of weights has ended; the container is now in `state`."""
    result = {
        "command": "download",
        "kind": kind,
        "exit_code": code,
        "message": f"{kind} of a.safetensors",
        "remedy": "r",
    }
    end = {"exitCode": code, "reason": "Error", "message": json.dumps(result) if kind else "Killed"}
    initializing = waiting("PodInitializing")
    status: Pod = {"name": "weights-download", "state": state or {"terminated": end}, "restartCount": restarts}
    initializing["status"]["initContainerStatuses"] = [status | ({"lastState": {"terminated": end}} if state else {})]
    return initializing


BACK_OFF: Pod = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}


@pytest.mark.parametrize(
    ("pod", "code", "heals", "verdict"),
    [
        (fetching(3, "mismatch"), "WeightsBad", "never", BadRelease),
        (fetching(3, "mismatch", running={}), "WeightsBad", "never", BadRelease),
        (fetching(3, "mismatch", **BACK_OFF), "WeightsBad", "never", BadRelease),
        (fetching(4, "rate_limited", **BACK_OFF), "WeightsUnavailable", "maybe", Unavailable),
        (fetching(4, "rate_limited", 4, **BACK_OFF), "WeightsUnavailable", "never", Unavailable),
        (fetching(4, "rate_limited", 5, running={}), "WeightsUnavailable", "never", Unavailable),
        (fetching(5, "gated"), "WeightsBlocked", "never", ClusterCannot),
        (fetching(137), "WeightsWorkerFailed", "maybe", ClusterCannot),
        (fetching(2), "WeightsWorkerFailed", "maybe", ClusterCannot),
    ],
)
def test_the_download_in_an_engines_pod_is_judged_by_the_workers_result(
    pod: Pod, code: str, heals: str, verdict: type
) -> None:
    """Not by the waiting reason or the exit code alone: those read as a crash loop or as refused arguments."""
    finding = diagnose(pod)
    assert (finding.cause, finding.code, finding.heals, finding.verdict) == ("weights", code, heals, verdict)
    assert finding.about == "Pod p, container weights-download"


def test_a_retried_download_is_no_problem() -> None:
    assert diagnose(fetching(4, "rate_limited", 4, running={})).cause == "starting"
    assert diagnose(fetching(0, "ok")).cause == "starting"


def test_running_past_the_deadline_is_the_releases_fault_and_being_created_is_not() -> None:
    running, creating = pod(state={"running": {}}, ready=False), waiting("ContainerCreating")
    late = overdue(running, diagnose(running))
    assert (late.cause, late.code, late.verdict) == ("never-ready", "NeverReady", BadRelease)
    assert late.about == "Pod p, container engine"
    assert overdue(creating, diagnose(creating)).cause == "starting"
    assert overdue(running, diagnose(ended(1))).cause == "crash"


def test_the_description_has_the_latest_events_and_the_end_of_the_log() -> None:
    events = [event("BackOff", f"message {minute}", minute) for minute in (3, 1, 2)]
    finding = diagnose(ended(1, 1), [*events, event("Pulled", "fine", 9, "Normal")], "\n".join(map(str, range(100))))
    assert finding.events == ("BackOff: message 1", "BackOff: message 2", "BackOff: message 3")
    assert finding.log_tail.splitlines()[0] == "70"
    assert finding.describe().endswith("  99")
    assert "last lines of engine:" in finding.describe()


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from([
    "metadata", "status", "name", "phase", "reason", "message", "conditions", "type", "containerStatuses", "state",
    "initContainerStatuses", "lastState", "waiting", "terminated", "running", "exitCode", "restartCount", "ready",
    "series", "lastTimestamp", "startTime",
])  # fmt: skip
words = st.sampled_from([
    "Failed", "Pending", "Running", "PodScheduled", "Ready", "True", "False", "ErrImagePull", "CrashLoopBackOff",
    "CreateContainerConfigError", "OOMKilled", "Killing", "FailedMount", "TriggeredScaleUp", "DisruptionTarget",
])  # fmt: skip
odd = st.recursive(
    junk | words, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=6), max_leaves=30
)
odd_pod = st.fixed_dictionaries(
    {},
    optional={
        "metadata": odd,
        "status": odd
        | st.fixed_dictionaries(
            {},
            optional={
                "phase": words | junk,
                "conditions": st.lists(st.dictionaries(keys, words | junk)) | junk,
                "containerStatuses": st.lists(st.dictionaries(keys, odd)) | junk,
            },
        ),
    },
)


@given(odd_pod, st.lists(st.dictionaries(keys, odd) | odd, max_size=3), st.booleans())
def test_no_status_however_odd_breaks_it(pod: Any, events: list[Any], runs_once: bool) -> None:
    finding = diagnose(pod, events, runs_once=runs_once)
    assert "\n" not in finding.message
    assert str(overdue(pod, finding).error())


def test_the_reason_of_a_crash_is_the_engines_error_and_not_the_servers_reference_to_it() -> None:
    output = (
        "(EngineCore pid=7) ERROR 11-25 01:15:23 [core.py:900] RuntimeError: CUDA error: device-side assert triggered\n"
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
    )
    message = diagnose(ended(1, restarts=1, message=output)).message
    assert message.endswith(": RuntimeError: CUDA error: device-side assert triggered")
