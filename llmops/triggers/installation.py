"""What the triggers work on, kept from tick to tick: connections, credentials, and hashes of the catalog's entries.

The orchestrator evaluates sensors in one process that lives until the code location is loaded again. What costs a
request or a second is therefore asked once here, and not in every tick. This is the triggers' one way to the cluster
and to the hub.
"""

from __future__ import annotations

import hashlib
import json
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
from llmops.config.catalog.load import Catalog
from llmops.config.catalog.spec import ModelSpec
from llmops.config.settings import Settings
from llmops.errors import BadInput, LlmopsError
from llmops.evaluation.suites import load_suites
from llmops.releases.ledger import Ledger, declaration, ledgers, terms
from llmops.rollout.ops.pinning import hub_token, registry_credentials
from llmops.triggers.health import Health

CLUSTER_SECONDS = 5.0
SERVICE_SECONDS = 4.0
"""How long a tick waits for one answer: what does not answer now is asked by the next tick."""
ONCE = Patience(attempts=1)
SECRET_SECONDS = 600.0
"""How long a Secret is taken to be as it was read; a new password counts after that."""

ValueT = TypeVar("ValueT")


class Installation:
    """Settings, catalog, cluster and registry, for sensors.

    Args:
        settings: Of the installation.
        catalog: All models, as the code location was loaded with.
        clock: Tells the time, Unix seconds.
    """

    def __init__(self, settings: Settings, catalog: Catalog, clock: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self.catalog = catalog
        self.clock = clock
        self._suites: dict[str, str] = {}
        self._terms: dict[str, str] = {}
        self._declarations: dict[str, str] = {}
        self._secrets: dict[Hashable, tuple[float, object]] = {}
        self._registry: tuple[Mapping[str, Credentials], RegistryClient] | None = None

    @cached_property
    def followed(self) -> list[ModelSpec]:
        """Models that are rolled out without anybody asking."""
        return [spec for spec in self.catalog.values() if spec.automation.follow]

    @cached_property
    def cluster(self) -> Cluster:
        """Connection to the API server.

        Raises:
            BadInput, Unavailable: There is none; it is tried anew when it is next needed.
        """
        return Cluster.connect(self.settings, patience=CLUSTER_SECONDS)

    @property
    def registry(self) -> RegistryClient:
        """Client for the registries; the same one from tick to tick, as it holds tokens and open connections.

        Raises:
            BadInput, ClusterCannot, Unavailable: The Secret with credentials cannot be read.
        """
        credentials: Mapping[str, Credentials] = {}
        if self.settings.registry_secret is not None:
            credentials = self._kept("registry", lambda: registry_credentials(self.cluster, self.settings))
        if self._registry is None or self._registry[0] != credentials:
            client = RegistryClient(self.settings.registry_mirrors, credentials, ONCE, SERVICE_SECONDS)
            self._registry = (credentials, client)
        return self._registry[1]

    def ledgers(self) -> dict[str, Ledger]:
        """See `llmops.releases.ledger.ledgers`.

        Raises:
            BadInput, ClusterCannot, Unavailable: The cluster does not say.
        """
        return ledgers(self.cluster)

    def holders(self) -> dict[str, str]:
        """See `llmops.clients.kubernetes.lease.holders`.

        Raises:
            BadInput, ClusterCannot, Unavailable: The cluster does not say.
        """
        return holders(self.cluster)

    def put(self, alert: Alert) -> None:
        """Have an alert sent.

        Raises:
            BadInput, ClusterCannot, Unavailable: The cluster does not take it.
        """
        Outbox(self.cluster).put(alert)

    def commit(self, spec: ModelSpec) -> str:
        """The commit that a model's revision is at on the hub, asked once and not for long.

        Raises:
            BadInput: The hub refuses to say, or the Secret with the token cannot be read.
            ClusterCannot, Unavailable: Hub or cluster do not answer.
        """
        return resolve(
            spec.weights.repo,
            spec.weights.revision,
            endpoint=self.settings.hub_endpoint,
            token=self._hub_token(spec),
            patience=ONCE,
            timeout=SERVICE_SECONDS,
        )

    def terms(self, spec: ModelSpec) -> str:
        """See `llmops.releases.ledger.terms`.

        Raises:
            BadInput: A suite of the model cannot be read.
        """
        if spec.name not in self._terms:
            self._terms[spec.name] = terms(spec, self._suites_of(spec))
        return self._terms[spec.name]

    def declaration(self, spec: ModelSpec) -> str:
        """See `llmops.releases.ledger.declaration`.

        Raises:
            BadInput: A suite of the model cannot be read.
        """
        if spec.name not in self._declarations:
            self._declarations[spec.name] = declaration(spec, self._suites_of(spec))
        return self._declarations[spec.name]

    @cached_property
    def catalog_hash(self) -> str:
        """Hash of all entries that are followed, as far as a rollout may act on them; another one is another catalog.

        An entry whose suites cannot be read counts as it stands without them.
        """
        entries: list[tuple[str, str]] = []
        for spec in self.followed:
            try:
                entries.append((spec.name, self.declaration(spec)))
            except BadInput:
                entries.append((spec.name, spec.model_dump_json()))
        return hashlib.sha256(json.dumps(entries).encode()).hexdigest()[:16]

    def tell(self, health: Health, sensor: str, service: str, now: float) -> Health:
        """Tell people, once, of a service that has not answered for long; the service's health after that."""
        if (alert := health.alert(now, sensor, service)) is None:
            return health
        try:
            self.put(alert)
        except LlmopsError:
            # The cluster is away, too: it is told with a later tick, as nothing says that it was.
            return health
        return health.model_copy(update={"told": True})

    def _hub_token(self, spec: ModelSpec) -> str | None:
        if (secret := spec.weights.token) is None:
            return None
        return self._kept((secret.name, secret.key), lambda: hub_token(self.cluster, spec))

    def _suites_of(self, spec: ModelSpec) -> dict[str, str]:
        names = spec.evaluation.suites
        for name in names:
            if name not in self._suites:
                (suite,) = load_suites(self.settings.evals_dir, [name])
                self._suites[name] = suite.sha256
        return {name: self._suites[name] for name in names}

    def _kept(self, key: Hashable, read: Callable[[], ValueT]) -> ValueT:
        known = self._secrets.get(key)
        if known is None or time.monotonic() > known[0]:
            known = (time.monotonic() + SECRET_SECONDS, read())
            self._secrets[key] = known
        return known[1]  # pyright: ignore[reportReturnType] - what this key's read gave
