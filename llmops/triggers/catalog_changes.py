"""The trigger for changes of the catalog: a new entry, or one that differs from the last rollout.

It compares hashes of the entries that the code location was loaded with, and asks no network. A change counts as soon
as the code location is loaded again.
"""

from __future__ import annotations

from pydantic import Field

from llmops.config.catalog.spec import ModelSpec
from llmops.errors import LlmopsError
from llmops.releases.ledger import Ledger
from llmops.triggers import requests
from llmops.triggers.candidates import Candidate, declaration_candidate
from llmops.triggers.inputs import Inputs
from llmops.triggers.notes import Note
from llmops.triggers.requests import RequestQueue
from llmops.triggers.trigger import Tick, Trigger

NAME = "catalog_changes"
SECONDS = 30


class Cursor(requests.Cursor):
    """Losing it costs one read of all ledgers.

    Args:
        entries: Hash of each model's entry at the last tick.
    """

    entries: dict[str, str] = Field(default_factory=dict[str, str])


def tick(inputs: Inputs, cursor: Cursor) -> Tick[Cursor]:
    """Compare all entries with those of the last tick."""
    declarations, entries = inputs.declarations, dict[str, str]()
    notes: list[Note] = []
    for spec in declarations.followed:
        try:
            entries[spec.name] = declarations.entry_hash(spec)
        except LlmopsError as error:
            notes.append(Note.of(error, spec.name))
    fresh = [model for model, entry in entries.items() if cursor.entries.get(model) != entry]

    def decide(spec: ModelSpec, ledger: Ledger) -> Candidate | None:
        return declaration_candidate(spec, ledger, declarations.terms(spec), declarations.entry_hash(spec))

    result = RequestQueue(NAME, inputs).advance(cursor.pending, fresh, decide)
    return Tick(result.requests, notes + result.notes, Cursor(entries=entries, pending=result.pending))


TRIGGER = Trigger(
    name=NAME,
    description="Asks for a rollout when a model's entry in the catalog, or one of its suites, is new or changed.",
    seconds=lambda _: SECONDS,
    cursor=Cursor,
    tick=tick,
)
