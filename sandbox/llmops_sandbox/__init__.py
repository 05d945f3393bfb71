"""A cluster on one machine: a real Kubernetes API, and stand-ins for hub, registry and engine."""
