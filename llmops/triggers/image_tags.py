"""The sensor for new image tags, and for tags that were pushed again.

Models are grouped by image repository, and each repository is asked one small question a tick; see `repositories`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from pydantic import Field, ValidationError

from llmops.clients.registry import ImageName, RegistryClient
from llmops.config.catalog.spec import ModelSpec, Strict
from llmops.errors import BadInput, LlmopsError
from llmops.releases.ledger import Ledger
from llmops.triggers.candidates import Wish, wished_image
from llmops.triggers.installation import Installation
from llmops.triggers.repositories import Look, Lookup, Repository, look
from llmops.triggers.requests import Ask, Asking, Asks, sensor_result

NAME = "image_tags"
RECONSIDER_SECONDS = 3600.0
"""Where models stand is looked at as often as that, though no registry has anything new: people roll out, too."""
REPOSITORIES_AT_ONCE = 8

Groups = Mapping[ImageName, list[ModelSpec]]


class Cursor(Strict):
    """What the sensor remembers from tick to tick; losing it costs one full look at everything.

    Args:
        repositories: By full name, such as docker.io/vllm/vllm-openai.
        asks: What is still to be asked.
        considered: When all models were last looked at, Unix seconds.
        catalog: Hash of the catalog that they were looked at by.
    """

    repositories: dict[str, Repository] = Field(default_factory=dict[str, Repository])
    asks: Asks = Field(default_factory=dict[str, Ask])
    considered: float = 0
    catalog: str = ""

    @classmethod
    def read(cls, text: str | None) -> Cursor:
        """Read a cursor; one of another version is as good as none."""
        try:
            return cls.model_validate_json(text) if text else cls()
        except ValidationError:
            return cls()


def image_tags_sensor(installation: Installation, job: UnresolvedAssetJobDefinition) -> dg.SensorDefinition:
    """The sensor over all models of the catalog."""

    @dg.sensor(
        name=NAME,
        job=job,
        description="Asks for a rollout when an image repository has a newer tag that a model's policy allows, or a "
        "tag that a model follows was pushed again.",
        minimum_interval_seconds=installation.settings.registry_poll_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def image_tags(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        try:
            registry = installation.registry
        except LlmopsError as error:
            # Without its credentials a registry would only refuse, and some lock out who asks in vain.
            return dg.SkipReason(f"registries are not asked: {error}")
        return _tick(context, installation, registry)

    return image_tags


def _tick(context: dg.SensorEvaluationContext, installation: Installation, registry: RegistryClient) -> dg.SensorResult:
    cursor, now = Cursor.read(context.cursor), installation.clock()
    groups, notes = _by_repository(installation.followed)
    looks = _look_at_all(registry, groups, cursor.repositories, now)
    notes += [each.note for each in looks.values() if each.note]
    fresh = {spec.name for image, each in looks.items() if each.new for spec in groups[image]}
    considered = cursor.considered
    catalog = installation.catalog_hash
    if now - considered >= RECONSIDER_SECONDS or catalog != cursor.catalog:
        fresh = {spec.name for image, each in looks.items() if each.known.pages for spec in groups[image]}
        considered = now
    lookups = {image: Lookup(registry, image, each.known) for image, each in looks.items()}

    def decide(spec: ModelSpec, ledger: Ledger) -> Wish | None:
        lookup = lookups[ImageName.parse(spec.engine.image)]
        return wished_image(spec, ledger, installation.terms(spec), lookup.offers(spec.engine), lookup.digest)

    found = Asking(NAME, installation, context.instance, now).ask(cursor.asks, fresh, decide)
    repositories: dict[str, Repository] = {}
    for image, lookup in lookups.items():
        known = lookup.learned(whole={spec.name for spec in groups[image]} <= found.settled)
        health = installation.tell(known.health, NAME, str(image), now)
        repositories[str(image)] = known.model_copy(update={"health": health})
    after = Cursor(repositories=repositories, asks=found.asks, considered=considered, catalog=catalog)
    return sensor_result(context, found, notes, after)


def _by_repository(specs: Iterable[ModelSpec]) -> tuple[Groups, list[str]]:
    """Models by the repository that they follow, and what is said of those whose image is none."""
    groups: defaultdict[ImageName, list[ModelSpec]] = defaultdict(list)
    notes: list[str] = []
    for spec in specs:
        try:
            groups[ImageName.parse(spec.engine.image)].append(spec)
        except BadInput as error:
            notes.append(f"{spec.name}: {error}")
    return groups, notes


def _look_at_all(
    registry: RegistryClient, groups: Groups, known: Mapping[str, Repository], now: float
) -> dict[ImageName, Look]:
    """Ask all repositories at once: one that does not answer keeps nobody else waiting."""

    def ask(image: ImageName) -> Look:
        engines = [spec.engine for spec in groups[image]]
        return look(registry, image, known.get(str(image), Repository()), engines, now)

    with ThreadPoolExecutor(REPOSITORIES_AT_ONCE) as threads:
        return dict(zip(groups, threads.map(ask, groups), strict=True))
