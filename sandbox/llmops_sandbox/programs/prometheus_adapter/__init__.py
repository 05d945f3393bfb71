"""The Prometheus Adapter in the sandbox: serves the sandbox's Prometheus as custom metrics to the HPA's controller.

`go.mod` beside this file pins it and its modules.
"""
