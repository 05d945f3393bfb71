"""The only code that calls other services: Kubernetes, the hub, image registries, Prometheus."""
