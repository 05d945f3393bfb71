"""Measurements against the tools of the field: `make bench`."""
