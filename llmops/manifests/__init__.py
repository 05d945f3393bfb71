"""Kubernetes objects of a release, as plain dicts. Pure: no I/O, no clock."""
