from __future__ import annotations

import base64
import stat
from pathlib import Path
from typing import Any

from sandbox.tests.agent.agent_machine import CLAIM, Cluster, Object, condition, eventually, python, shell


def secret(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_environment_and_arguments_come_from_everywhere(cluster: Cluster) -> None:
    cluster.create("configmaps", "m", data={"key": "from map", "other": "all"})
    cluster.create("secrets", "s", data={"token": secret("hush")})
    env: list[dict[str, Any]] = [
        {"name": "PLAIN", "value": "plain"},
        {"name": "EXPANDED", "value": "$(PLAIN)-$(ABSENT)"},
        {"name": "MAPPED", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "key"}}},
        {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "token"}}},
        {"name": "MAYBE", "valueFrom": {"secretKeyRef": {"name": "gone", "key": "k", "optional": True}}},
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
        {"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
    ]
    names = [*(variable["name"] for variable in env), "ALL_other"]
    container = {
        "name": "c",
        "image": "python:3",
        "args": [
            "-c",
            f"import os, sys; print([os.environ.get(n) for n in {names}], sys.argv[1:])",
            "$(PLAIN)",
            "$$(PLAIN)",
        ],
        "env": env,
        "envFrom": [{"prefix": "ALL_", "configMapRef": {"name": "m"}}],
        "resources": {"limits": {"memory": "256Mi"}},
    }
    cluster.pod("p", container, labels={"app": "x"}, restartPolicy="Never")
    pod = cluster.wait_phase("p", "Succeeded")
    values = [
        "plain",
        "plain-$(ABSENT)",
        "from map",
        "hush",
        None,
        "p",
        pod["status"]["podIP"],
        "cpu",
        "x",
        "256",
        "all",
    ]
    assert cluster.log("p") == f"{values} {['plain', '$(PLAIN)']}\n"


def test_containers_see_nothing_of_the_agents_environment(cluster: Cluster) -> None:
    cluster.pod("p", python("c", "import os; print(sorted(os.environ))"), restartPolicy="Never")
    cluster.wait_phase("p", "Succeeded")
    seen = set(eval(cluster.log("p")))
    assert seen <= {
        "PATH", "HOME", "TMPDIR", "HOSTNAME", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT",
        "LLMOPS_SANDBOX_OOM_MARKER", "LC_CTYPE",
    }  # fmt: skip


def test_a_missing_config_map_is_waited_for(cluster: Cluster) -> None:
    env = [{"name": "K", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}}]
    cluster.pod("p", shell("c", "echo $K", env=env), restartPolicy="Never")
    waiting = cluster.wait_state(
        "p", lambda c: c["state"].get("waiting", {}).get("reason") == "CreateContainerConfigError"
    )
    assert waiting["state"]["waiting"]["message"] == 'configmap "m" not found'
    eventually(lambda: ("Failed", 'Error: configmap "m" not found') in cluster.events("p"))
    cluster.create("configmaps", "m", data={"other": "x"})
    message = f"couldn't find key k in ConfigMap {cluster.namespace}/m"
    cluster.wait_state("p", lambda c: c["state"].get("waiting", {}).get("message") == message)
    cluster.patch("configmaps", "m", {"data": {"k": "now"}})
    cluster.wait_phase("p", "Succeeded", 5)
    assert cluster.log("p") == "now\n"


def test_a_missing_secret_is_named(cluster: Cluster) -> None:
    cluster.pod("p", shell("c", "true", envFrom=[{"secretRef": {"name": "s"}}]))
    waiting = cluster.wait_state(
        "p", lambda c: c["state"].get("waiting", {}).get("reason") == "CreateContainerConfigError"
    )
    assert waiting["state"]["waiting"]["message"] == 'secret "s" not found'


