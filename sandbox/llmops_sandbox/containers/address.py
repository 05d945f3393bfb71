"""Names and addresses of the node. It has a network of its own, so that no address of the machine can be taken."""

from __future__ import annotations

NODE = "containers-0"
NAMESPACE = "llm-serving"
ADDRESS = "10.90.0.1"
PODS = "10.244.0.0/24"
SERVICES = "10.96.0.0/16"
KUBERNETES = "10.96.0.1"
REGISTRY_PORT, HUB_PORT, KUBELET_PORT = 5000, 20005, 10250
CLUSTER_DOMAIN = "cluster.local"
REGISTRY = f"{ADDRESS}:{REGISTRY_PORT}"
# Registry hosts that the node's own registry answers for; the path of an image tells them apart.
MIRRORED = ("docker.io", "ghcr.io")
# The same name below each version 1 controller, or once below version 2.
CGROUP = "llmops-containers"
GPUS = 2
GPU_LABELS = {
    "nvidia.com/gpu.present": "true",
    "nvidia.com/gpu.product": "NVIDIA-L40S",
    "nvidia.com/gpu.count": str(GPUS),
    "nvidia.com/gpu.memory": "46068",
}
