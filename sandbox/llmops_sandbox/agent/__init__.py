"""The node agent of the sandbox: a kubelet and a kube-proxy for pods that are plain local processes.

It talks to a real API server as a kubelet does (nodes, Leases, pod status, events, logs). It runs each container as a
process group under a small supervisor (`pods.shim`), so that containers outlive the agent and a new agent adopts them.

Processes here have no namespaces, so the agent translates. Mount paths in a container's command, arguments and
environment become folders of this machine; `0.0.0.0` becomes the pod's loopback address, and `NAME.NAMESPACE.svc` the
Service's address. A pod finds its account by KUBECONFIG instead of a fixed path. `HOME`, `TMPDIR` and a missing working
folder are fresh folders of each attempt. Landlock enforces read-only mounts where the kernel has it (Linux 5.13); files
directly in a parent of such a mount are read-only then, too.

Not supported: limits on CPU, users and security contexts, cluster DNS, UDP, session affinity, Services below
port 1024 without privileges, exec, attach and port-forward through the API server, changing the image of
a running pod, rotating logs, renewing service account tokens.
"""
