from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

from llmops_sandbox.agent.teardown import kill_pod

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
from sandbox.tests.agent.pods.test_agent_lifecycle import alive

FLAG: Object = {
    "volumeMounts": [{"name": "d", "mountPath": "/d"}],
    "env": [{"name": "FLAG", "value": "/d/flag"}],
}
CLAIMED: Object = {"volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "d"}}]}


def kill_agent(cluster: Cluster, number: int = signal.SIGKILL) -> None:
    pid = cluster.machine.agent.pid
    assert pid is not None
    os.kill(pid, number)
    os.waitpid(pid, 0)


def test_a_new_agent_takes_over_what_a_killed_one_left(cluster: Cluster) -> None:
    cluster.pod("runs", web(**MOUNT), **FLAGS)
    cluster.pod(
        "ends", shell("c", "until test -e $FLAG; do sleep 0.05; done; exit 5", **FLAG), restartPolicy="Never", **CLAIMED
    )
    cluster.create("persistentvolumeclaims", "d", spec=CLAIM)
    cluster.pod("deleted", python("c", f"import time; time.sleep(100) # mark-{cluster.namespace}"))
    cluster.wait_ready("runs")
    cluster.wait_ready("deleted")
    before = cluster.wait_ready("ends")
    started = cluster.get("pods", "runs")["status"]["containerStatuses"][0]
    kill_agent(cluster)
    # While no agent runs: one pod ends, one is deleted with grace and one without, one is created.
    (cluster.machine.folder / "volumes" / f"{cluster.namespace}-d" / "flag").touch()
    cluster.delete("pods", "deleted", grace=0)
    cluster.pod("new", shell("c", "echo new"), restartPolicy="Never")
    time.sleep(0.3)
    assert alive(f"mark-{cluster.namespace}")
    cluster.machine.start_agent()
    ended = cluster.wait_phase("ends", "Failed")["status"]["containerStatuses"][0]
    assert ended["state"]["terminated"]["exitCode"] == 5
    assert ended["restartCount"] == 0
    assert ended["containerID"] == before["status"]["containerStatuses"][0]["containerID"]
    cluster.wait_phase("new", "Succeeded")
    eventually(lambda: not alive(f"mark-{cluster.namespace}"), 5)
    kept = cluster.wait_ready("runs")["status"]["containerStatuses"][0]
    assert kept["containerID"] == started["containerID"]
    assert kept["state"] == started["state"]
    assert cluster.log("runs") == "serving\n"
    cluster.delete("pods", "runs")
    eventually(lambda: not cluster.exists("pods", "runs"))


def test_an_adopted_container_is_probed_and_restarted(cluster: Cluster) -> None:
    probe = {"exec": {"command": ["sh", "-c", "! test -e $FLAG"]}, "periodSeconds": 1, "failureThreshold": 1}
    cluster.create("persistentvolumeclaims", "d", spec=CLAIM)
    cluster.pod("p", shell("c", "echo up; exec sleep 100", livenessProbe=probe, **FLAG), **CLAIMED)
    cluster.wait_ready("p")
    kill_agent(cluster)
    cluster.machine.start_agent()
    flag = cluster.machine.folder / "volumes" / f"{cluster.namespace}-d" / "flag"
    flag.touch()
    cluster.wait_state("p", lambda c: c["restartCount"] >= 1)
    flag.unlink()
    cluster.wait_ready("p")


def test_agents_killed_again_and_again_lose_and_double_nothing(cluster: Cluster) -> None:
    count = 6
    cluster.create("persistentvolumeclaims", "d", spec=CLAIM)
    script = "echo ran >> $DIR/$HOSTNAME; sleep 0.5"
    env = [{"name": "DIR", "value": "/d"}]
    mounts: Object = {"volumeMounts": [{"name": "d", "mountPath": "/d"}], "env": env}
    template = {"spec": {"containers": [shell("c", script, **mounts)], "restartPolicy": "Never", **CLAIMED}}
    cluster.create(
        "jobs", "j", spec={"completions": count, "parallelism": 2, "completionMode": "Indexed", "template": template}
    )
    for pause in (0.05, 0.15, 0.3, 0.5):
        time.sleep(pause)
        kill_agent(cluster)
        cluster.machine.start_agent()
    eventually(lambda: cluster.get("jobs", "j")["status"].get("succeeded") == count, 30)
    assert not cluster.get("jobs", "j")["status"].get("failed")
    folder = cluster.machine.folder / "volumes" / f"{cluster.namespace}-d"
    runs = {path.name: path.read_text() for path in folder.iterdir()}
    assert runs == {f"j-{number}": "ran\n" for number in range(count)}


def test_an_attempt_that_the_agent_did_not_live_to_start_does_not_count(cluster: Cluster) -> None:
    cluster.pod("p", shell("c", "echo up; sleep 100"), restartPolicy="Never")
    cluster.wait_ready("p")
    folder = cluster.machine.folder / "pods" / cluster.get("pods", "p")["metadata"]["uid"]
    kill_agent(cluster)
    # The disk between keeping the attempt and starting it: the state alone.
    attempt = folder / "containers" / "c" / "1"
    kill_pod(folder)
    shutil.rmtree(attempt)
    cluster.machine.start_agent()
    eventually(lambda: (attempt / "process.json").exists())
    cluster.wait_ready("p")
    assert cluster.state("p")["restartCount"] == 0
    assert cluster.get("pods", "p")["status"]["phase"] == "Running"


def test_a_killed_shim_takes_its_program_with_it(cluster: Cluster) -> None:
    mark = f"mark-{cluster.namespace}"
    script = f"""
        import subprocess, sys, time
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100) # {mark}"], start_new_session=True)
        print("up"); time.sleep(100)
    """
    cluster.pod("p", python("c", script), restartPolicy="Never")
    cluster.wait_ready("p")
    eventually(lambda: len(alive(mark)) == 2)
    folder = cluster.machine.folder / "pods" / cluster.get("pods", "p")["metadata"]["uid"]
    shim = json.loads((folder / "containers" / "c" / "1" / "shim.json").read_text())["pid"]
    os.kill(shim, signal.SIGKILL)
    ended = cluster.wait_phase("p", "Failed")["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (137, "ContainerStatusUnknown")
    eventually(lambda: not alive(mark), 5)


def test_the_api_server_may_go_and_come_back(cluster: Cluster) -> None:
    cluster.pod("p", web(**MOUNT), **FLAGS)
    cluster.wait_ready("p")
    cluster.machine.plane.apiserver.stop(grace=0)
    time.sleep(0.5)
    cluster.machine.plane.start_apiserver()
    cluster.machine.plane.wait_ready(30)
    cluster.pod("q", shell("c", "echo back"), restartPolicy="Never")
    cluster.wait_phase("q", "Succeeded", 30)
    assert cluster.state("p")["restartCount"] == 0
    assert condition(cluster.get("pods", "p"), "Ready") == "True"


def test_a_lost_node_takes_its_pods_with_it(cluster: Cluster) -> None:
    mark = f"mark-{cluster.namespace}"
    tolerate = [{"key": "spare", "operator": "Exists"}]
    cluster.pod(
        "p",
        python("c", f"import time; time.sleep(100) # {mark}"),
        tolerations=tolerate,
        nodeSelector={"kubernetes.io/hostname": "spare"},
    )
    cluster.wait_ready("p")
    cluster.delete("nodes", "spare")
    eventually(lambda: not alive(mark), 3)
    cluster.delete("pods", "p", grace=0)
    kill_agent(cluster)
    cluster.machine.start_agent()
    eventually(lambda: cluster.exists("nodes", "spare"))


def test_sigterm_ends_the_pods_processes_and_the_next_agent_starts_them_again(cluster: Cluster) -> None:
    cluster.pod("p", web(**MOUNT), **FLAGS)
    cluster.wait_ready("p")
    kill_agent(cluster, signal.SIGTERM)
    assert not alive(str(cluster.machine.folder / "pods"))
    assert cluster.exists("pods", "p")
    cluster.machine.start_agent()
    eventually(lambda: cluster.state("p")["restartCount"] >= 1)
    cluster.wait_ready("p")


def test_sighup_leaves_the_pods_running_and_stop_pods_ends_them(cluster: Cluster) -> None:
    mark = f"mark-{cluster.namespace}"
    cluster.pod("p", python("c", f"import time; time.sleep(100) # {mark}"))
    cluster.wait_ready("p")
    kill_agent(cluster, signal.SIGHUP)
    assert alive(mark)
    command = [sys.executable, "-m", "llmops_sandbox.agent", "--dir", str(cluster.machine.folder), "--stop-pods"]
    subprocess.run(command, check=True, timeout=20)
    assert not alive(mark)
    cluster.machine.start_agent()
    cluster.wait_state("p", lambda c: c["restartCount"] >= 1)


def test_there_is_one_agent_per_sandbox(cluster: Cluster) -> None:
    command = [sys.executable, "-m", "llmops_sandbox.agent", "--dir", str(cluster.machine.folder)]
    second = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert second.returncode != 0
    assert "another agent serves this sandbox" in second.stderr
