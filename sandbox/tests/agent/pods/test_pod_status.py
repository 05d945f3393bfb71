from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmops_sandbox.agent.pods.status import back_off, is_over, is_ready, phase, pod_status, rfc3339, should_restart
from llmops_sandbox.agent.state import ContainerState, PodState, load, save

WAITING: dict[str, Any] = {"waiting": {"reason": "ContainerCreating"}}
RUNNING: dict[str, Any] = {"running": {"startedAt": rfc3339(0)}}


def ended(code: int) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": "Completed" if code == 0 else "Error"}}


def pod(policy: str = "Always", names: tuple[str, ...] = ("a",), **spec: Any) -> dict[str, Any]:
    containers = [{"name": name, "image": "x"} for name in names]
    return {
        "metadata": {"name": "p", "namespace": "n", "uid": "u", "generation": 3},
        "spec": {"restartPolicy": policy, "containers": containers, **spec},
    }


def state(**containers: ContainerState) -> PodState:
    return PodState("u", "127.1.0.5", 0.0, dict(containers))


@pytest.mark.parametrize(
    ("policy", "currents", "expected"),
    [
        ("Always", [WAITING], "Pending"),
        ("Always", [RUNNING], "Running"),
        ("Always", [ended(1)], "Running"),
        ("Always", [ended(0)], "Running"),
        ("OnFailure", [ended(1)], "Running"),
        ("OnFailure", [ended(0)], "Succeeded"),
        ("Never", [ended(0)], "Succeeded"),
        ("Never", [ended(1)], "Failed"),
        ("Never", [ended(0), RUNNING], "Running"),
        ("Never", [ended(0), ended(1)], "Failed"),
        ("OnFailure", [ended(0), ended(0)], "Succeeded"),
    ],
)
def test_the_phase_follows_containers_and_policy(policy: str, currents: list[dict[str, Any]], expected: str) -> None:
    names = tuple("ab"[: len(currents)])
    containers = {
        name: ContainerState(attempt=0 if current is WAITING else 1, current=current)
        for name, current in zip(names, currents, strict=True)
    }
    assert phase(pod(policy, names), state(**containers)) == expected


def test_a_container_that_waits_for_its_restart_leaves_the_pod_running() -> None:
    looping = ContainerState(attempt=2, current={"waiting": {"reason": "CrashLoopBackOff"}})
    assert phase(pod(), state(a=looping)) == "Running"
    assert not is_over(pod(), state(a=looping))


def test_a_reason_of_the_pod_as_a_whole_is_a_failure() -> None:
    late = state(a=ContainerState(attempt=1, current=RUNNING))
    late.reason, late.message = "DeadlineExceeded", "too long"
    status = pod_status(pod(), late, 0)
    assert (status["phase"], status["reason"], status["message"]) == ("Failed", "DeadlineExceeded", "too long")


@pytest.mark.parametrize(
    ("policy", "code", "again"),
    [("Always", 0, True), ("Always", 1, True), ("OnFailure", 0, False), ("OnFailure", 1, True), ("Never", 1, False)],
)
def test_the_restart_policy(policy: str, code: int, again: bool) -> None:
    assert should_restart(policy, code) is again


def test_the_first_restart_is_immediate_then_waits_double() -> None:
    assert [back_off(failures, 10, 300) for failures in range(1, 9)] == [0, 10, 20, 40, 80, 160, 300, 300]


@given(st.integers(0, 10_000), st.floats(0, 100), st.floats(0, 1000))
def test_the_back_off_never_exceeds_its_limit_nor_shrinks(failures: int, base: float, limit: float) -> None:
    assert 0 <= back_off(failures, base, limit) <= limit
    assert back_off(failures, base, limit) <= back_off(failures + 1, base, limit)


def conditions(status: dict[str, Any]) -> dict[str, tuple[str, str | None]]:
    return {condition["type"]: (condition["status"], condition["reason"]) for condition in status["conditions"]}


def test_conditions_of_a_pod_on_its_way() -> None:
    spec = pod(initContainers=[{"name": "i", "image": "x"}])
    pod_state = state(a=ContainerState(), i=ContainerState(attempt=1, current=RUNNING))
    shown = conditions(pod_status(spec, pod_state, 0))
    assert shown["Initialized"] == ("False", "ContainersNotInitialized")
    assert shown["Ready"] == ("False", "ContainersNotReady")
    pod_state.containers["i"].current = ended(0)
    pod_state.containers["a"] = ContainerState(attempt=1, current=RUNNING, started=True, ready=True)
    shown = conditions(pod_status(spec, pod_state, 0))
    assert shown["Initialized"] == ("True", None)
    assert shown["Ready"] == ("True", None)
    assert shown["ContainersReady"] == ("True", None)
    assert shown["PodReadyToStartContainers"] == ("True", None)


def test_a_pod_that_is_over_is_not_ready() -> None:
    shown = conditions(pod_status(pod("Never"), state(a=ContainerState(attempt=1, current=ended(0))), 0))
    assert shown["Ready"] == shown["ContainersReady"] == ("False", "PodCompleted")


def test_readiness_gates_count() -> None:
    spec = pod(readinessGates=[{"conditionType": "mine"}])
    pod_state = state(a=ContainerState(attempt=1, current=RUNNING, started=True, ready=True))
    assert not is_ready(spec, pod_state)
    assert conditions(pod_status(spec, pod_state, 0))["Ready"] == ("False", "ReadinessGatesNotReady")
    spec["status"] = {"conditions": [{"type": "mine", "status": "True"}]}
    assert is_ready(spec, pod_state)


def test_the_time_of_a_condition_is_that_of_its_last_change() -> None:
    pod_state = state(a=ContainerState(attempt=1, current=RUNNING))

    def since(now: float) -> str:
        listed = pod_status(pod(), pod_state, now)["conditions"]
        return next(condition["lastTransitionTime"] for condition in listed if condition["type"] == "Ready")

    assert since(100) == rfc3339(100)
    assert since(200) == rfc3339(100)
    pod_state.containers["a"].ready = True
    assert since(300) == rfc3339(300)


def test_an_end_becomes_the_last_state_when_something_follows_it() -> None:
    container = ContainerState()
    container.move(running={"startedAt": "x"})
    container.move(terminated={"exitCode": 1})
    assert container.last == {}
    container.move(waiting={"reason": "CrashLoopBackOff"})
    assert container.last == {"terminated": {"exitCode": 1}}
    container.move(running={"startedAt": "y"})
    container.move(terminated={"exitCode": 2})
    assert (container.last, container.current) == ({"terminated": {"exitCode": 1}}, {"terminated": {"exitCode": 2}})


def test_the_state_survives_on_disk(tmp_path: Any) -> None:
    pod_state = state(a=ContainerState(attempt=2, restarts=1, current=RUNNING, last=ended(3), ready=True))
    pod_state.conditions["Ready"] = ["True", "then"]
    save(tmp_path, pod_state)
    assert load(tmp_path) == pod_state
    assert load(tmp_path / "none") is None