def test_volumes_are_where_arguments_and_variables_say(cluster: Cluster) -> None:
    cluster.create("persistentvolumeclaims", "w", spec=CLAIM)
    cluster.create("configmaps", "m", data={"a.json": "A", "b": "B"})
    cluster.create("secrets", "s", data={"token": secret("hush")})
    volumes: list[dict[str, Any]] = [
        {"name": "w", "persistentVolumeClaim": {"claimName": "w"}},
        {"name": "e", "emptyDir": {"medium": "Memory"}},
        {"name": "m", "configMap": {"name": "m", "items": [{"key": "a.json", "path": "sub/x.json"}]}},
        {"name": "s", "secret": {"secretName": "s", "defaultMode": 0o400}},
        {"name": "d", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {"name": "p", "projected": {"sources": [{"configMap": {"name": "m"}}, {"secret": {"name": "s"}}]}},
    ]
    mounts = [
        {"name": "w", "mountPath": "/models", "subPath": "weights/one"},
        {"name": "e", "mountPath": "/dev/shm"},
        {"name": "m", "mountPath": "/etc/m"},
        {"name": "s", "mountPath": "/etc/m/secret"},
        {"name": "d", "mountPath": "/etc/pod"},
        {"name": "p", "mountPath": "/etc/all"},
    ]
    script = (
        "echo x > /models/f; echo y > /dev/shm/g; cat /etc/m/sub/x.json /etc/m/secret/token; echo; "
        "cat /etc/pod/labels; echo; cat /etc/all/a.json /etc/all/b /etc/all/token; echo; cat $PLACE; cat --show-ends f"
    )
    container = shell(
        "c", script, volumeMounts=mounts, workingDir="/models", env=[{"name": "PLACE", "value": "/models/f"}]
    )
    cluster.pod("p", container, volumes=volumes, labels={"app": "x"}, restartPolicy="Never")
    cluster.wait_phase("p", "Succeeded")
    assert cluster.log("p") == 'Ahush\napp="x"\nABhush\nx\nx$\n'
    volume = cluster.machine.folder / "volumes" / f"{cluster.namespace}-w"
    assert (volume / "weights" / "one" / "f").read_text() == "x\n"
    uid = cluster.get("pods", "p")["metadata"]["uid"]
    token = cluster.machine.folder / "pods" / uid / "volumes" / "s" / "token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o400


def test_a_missing_volume_source_keeps_the_pod_creating_until_it_is_there(cluster: Cluster) -> None:
    mount: Object = {"volumeMounts": [{"name": "m", "mountPath": "/m"}]}
    cluster.pod(
        "p", shell("c", "cat /m/k", **mount), volumes=[{"name": "m", "configMap": {"name": "m"}}], restartPolicy="Never"
    )
    eventually(lambda: any(reason == "FailedMount" and '"m" not found' in text for reason, text in cluster.events("p")))
    assert cluster.state("p")["state"]["waiting"]["reason"] == "ContainerCreating"
    cluster.create("configmaps", "m", data={"k": "v"})
    cluster.wait_phase("p", "Succeeded", 5)
    assert cluster.log("p") == "v"


def test_a_projection_of_nothing_is_an_empty_folder(cluster: Cluster) -> None:
    """An API server returns an empty list of sources as `null`."""
    mount: Object = {"volumeMounts": [{"name": "n", "mountPath": "/n"}]}
    volumes = [{"name": "n", "projected": {"sources": []}}]
    cluster.pod("p", shell("c", "ls /n | wc -l", **mount), volumes=volumes, restartPolicy="Never")
    cluster.wait_phase("p", "Succeeded")
    assert cluster.log("p").strip() == "0"


def test_a_mounted_config_map_is_kept_up_to_date(cluster: Cluster) -> None:
    cluster.create("configmaps", "m", data={"k": "old"})
    mount: Object = {"volumeMounts": [{"name": "m", "mountPath": "/m"}]}
    script = "cat /m/k; echo; until grep -q new /m/k; do sleep 0.05; done; cat /m/k"
    cluster.pod(
        "p", shell("c", script, **mount), volumes=[{"name": "m", "configMap": {"name": "m"}}], restartPolicy="Never"
    )
    cluster.wait_state("p", lambda c: "running" in c["state"])
    eventually(lambda: cluster.log("p") == "old\n")
    cluster.patch("configmaps", "m", {"data": {"k": "new"}})
    cluster.wait_phase("p", "Succeeded", 5)
    assert cluster.log("p") == "old\nnew"


def test_what_is_mounted_read_only_cannot_be_written(cluster: Cluster) -> None:
    cluster.create("persistentvolumeclaims", "w", spec=CLAIM)
    claim = {"name": "w", "persistentVolumeClaim": {"claimName": "w"}}
    cluster.pod(
        "writer", shell("c", "echo good > /w/f; mkdir /w/sub", volumeMounts=[{"name": "w", "mountPath": "/w"}]),
        volumes=[claim], restartPolicy="Never",
    )  # fmt: skip
    cluster.wait_phase("writer", "Succeeded")
    mounts = [
        {"name": "w", "mountPath": "/w", "readOnly": True},
        {"name": "w", "mountPath": "/rw", "subPath": "sub"},
        {"name": "e", "mountPath": "/scratch"},
    ]
    script = (
        "cat /w/f; echo bad > /w/f; echo bad > /w/new; rm /w/f; mkdir /w/d; "
        "echo fine > /rw/x && echo fine > /scratch/y && echo fine > $TMPDIR/z && cat /w/f"
    )
    cluster.pod(
        "reader", shell("c", script, volumeMounts=mounts),
        volumes=[claim, {"name": "e", "emptyDir": {}}], restartPolicy="Never",
    )  # fmt: skip
    cluster.wait_phase("reader", "Succeeded")
    folder = cluster.machine.folder / "volumes" / f"{cluster.namespace}-w"
    assert sorted(path.name for path in folder.iterdir()) == ["f", "sub"]
    assert (folder / "f").read_text() == "good\n"
    assert (folder / "sub" / "x").read_text() == "fine\n"


def test_a_claim_is_provisioned_and_its_folder_removed_with_it(cluster: Cluster) -> None:
    cluster.create("persistentvolumeclaims", "w", spec=CLAIM)
    claim = eventually(
        lambda: claim if (claim := cluster.get("persistentvolumeclaims", "w"))["status"]["phase"] == "Bound" else None
    )
    assert claim["spec"]["storageClassName"] == "sandbox"
    name = claim["spec"]["volumeName"]
    folder = cluster.machine.folder / "volumes" / f"{cluster.namespace}-w"
    assert folder.is_dir()
    (folder / "f").touch()
    cluster.delete("persistentvolumeclaims", "w")
    eventually(lambda: not folder.exists())
    eventually(lambda: not cluster.exists("persistentvolumes", name))


def test_a_service_account_token_is_projected(cluster: Cluster) -> None:
    script = """
        import os
        folder = "/var/run/secrets/kubernetes.io/serviceaccount"
        print(sorted(os.listdir(folder)), len(open(folder + "/token").read()) > 100)
    """
    cluster.pod("p", python("c", script), automountServiceAccountToken=True, restartPolicy="Never")
    pod = cluster.wait_phase("p", "Succeeded")
    assert condition(pod, "PodScheduled") == "True"
    assert "'ca.crt'" in cluster.log("p")
    assert cluster.log("p").endswith("True\n")


def test_a_unix_socket_fits_into_the_temporary_folder(cluster: Cluster) -> None:
    """Programs name sockets in TMPDIR by UUID; in a deep folder the path would be too long for a socket."""
    script = (
        "import os, socket, uuid; path = os.environ['TMPDIR'] + '/' + str(uuid.uuid4());"
        "socket.socket(socket.AF_UNIX).bind(path); print(os.path.exists(path), os.environ['TMPDIR'])"
    )
    cluster.pod("p", python("c", script), restartPolicy="Never")
    cluster.wait_phase("p", "Succeeded")
    bound, folder = cluster.log("p").split()
    assert bound == "True"
    # Pods of other tests may still be ending, so only this pod's link counts.
    assert Path(folder).is_symlink()
    cluster.delete("pods", "p", grace=0)
    eventually(lambda: not Path(folder).is_symlink())
