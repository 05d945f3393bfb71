"""Cluster, registries and hub, as the triggers ask them: briefly, over connections that live from tick to tick.

Dagster evaluates all sensors in one process, which lives until it loads the code location again. Connections, registry
tokens and Secrets are kept for that long instead of being asked for in every tick. The triggers reach the cluster and
the hub through this module alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from functools import cached_property
from typing import TypeVar

from llmops.alerts.outbox import Alert, Outbox
from llmops.clients.hub import resolve
from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.lease import holders
from llmops.clients.registry import Credentials, RegistryClient
from llmops.clients.retries import Patience
from llmops.config.catalog.spec import ModelSpec
from llmops.errors import LlmopsError
from llmops.releases.ledger import Ledger, ledgers
from llmops.rollout.ops.pinning import hub_token, registry_credentials
from llmops.rollout.platform import Platform
from llmops.triggers.health import Health

CLUSTER_SECONDS = 5.0
SERVICE_SECONDS = 4.0
"""A tick waits this long for one answer; the next tick asks again."""
ONCE = Patience(attempts=1)
SECRET_SECONDS = 600.0
"""A Secret is read again after so many seconds: a new password counts from then on."""

ValueT = TypeVar("ValueT")


class Services:
    """The outside services of one installation, for all ticks of this process.

    Args:
        platform: The installation.
    """

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._settings = platform.settings
        self._secrets: dict[Hashable, tuple[float, object]] = {}
        self._registry: tuple[Mapping[str, Credentials], RegistryClient] | None = None

    @property
    def registry(self) -> RegistryClient:
        """Client for the registries. Ticks share one while the credentials stay: it holds tokens and connections.

        Raises:
            BadInput, ClusterCannot, Unavailable: The Secret with credentials cannot be read.
        """
        credentials: Mapping[str, Credentials] = {}
        if self._settings.registry_secret is not None:
            credentials = self._cached("registry", lambda: registry_credentials(self._cluster, self._settings))
        if self._registry is None or self._registry[0] != credentials:
            settings = self._settings
            client = RegistryClient(
                settings.registry_mirrors, credentials, ONCE, SERVICE_SECONDS, settings.registry_token_services
            )
            self._registry = (credentials, client)
        return self._registry[1]

    @property
    def hub_name(self) -> str:
        """The hub, as alerts name it."""
        return f"the hub at {self._settings.hub_endpoint}"

    def commit(self, spec: ModelSpec) -> str:
        """The commit that a model's revision is at on the hub.

        Raises:
            BadInput: The hub refuses, or the Secret with the token cannot be read.
            ClusterCannot, Unavailable: Hub or cluster do not answer.
        """
        return resolve(
            spec.weights.repo,
            spec.weights.revision,
            endpoint=self._settings.hub_endpoint,
            token=self._hub_token(spec),
            patience=ONCE,
            timeout=SERVICE_SECONDS,
        )

    def ledgers(self) -> dict[str, Ledger]:
        """See `llmops.releases.ledger.ledgers`.

        Raises:
            BadInput, ClusterCannot, Unavailable: The cluster does not say.
        """
        return ledgers(self._cluster)

    def holders(self) -> dict[str, str]:
        """See `llmops.clients.kubernetes.lease.holders`.

        Raises:
            BadInput, ClusterCannot, Unavailable: The cluster does not say.
        """
        return holders(self._cluster)

    def put(self, alert: Alert) -> None:
        """Put an alert into the outbox.

        Raises:
            BadInput, ClusterCannot, Unavailable: The cluster does not take it.
        """
        Outbox(self._cluster).put(alert)

    def alert_on(self, health: Health, sensor: str, service: str, now: float) -> Health:
        """Alert, once, on a service that has not answered for long; the service's health after that."""
        if (alert := health.alert(now, sensor, service)) is None:
            return health
        try:
            self.put(alert)
        except LlmopsError:
            # The cluster is away, too. `told` stays unset, so a later tick puts the alert.
            return health
        return health.model_copy(update={"told": True})

    @cached_property
    def _cluster(self) -> Cluster:
        # An error is not cached: the next use connects again.
        return self._platform.connect(CLUSTER_SECONDS)

    def _hub_token(self, spec: ModelSpec) -> str | None:
        if (secret := spec.weights.token) is None:
            return None
        return self._cached((secret.name, secret.key), lambda: hub_token(self._cluster, spec))

    def _cached(self, key: Hashable, read: Callable[[], ValueT]) -> ValueT:
        entry = self._secrets.get(key)
        if entry is None or time.monotonic() > entry[0]:
            entry = (time.monotonic() + SECRET_SECONDS, read())
            self._secrets[key] = entry
        return entry[1]  # pyright: ignore[reportReturnType] - the value of this key's `read`
