"""Writers that count their attempts."""

from __future__ import annotations

import pytest

from llmops.clients.kubernetes.client import Cluster
from llmops.releases.store import Store


class Attempts:
    """Counts the attempts at a change that a connection makes.

    Attributes:
        cluster: The connection.
        made: How many it has made.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster.guarded(self._count)
        self.made = 0

    def _count(self) -> None:
        self.made += 1


@pytest.fixture
def attempts(cluster: Cluster) -> Attempts:
    return Attempts(cluster)


@pytest.fixture
def store(cluster: Cluster) -> Store:
    return Store(cluster)
