"""Costs of a model, compared with APIs: from a file of prices and Prometheus' counters.

Every price is a range, so every result is one. If two ranges overlap, the comparison says that either may be cheaper.
"""
