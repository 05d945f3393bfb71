"""The part of a `Trial` that the operations below it need."""

from __future__ import annotations

from typing import Protocol

from llmops.clients.kubernetes.client import Cluster
from llmops.config.catalog.spec import ModelSpec
from llmops.config.settings import Settings
from llmops.releases.records import Records
from llmops.rollout.platform import Platform


class Current(Protocol):
    """A stage at work on the cluster."""

    @property
    def cluster(self) -> Cluster: ...  # noqa: D102
    @property
    def settings(self) -> Settings: ...  # noqa: D102
    @property
    def run(self) -> str: ...  # noqa: D102
    def log(self, message: str) -> None: ...  # noqa: D102


class CurrentModel(Current, Protocol):
    """A stage at work on a model, whose lease it holds."""

    @property
    def platform(self) -> Platform: ...  # noqa: D102
    @property
    def model(self) -> str: ...  # noqa: D102
    @property
    def spec(self) -> ModelSpec: ...  # noqa: D102
    @property
    def records(self) -> Records: ...  # noqa: D102
