"""The configuration of the node's programs; pure functions of its folders. JSON is YAML."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llmops_sandbox.containers.address import (
    ADDRESS,
    CGROUP,
    CLUSTER_DOMAIN,
    KUBELET_PORT,
    MIRRORED,
    NODE,
    PODS,
    REGISTRY,
)
from llmops_sandbox.containers.packages import CNI_PLUGINS

STORAGE_CLASS, PLAIN_STORAGE_CLASS = "shared", "plain"
PAUSE = ("ghcr.io/llmops-dev/pause", "1")


def containerd(content: Path, folder: Path, run: Path) -> str:
    """Of containerd.

    Args:
        content: Keeps images.
        folder: Has `cni/` and `hosts/`.
        run: What ends with the node; its path is short, for sockets.
    """
    return f"""version = 3
root = {_text(content)}
state = {_text(run / "containerd")}
disabled_plugins = ["io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs",
                    "io.containerd.nri.v1.nri"]
[grpc]
  address = {_text(run / "containerd.sock")}
[ttrpc]
  address = {_text(run / "containerd.sock.ttrpc")}
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{PAUSE[0]}:{PAUSE[1]}"
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = {_text(folder / "hosts")}
[plugins."io.containerd.cri.v1.runtime"]
  # Root without CAP_SYS_RESOURCE lowers no process's score.
  restrict_oom_score_adj = true
  disable_apparmor = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = [{_text(CNI_PLUGINS)}]
    conf_dir = {_text(folder / "cni")}
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      SystemdCgroup = false
"""


def registry_hosts() -> dict[str, str]:
    """`hosts.toml` of each mirrored host. No request goes to the host itself."""
    content = f'server = "http://{REGISTRY}"\n[host."http://{REGISTRY}"]\n  capabilities = ["pull", "resolve"]\n'
    return dict.fromkeys(MIRRORED, content)


def registry(content: Path, address: str) -> str:
    """Of docker-registry."""
    return json.dumps({
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(content)}},
        "http": {"addr": address},
    })  # fmt: skip


def network(run: Path) -> str:
    """The pods' network: a bridge, with addresses from one range."""
    bridge: dict[str, Any] = {
        "type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": True, "hairpinMode": True,
        "ipam": {
            "type": "host-local", "dataDir": str(run / "ipam"), "ranges": [[{"subnet": PODS}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }  # fmt: skip
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge, ports]})


def kubelet(folder: Path, pki: Path, run: Path) -> str:
    """Of the kubelet. Its limits of the disk are the whole disk's, so they are low."""
    return json.dumps({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{CGROUP}",
        "enforceNodeAllocatable": ["pods"],
        "failSwapOn": False,
        "containerRuntimeEndpoint": f"unix://{run / 'containerd.sock'}",
        "podLogsDir": str(folder / "logs"),
        "address": ADDRESS,
        "port": KUBELET_PORT,
        "readOnlyPort": 0,
        "healthzBindAddress": "127.0.0.1",
        "tlsCertFile": str(pki / "kubelet.crt"),
        "tlsPrivateKeyFile": str(pki / "kubelet.key"),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "clusterDomain": CLUSTER_DOMAIN,
        "clusterDNS": [ADDRESS],
        "resolvConf": str(folder / "resolv.conf"),
        "volumePluginDir": str(folder / "plugins"),
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "maxPods": 200,
        "syncFrequency": "10s",
        "logging": {"verbosity": 2},
    }, indent=1)  # fmt: skip


def storage(volumes: Path) -> list[dict[str, Any]]:
    """Storage classes and volumes: `shared` gets the pods' group, and `plain` does not (as NFS does not)."""
    local = {
        "local": {"path": str(volumes / STORAGE_CLASS)},
        "nodeAffinity": {
            "required": {
                "nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE]}]}
                ]
            }
        },
    }
    plain = {"hostPath": {"path": str(volumes / PLAIN_STORAGE_CLASS), "type": "Directory"}}
    objects: list[dict[str, Any]] = []
    for name, source in ((STORAGE_CLASS, local), (PLAIN_STORAGE_CLASS, plain)):
        objects += [
            {
                "apiVersion": "storage.k8s.io/v1",
                "kind": "StorageClass",
                "metadata": {"name": name, "annotations": {"llmops.dev/read-write-many": "true"}},
                "provisioner": "kubernetes.io/no-provisioner",
                "volumeBindingMode": "WaitForFirstConsumer",
            },
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": name},
                "spec": {
                    "capacity": {"storage": "20Gi"},
                    "accessModes": ["ReadWriteMany", "ReadWriteOnce"],
                    "storageClassName": name,
                    "persistentVolumeReclaimPolicy": "Retain",
                    **source,
                },
            },
        ]
    return objects


def _text(path: Path) -> str:
    """A path as TOML's basic string, whose escapes JSON has too."""
    return json.dumps(str(path))
