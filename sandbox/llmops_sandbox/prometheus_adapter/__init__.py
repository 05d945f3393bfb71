"""The Prometheus Adapter in the sandbox: custom metrics for the HPA's controller, out of the sandbox's Prometheus.

`go.mod` beside this file pins it and what it is made of.
"""
