"""The HTTP service: metrics for Prometheus and reports for people, from the records in the cluster.

It writes nothing and needs no Dagster database.
"""
