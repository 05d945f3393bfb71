"""The HTTP service: metrics for Prometheus and reports for people, read from the cluster and never written.

It needs no Dagster: what it shows is what the records in the cluster say.
"""
