from __future__ import annotations

import os
import re
import time
from pathlib import Path

from sandbox.tests.agent.agent_machine import (
    CLAIM,
    FLAGS,
    MOUNT,
    Cluster,
    Object,
    condition,
    eventually,
    python,
    shell,
    web,
)


def alive(text: str) -> list[int]:
    """Processes with `text` in their command line."""
    pids: list[int] = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and text.encode() in (entry / "cmdline").read_bytes():
                pids.append(int(entry.name))
        except OSError:
            continue
    return pids


def test_a_pod_that_ends_well_has_succeeded(cluster: Cluster) -> None:
    cluster.pod("p", shell("c", "echo fine"), restartPolicy="Never")
    pod = cluster.wait_phase("p", "Succeeded")
    ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (0, "Completed")
    assert ended["startedAt"] <= ended["finishedAt"]
    assert condition(pod, "Ready") == "False"
    assert condition(pod, "Initialized") == "True"
    assert cluster.log("p") == "fine\n"


def test_exit_code_and_termination_message_are_reported(cluster: Cluster) -> None:
    cluster.pod("p", shell("c", "echo because > /dev/termination-log; exit 7"), restartPolicy="Never")
    ended = cluster.wait_phase("p", "Failed")["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"], ended["message"]) == (7, "Error", "because\n")


def test_the_message_falls_back_to_the_end_of_the_log_on_error_alone(cluster: Cluster) -> None:
    policy: Object = {"terminationMessagePolicy": "FallbackToLogsOnError", "terminationMessagePath": "/tmp/why"}
    cluster.pod("bad", shell("c", "echo last words; exit 1", **policy), restartPolicy="Never")
    cluster.pod("good", shell("c", "echo last words", **policy), restartPolicy="Never")
    cluster.pod("said", shell("c", "echo words; echo -n this > /tmp/why; exit 1", **policy), restartPolicy="Never")
    bad, said = cluster.wait_phase("bad", "Failed"), cluster.wait_phase("said", "Failed")
    assert bad["status"]["containerStatuses"][0]["state"]["terminated"]["message"] == "last words\n"
    assert said["status"]["containerStatuses"][0]["state"]["terminated"]["message"] == "this"
    good = cluster.wait_phase("good", "Succeeded")
    assert "message" not in good["status"]["containerStatuses"][0]["state"]["terminated"]


