"""The only code that calls Prometheus, by its HTTP API."""

from llmops.clients.prometheus.client import Prometheus, Sample, Series

__all__ = ["Prometheus", "Sample", "Series"]
