"""A node with real containers: kubelet, kube-proxy and containerd, below the sandbox's control plane.

It needs Linux and root, and changes nothing on the machine: Debian's packages are unpacked into the cache and laid over
`/usr` in a mount namespace, and the node has namespaces of its own, without a way out. They end with the command that
runs in them. `python -m llmops_sandbox.containers` has three commands:

- `check` says whether this machine can;
- `build` makes the programs and the images, and keeps them in the cache;
- `run COMMAND...` starts a node, runs the command beside it, and ends with its exit code.
"""
