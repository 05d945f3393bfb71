"""The node agent of the sandbox: a kubelet and a kube-proxy for pods that are plain local processes.

It talks to a real API server as a kubelet does (nodes, Leases, pod status, events, logs), and runs each container as
a process group under a small supervisor of its own (`shim`), so that containers outlive the agent and a new agent
takes them over.

What a process without namespaces can't have is translated instead: a container's mount paths, where they stand in its
command, arguments and environment, become folders of this machine; `0.0.0.0` becomes the pod's own loopback address,
and `NAME.NAMESPACE.svc` the Service's. The account that a pod runs as is found by KUBECONFIG, as its own path can't be.
`HOME`, `TMPDIR` and a working folder that isn't there are fresh folders of each attempt. Read-only mounts are enforced
by Landlock where the kernel has it (Linux 5.13): what lies directly in a parent of such a mount can't be changed then,
either.

What it doesn't do: limits on CPU, users and security contexts, cluster DNS, UDP, session affinity, Services below
port 1024 without privileges, exec, attach and port-forward through the API server, changing the image of
a running pod, rotating logs, renewing service account tokens.
"""
