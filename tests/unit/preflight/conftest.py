"""Nodes, pods, entries and releases to check."""

from tests.support.preflight import node, pod, release, snapshot, spec

__all__ = ["node", "pod", "release", "snapshot", "spec"]
