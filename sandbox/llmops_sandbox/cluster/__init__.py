"""The control plane: a real Kubernetes, built from source, with its certificates, nodes and custom resources."""
