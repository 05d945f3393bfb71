"""Writers that count their attempts."""

from __future__ import annotations

import pytest

from llmops.clients.kubernetes.client import Cluster
from llmops.releases.store import Store


class Attempts:
    """Counts the writes that a connection attempts.

    Attributes:
        cluster: The connection.
        made: Number of attempts.
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