def test_a_signal_is_reported_with_its_exit_code(cluster: Cluster) -> None:
    cluster.pod("p", shell("c", "kill -SEGV $$$$"), restartPolicy="Never")
    ended = cluster.wait_phase("p", "Failed")["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], ended["signal"], ended["reason"]) == (139, 11, "Error")


def test_a_crashing_container_is_restarted_with_back_off(cluster: Cluster) -> None:
    cluster.pod("p", shell("c", "echo attempt; exit 3"))
    looping = cluster.wait_state(
        "p", lambda c: c["restartCount"] >= 2 and c["state"].get("waiting", {}).get("reason") == "CrashLoopBackOff"
    )
    assert looping["lastState"]["terminated"]["exitCode"] == 3
    assert re.match(r"back-off \d.*s restarting failed container=c pod=p_", looping["state"]["waiting"]["message"])
    assert not looping["ready"]
    assert cluster.log("p", "previous=true") == "attempt\n"
    messages = eventually(lambda: [message for reason, message in cluster.events("p") if reason == "BackOff"])
    assert messages[0].startswith("Back-off restarting failed container c in pod p_")
    assert cluster.get("pods", "p")["status"]["phase"] == "Running"


def test_on_failure_restarts_until_it_succeeds(cluster: Cluster) -> None:
    script = "n=$(cat /d/n 2>/dev/null || echo 0); echo $((n+1)) > /d/n; test $n -ge 2"
    volume = {"name": "d", "emptyDir": {}}
    cluster.pod(
        "p",
        shell("c", script, volumeMounts=[{"name": "d", "mountPath": "/d"}]),
        volumes=[volume],
        restartPolicy="OnFailure",
    )
    status = cluster.wait_phase("p", "Succeeded")["status"]["containerStatuses"][0]
    assert status["restartCount"] == 2
    assert status["lastState"]["terminated"]["exitCode"] == 1


def test_more_memory_than_the_limit_is_a_death_by_oom(cluster: Cluster) -> None:
    limits = {"limits": {"memory": "64Mi"}}
    script = "import time; x = b'x' * (200 << 20); time.sleep(60)"
    cluster.pod("p", python("c", script, resources=limits), restartPolicy="Never")
    ended = cluster.wait_phase("p", "Failed")["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (137, "OOMKilled")


def test_mapped_files_are_no_memory_of_the_container(cluster: Cluster) -> None:
    script = """
        import mmap, os, time
        with open("/tmp/weights", "wb") as file: file.truncate(200 << 20)
        file = open("/tmp/weights", "rb")
        mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        total = sum(mapped[at] for at in range(0, len(mapped), 4096))
        time.sleep(1.5)
    """
    limits = {"limits": {"memory": "64Mi"}}
    mount = [{"name": "t", "mountPath": "/tmp"}]
    cluster.pod(
        "p", python("c", script, resources=limits, volumeMounts=mount),
        volumes=[{"name": "t", "emptyDir": {"medium": "Memory"}}], restartPolicy="Never",
    )  # fmt: skip
    cluster.wait_phase("p", "Succeeded")


def test_a_program_can_say_that_it_died_of_memory(cluster: Cluster) -> None:
    script = 'echo oom > "$LLMOPS_SANDBOX_OOM_MARKER"; kill -9 $$$$'
    cluster.pod("said", shell("c", script), restartPolicy="Never")
    cluster.pod("killed", shell("c", "kill -9 $$$$"), restartPolicy="Never")
    for pod, reason in (("said", "OOMKilled"), ("killed", "Error")):
        ended = cluster.wait_phase(pod, "Failed")["status"]["containerStatuses"][0]["state"]["terminated"]
        assert (ended["exitCode"], ended["reason"]) == (137, reason)


def test_an_unknown_image_is_pulled_until_it_is_there(cluster: Cluster) -> None:
    image = f"example.com/{cluster.namespace}/late:v1"
    cluster.pod("p", {"name": "c", "image": image}, restartPolicy="Never")
    seen = cluster.wait_state("p", lambda c: c["state"].get("waiting", {}).get("reason") == "ErrImagePull")
    assert "not found" in seen["state"]["waiting"]["message"]
    cluster.wait_state("p", lambda c: c["state"].get("waiting", {}).get("reason") == "ImagePullBackOff")
    events = eventually(lambda: recorded if len(recorded := dict(cluster.events("p"))) >= 4 else None)
    assert any(
        reason == "Failed" and message.startswith(f'Failed to pull image "{image}": ') and "not found" in message
        for reason, message in cluster.events("p")
    )
    assert events["BackOff"] == f'Back-off pulling image "{image}"'
    added = cluster.machine.images.add(image.rsplit(":", 1)[0], "v1", ("sh", "-c", "echo here"))
    pod = cluster.wait_phase("p", "Succeeded")
    assert pod["status"]["containerStatuses"][0]["imageID"] == added.reference
    assert cluster.log("p") == "here\n"


def test_a_program_that_is_not_there_is_a_start_error(cluster: Cluster) -> None:
    cluster.pod("p", {"name": "c", "image": "python:3", "command": ["no-such-program"]}, restartPolicy="Never")
    ended = cluster.wait_phase("p", "Failed")["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (128, "StartError")
    assert 'exec: "no-such-program": executable file not found in $PATH' in ended["message"]


def test_init_containers_run_one_after_the_other_before_the_rest(cluster: Cluster) -> None:
    mount: Object = {"volumeMounts": [{"name": "d", "mountPath": "/d"}]}
    inits = [shell("one", "sleep 0.3; echo one >> /d/log", **mount), shell("two", "echo two >> /d/log", **mount)]
    cluster.pod(
        "p", shell("c", "cat /d/log", **mount),
        initContainers=inits, volumes=[{"name": "d", "emptyDir": {}}], restartPolicy="Never",
    )  # fmt: skip
    first = eventually(lambda: cluster.state("p"))
    assert first["state"].get("waiting", {}).get("reason") in ("PodInitializing", None)
    pod = cluster.wait_phase("p", "Succeeded")
    assert cluster.log("p") == "one\ntwo\n"
    assert [status["state"]["terminated"]["exitCode"] for status in pod["status"]["initContainerStatuses"]] == [0, 0]


def test_an_init_container_that_fails_fails_a_pod_that_never_restarts(cluster: Cluster) -> None:
    cluster.pod("p", shell("c", "echo no"), initContainers=[shell("i", "exit 4")], restartPolicy="Never")
    pod = cluster.wait_phase("p", "Failed")
    assert pod["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 4
    assert pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "PodInitializing"
    assert condition(pod, "Initialized") == "False"


def test_a_sidecar_runs_beside_and_ends_after(cluster: Cluster) -> None:
    sidecar = shell(
        "side", "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.1; done", restartPolicy="Always"
    )
    cluster.pod("p", shell("c", "sleep 0.3"), initContainers=[sidecar], restartPolicy="Never")
    pod = cluster.wait_phase("p", "Succeeded")
    assert pod["status"]["initContainerStatuses"][0]["started"] is not None
    eventually(lambda: cluster.log("p", "container=side") == "up\nbye\n")


def test_termination_runs_the_hook_then_sigterm_and_removes_the_pod(cluster: Cluster) -> None:
    hook = {"preStop": {"exec": {"command": ["sh", "-c", "echo hook >> /d/order"]}}}
    script = "trap 'echo term >> /d/order; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    cluster.create("persistentvolumeclaims", "d", spec=CLAIM)
    cluster.pod(
        "p", shell("c", script, lifecycle=hook, volumeMounts=[{"name": "d", "mountPath": "/d"}]),
        volumes=[{"name": "d", "persistentVolumeClaim": {"claimName": "d"}}],
    )  # fmt: skip
    cluster.wait_ready("p")
    eventually(lambda: cluster.log("p") == "up\n")
    cluster.delete("pods", "p")
    eventually(lambda: not cluster.exists("pods", "p"), 5)
    order = cluster.machine.folder / "volumes" / f"{cluster.namespace}-d" / "order"
    assert order.read_text() == "hook\nterm\n"


def test_a_start_hook_that_fails_restarts_the_container(cluster: Cluster) -> None:
    hook: Object = {"postStart": {"exec": {"command": ["sh", "-c", "exit 3"]}}}
    cluster.pod("p", shell("c", "sleep 100", lifecycle=hook))
    cluster.wait_state("p", lambda c: c["restartCount"] >= 1)
    eventually(lambda: dict(cluster.events("p")).get("FailedPostStartHook") == "PostStartHook failed")


def test_a_sleeping_hook_delays_sigterm_within_the_grace_period(cluster: Cluster) -> None:
    cluster.pod("p", web(lifecycle={"preStop": {"sleep": {"seconds": 1}}}), terminationGracePeriodSeconds=3600)
    cluster.wait_ready("p")
    began = time.monotonic()
    cluster.delete("pods", "p")
    eventually(lambda: not cluster.exists("pods", "p"))
    assert time.monotonic() - began >= 1.0


def test_a_hook_that_asks_is_waited_for_and_sigterm_comes_then(cluster: Cluster) -> None:
    hook: Object = {"preStop": {"httpGet": {"path": "/slow", "port": "http"}}}
    cluster.pod("p", web(lifecycle=hook, **MOUNT), terminationGracePeriodSeconds=3600, **FLAGS)
    cluster.wait_ready("p")
    began = time.monotonic()
    cluster.delete("pods", "p")
    eventually(lambda: not cluster.exists("pods", "p"))
    assert time.monotonic() - began >= 1.0
    assert "FailedPreStopHook" not in dict(cluster.events("p"))


def test_what_ignores_sigterm_is_killed_after_the_grace_period_with_all_it_started(cluster: Cluster) -> None:
    mark = f"mark-{cluster.namespace}"
    script = f"""
        import signal, subprocess, sys, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100) # {mark}"], start_new_session=True)
        print("up"); time.sleep(100)
    """
    cluster.pod("p", python("c", script), terminationGracePeriodSeconds=2)
    eventually(
        lambda: cluster.exists("pods", "p") and "up" in (cluster.log("p") if cluster.state("p").get("ready") else "")
    )
    assert alive(mark)
    began = time.monotonic()
    cluster.delete("pods", "p")
    eventually(lambda: not cluster.exists("pods", "p"))
    assert time.monotonic() - began >= 1.5
    assert not alive(mark)


def test_a_forced_deletion_kills_at_once(cluster: Cluster) -> None:
    mark = f"mark-{cluster.namespace}"
    cluster.pod("p", python("c", f"import time; time.sleep(100) # {mark}"), terminationGracePeriodSeconds=60)
    cluster.wait_ready("p")
    cluster.delete("pods", "p", grace=0)
    eventually(lambda: not alive(mark), 3)


def test_a_pod_that_has_not_begun_is_deleted_at_once(cluster: Cluster) -> None:
    missing = [{"name": "m", "configMap": {"name": "missing"}}]
    reference = [{"name": "K", "valueFrom": {"configMapKeyRef": {"name": "missing", "key": "k"}}}]
    cluster.pod("image", {"name": "c", "image": "unknown/image:v1"}, terminationGracePeriodSeconds=60)
    cluster.pod("mount", shell("c", "true"), volumes=missing, terminationGracePeriodSeconds=60)
    cluster.pod("config", shell("c", "true", env=reference), terminationGracePeriodSeconds=60)
    for name, reason in (("image", "ErrImagePull"), ("config", "CreateContainerConfigError")):
        eventually(lambda name=name, reason=reason: reason in str(cluster.state(name)))
    eventually(lambda: any(reason == "FailedMount" for reason, _ in cluster.events("mount")))
    for name in ("image", "mount", "config"):
        cluster.delete("pods", name)
    eventually(lambda: not cluster.list("pods"), 3)


def test_a_second_deletion_shortens_the_first(cluster: Cluster) -> None:
    script = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up'); time.sleep(100)"
    cluster.pod("p", python("c", script), terminationGracePeriodSeconds=60)
    cluster.wait_ready("p")
    eventually(lambda: cluster.log("p"))
    cluster.delete("pods", "p")
    time.sleep(0.3)
    cluster.delete("pods", "p", grace=1)
    eventually(lambda: not cluster.exists("pods", "p"), 6)


def test_a_pod_that_is_active_for_too_long_fails(cluster: Cluster) -> None:
    cluster.pod("p", shell("c", "sleep 100"), activeDeadlineSeconds=1)
    pod = cluster.wait_phase("p", "Failed")
    assert pod["status"]["reason"] == "DeadlineExceeded"
    eventually(lambda: "terminated" in cluster.state("p")["state"])


def test_every_pod_has_an_address_of_its_own(cluster: Cluster) -> None:
    for name in ("p", "q"):
        cluster.pod(name, web(), **FLAGS)
    addresses = [cluster.wait_ready(name)["status"]["podIP"] for name in ("p", "q")]
    assert len(set(addresses)) == 2
    assert all(address.startswith("127.") for address in addresses)
    assert cluster.get("pods", "p")["status"]["hostIP"] == "127.0.0.1"


def test_gpus_are_what_the_scheduler_counts(cluster: Cluster) -> None:
    gpu: Object = {"resources": {"limits": {"nvidia.com/gpu": "1"}}}
    tolerate = [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    for name in ("a", "b", "c"):
        cluster.pod(name, shell("c", "sleep 100", **gpu), tolerations=tolerate)
    eventually(lambda: sum(cluster.get("pods", name)["status"]["phase"] == "Running" for name in "abc") == 2)
    waiting = next(name for name in "abc" if cluster.get("pods", name)["status"]["phase"] == "Pending")
    running = next(name for name in "abc" if name != waiting)
    eventually(lambda: condition(cluster.get("pods", waiting), "PodScheduled") == "False")
    cluster.delete("pods", running)
    cluster.wait_phase(waiting, "Running")


def test_a_deployment_rolls_over(cluster: Cluster) -> None:
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [web()], "terminationGracePeriodSeconds": 3, **FLAGS},
    }
    cluster.create(
        "deployments", "web", spec={"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": template}
    )
    eventually(lambda: cluster.get("deployments", "web")["status"].get("availableReplicas") == 1)
    (before,) = cluster.list("pods", "app=web")
    cluster.patch("deployments", "web", {"spec": {"template": {"metadata": {"annotations": {"v": "2"}}}}})
    eventually(
        lambda: (
            [pod["metadata"]["uid"] for pod in cluster.list("pods", "app=web")] != [before["metadata"]["uid"]]
            and len(cluster.list("pods", "app=web")) == 1
        )
    )
    assert cluster.get("deployments", "web")["status"]["updatedReplicas"] == 1


def test_an_indexed_job_gives_each_pod_its_index(cluster: Cluster) -> None:
    container = shell("c", "echo index $JOB_COMPLETION_INDEX $HOSTNAME")
    template = {"spec": {"containers": [container], "restartPolicy": "Never"}}
    job = {"completions": 3, "parallelism": 3, "completionMode": "Indexed", "template": template}
    cluster.create("jobs", "j", spec=job)
    eventually(
        lambda: any(
            condition["type"] == "Complete" and condition["status"] == "True"
            for condition in cluster.get("jobs", "j")["status"].get("conditions", [])
        )
    )
    pods = cluster.list("pods", "job-name=j")
    logs = sorted(cluster.log(pod["metadata"]["name"]) for pod in pods)
    assert logs == [f"index {number} j-{number}\n" for number in range(3)]


def test_a_job_that_fails_is_reported_as_failed(cluster: Cluster) -> None:
    template = {"spec": {"containers": [shell("c", "exit 1")], "restartPolicy": "Never"}}
    cluster.create("jobs", "j", spec={"backoffLimit": 0, "template": template})
    eventually(
        lambda: any(
            condition["type"] == "Failed" and condition["status"] == "True"
            for condition in cluster.get("jobs", "j")["status"].get("conditions", [])
        )
    )


def test_heartbeats_are_leases(cluster: Cluster) -> None:
    path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/cpu"
    lease = cluster.request("GET", path)
    assert b'"holderIdentity":"cpu"' in lease
    before = lease
    eventually(lambda: cluster.request("GET", path) != before, 12)


def test_the_agent_is_nearly_idle_when_nothing_happens(cluster: Cluster) -> None:
    cluster.pod("p", shell("c", "sleep 100", resources={"limits": {"memory": "64Mi"}}))
    cluster.wait_ready("p")
    time.sleep(1)
    pid = cluster.machine.agent.pid

    def cpu() -> float:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    before = cpu()
    time.sleep(3)
    assert cpu() - before < 0.3
