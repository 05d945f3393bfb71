"""Sensors read the cursors that older versions wrote, and begin anew with what they cannot read."""

from __future__ import annotations

import json

import pytest

from llmops.defs.cursors import LONGEST, read_cursor
from llmops.triggers import TRIGGERS, catalog_changes, image_tags, model_revisions
from llmops.triggers.requests import Cursor, PendingRequest

ASKS = {"tiny": {"wish": "key", "since": 1.5, "asked": 2, "under_way": True, "not_before": 3.5, "left": True}}
PENDING = {
    "tiny": PendingRequest(candidate="key", since=1.5, asked=2, under_way=True, not_before=3.5, left=True),
}
HEALTH = {"not_before": 2.5, "failures": 1, "since": 1.5, "why": "away", "told": True}
PAGE = {"path": "/v2/a/tags/list", "etag": "e", "content": "c", "hot": True}
REPOSITORY = {"policies": "p", "pages": [PAGE], "tags": ["v1"], "digests": {"v1": "d"}, "turn": 4, "health": HEALTH}
WRITTEN: list[tuple[type[Cursor], dict[str, object]]] = [
    (catalog_changes.Cursor, {"entries": {"tiny": "hash"}, "asks": ASKS}),
    (image_tags.Cursor, {"asks": ASKS, "repositories": {"a/b": REPOSITORY}, "considered": 1.5, "catalog": "c"}),
    (
        model_revisions.Cursor,
        {"asks": ASKS, "commits": {"a/b@main": "abc"}, "position": "a", "health": HEALTH, "considered": 1.5},
    ),
]


@pytest.mark.parametrize(("kind", "content"), WRITTEN)
def test_a_cursor_of_an_older_version_is_read_and_written_unchanged(
    kind: type[Cursor], content: dict[str, object]
) -> None:
    cursor, notes = read_cursor(json.dumps(content), kind.model_validate_json, kind())
    assert notes == []
    assert cursor.pending == PENDING
    assert json.loads(cursor.model_dump_json(exclude_defaults=True)) == content


def test_every_trigger_has_a_cursor_of_an_older_version_here() -> None:
    assert {kind for kind, _ in WRITTEN} == {trigger.cursor for trigger in TRIGGERS}


@pytest.mark.parametrize("text", [None, ""])
def test_a_first_tick_begins_without_a_note(text: str | None) -> None:
    assert read_cursor(text, int, 7) == (7, [])


@pytest.mark.parametrize("text", ["x", "1" * (LONGEST + 1)], ids=["unreadable", "too long"])
def test_an_unreadable_cursor_is_replaced_with_a_note(text: str) -> None:
    cursor, (note,) = read_cursor(text, int, 7)
    assert cursor == 7
    assert note.startswith("the sensor begins anew, as it cannot read its cursor: ")
    assert len(note) < 200
