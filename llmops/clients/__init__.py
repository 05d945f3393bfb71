"""The only code that talks to other services: Kubernetes, the hub, image registries, Prometheus."""
