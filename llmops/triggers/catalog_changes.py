"""The sensor for changes of the catalog: an entry that is new, or is not as it was last rolled out.

It needs no network to see one: the entries are those that the code location was loaded with, and are compared by their
hashes. Loading it again is all that a change needs.
"""

from __future__ import annotations

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from pydantic import Field, ValidationError

from llmops.config.catalog.spec import ModelSpec, Strict
from llmops.errors import LlmopsError
from llmops.releases.ledger import Ledger
from llmops.triggers.candidates import Wish, wished_declaration
from llmops.triggers.installation import Installation
from llmops.triggers.requests import Ask, Asking, Asks, sensor_result

NAME = "catalog_changes"
SECONDS = 30


class Cursor(Strict):
    """What the sensor remembers from tick to tick; losing it costs one look at where all models stand.

    Args:
        entries: Hash of each model's entry when it was last looked at.
        asks: What is still to be asked.
    """

    entries: dict[str, str] = Field(default_factory=dict[str, str])
    asks: Asks = Field(default_factory=dict[str, Ask])

    @classmethod
    def read(cls, text: str | None) -> Cursor:
        """Read a cursor; one of another version is as good as none."""
        try:
            return cls.model_validate_json(text) if text else cls()
        except ValidationError:
            return cls()


def catalog_changes_sensor(installation: Installation, job: UnresolvedAssetJobDefinition) -> dg.SensorDefinition:
    """The sensor over all models of the catalog."""

    @dg.sensor(
        name=NAME,
        job=job,
        description="Asks for a rollout when a model's entry in the catalog, or one of its suites, is new or changed.",
        minimum_interval_seconds=SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def catalog_changes(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        return _tick(context, installation)

    return catalog_changes


def _tick(context: dg.SensorEvaluationContext, installation: Installation) -> dg.SensorResult:
    cursor, now = Cursor.read(context.cursor), installation.clock()
    entries: dict[str, str] = {}
    notes: list[str] = []
    for spec in installation.followed:
        try:
            entries[spec.name] = installation.declaration(spec)
        except LlmopsError as error:
            notes.append(f"{spec.name}: {error}")
    fresh = [model for model, entry in entries.items() if cursor.entries.get(model) != entry]

    def decide(spec: ModelSpec, ledger: Ledger) -> Wish | None:
        return wished_declaration(spec, ledger, installation.terms(spec), installation.declaration(spec))

    found = Asking(NAME, installation, context.instance, now).ask(cursor.asks, fresh, decide)
    return sensor_result(context, found, notes, Cursor(entries=entries, asks=found.asks))
