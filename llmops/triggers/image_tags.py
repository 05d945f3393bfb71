"""The trigger for new image tags, and for tags that were pushed again.

It groups models by image repository, and sends each repository one small request a tick; see `repositories`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from pydantic import Field

from llmops.clients.registry import ImageName, RegistryClient
from llmops.config.catalog.spec import ModelSpec
from llmops.errors import BadInput, LlmopsError
from llmops.releases.ledger import Ledger
from llmops.triggers import requests
from llmops.triggers.candidates import Candidate, image_candidate
from llmops.triggers.inputs import Inputs
from llmops.triggers.notes import Note
from llmops.triggers.repositories import Look, Lookup, Repository, look
from llmops.triggers.requests import RequestQueue
from llmops.triggers.trigger import Tick, Trigger

NAME = "image_tags"
RECONSIDER_SECONDS = 3600.0
"""Reads all ledgers at this interval even if no registry has anything new: people roll out, too."""
REPOSITORIES_AT_ONCE = 8

Groups = Mapping[ImageName, list[ModelSpec]]


class Cursor(requests.Cursor):
    """Losing it costs one full read of all repositories and ledgers.

    Args:
        repositories: By full name, such as docker.io/vllm/vllm-openai.
        considered: When all models were last decided on, Unix seconds.
        catalog: Hash of the catalog at that time.
    """

    repositories: dict[str, Repository] = Field(default_factory=dict[str, Repository])
    considered: float = 0
    catalog: str = ""


def tick(inputs: Inputs, cursor: Cursor) -> Tick[Cursor]:
    """Send each repository one request."""
    declarations, services, now = inputs.declarations, inputs.services, inputs.now
    try:
        registry = services.registry
    except LlmopsError as error:
        # Without credentials a registry refuses, and some lock out a client after refusals.
        return Tick([], [Note.of(error, "registries are not asked")], cursor)
    groups, notes = _by_repository(declarations.followed)
    looks = _look_at_all(registry, groups, cursor.repositories, now)
    notes += [look.note for look in looks.values() if look.note is not None]
    fresh = {spec.name for image, look in looks.items() if look.new for spec in groups[image]}
    considered = cursor.considered
    catalog = declarations.catalog_hash
    if now - considered >= RECONSIDER_SECONDS or catalog != cursor.catalog:
        fresh = {spec.name for image, look in looks.items() if look.repository.pages for spec in groups[image]}
        considered = now
    lookups = {image: Lookup(registry, image, look.repository) for image, look in looks.items()}

    def decide(spec: ModelSpec, ledger: Ledger) -> Candidate | None:
        lookup = lookups[ImageName.parse(spec.engine.image)]
        return image_candidate(spec, ledger, declarations.terms(spec), lookup.offers(spec.engine), lookup.digest)

    result = RequestQueue(NAME, inputs).advance(cursor.pending, fresh, decide)
    repositories: dict[str, Repository] = {}
    for image, lookup in lookups.items():
        repository = lookup.learned(whole={spec.name for spec in groups[image]} <= result.settled)
        health = services.alert_on(repository.health, NAME, str(image), now)
        repositories[str(image)] = repository.model_copy(update={"health": health})
    after = Cursor(repositories=repositories, pending=result.pending, considered=considered, catalog=catalog)
    return Tick(result.requests, notes + result.notes, after)


TRIGGER = Trigger(
    name=NAME,
    description="Asks for a rollout when an image repository has a newer tag that a model's policy allows, or a "
    "tag that a model follows was pushed again.",
    seconds=lambda settings: settings.registry_poll_seconds,
    cursor=Cursor,
    tick=tick,
)


def _by_repository(specs: Iterable[ModelSpec]) -> tuple[Groups, list[Note]]:
    """Models by the repository that they follow, and notes on those with an invalid image name."""
    groups: defaultdict[ImageName, list[ModelSpec]] = defaultdict(list)
    notes: list[Note] = []
    for spec in specs:
        try:
            groups[ImageName.parse(spec.engine.image)].append(spec)
        except BadInput as error:
            notes.append(Note.of(error, spec.name))
    return groups, notes


def _look_at_all(
    registry: RegistryClient, groups: Groups, repositories: Mapping[str, Repository], now: float
) -> dict[ImageName, Look]:
    """Ask all repositories at once: one that does not answer delays no other."""

    def ask(image: ImageName) -> Look:
        engines = [spec.engine for spec in groups[image]]
        return look(registry, image, repositories.get(str(image), Repository()), engines, now)

    with ThreadPoolExecutor(REPOSITORIES_AT_ONCE) as threads:
        return dict(zip(groups, threads.map(ask, groups), strict=True))
