"""The only code that talks to Prometheus, by its HTTP API."""

from llmops.clients.prometheus.client import Prometheus, Sample, Series

__all__ = ["Prometheus", "Sample", "Series"]
