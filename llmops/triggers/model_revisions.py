"""The trigger for new commits on the branches and tags that models follow on the hub."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from pydantic import Field

from llmops.config.catalog.spec import ModelSpec
from llmops.errors import LlmopsError, Unavailable
from llmops.releases.ledger import Ledger
from llmops.triggers import requests
from llmops.triggers.candidates import Candidate, follows_revision, revision_candidate
from llmops.triggers.health import Health
from llmops.triggers.inputs import Inputs
from llmops.triggers.notes import Note
from llmops.triggers.requests import RequestQueue
from llmops.triggers.services import Services
from llmops.triggers.trigger import Tick, Trigger

NAME = "model_revisions"
MOST_REQUESTS = 50
"""Requests to the hub in one tick; further revisions follow in the next ticks. The hub allows a client without a token
hundreds in five minutes."""
REQUESTS_AT_ONCE = 8
RECONSIDER_SECONDS = 3600.0
"""Reads all ledgers at this interval even if the hub has nothing new: people roll out, too."""

Groups = Mapping[str, list[ModelSpec]]


class Cursor(requests.Cursor):
    """Losing it costs one request for each revision.

    Args:
        commits: Last known commit by name of the revision; empty if the hub refused.
        position: Name of the revision that was asked for last.
        health: Of the hub.
        considered: When all models were last decided on, Unix seconds.
        catalog: Hash of the catalog at that time.
    """

    commits: dict[str, str] = Field(default_factory=dict[str, str])
    position: str = ""
    health: Health = Health()
    considered: float = 0
    catalog: str = ""


@dataclass
class Answers:
    """The hub's answers in one tick.

    Args:
        commits: By name of the revision; empty if the hub refused.
        away: Why the tick stopped asking.
        notes: On refused revisions.
    """

    commits: dict[str, str] = field(default_factory=dict[str, str])
    away: Unavailable | None = None
    notes: list[Note] = field(default_factory=list[Note])


def tick(inputs: Inputs, cursor: Cursor) -> Tick[Cursor]:
    """Ask the hub for the commits of the next revisions."""
    declarations, services, now = inputs.declarations, inputs.services, inputs.now
    groups = _by_revision(declarations.followed)
    commits = {name: commit for name, commit in cursor.commits.items() if name in groups}
    health, position, considered = cursor.health, cursor.position, cursor.considered
    fresh: set[str] = set()
    notes: list[Note] = []
    if now < health.not_before:
        line = f"the hub is not asked for another {health.not_before - now:.0f} s: {health.why}"
        notes.append(Note("Paused", line))
    elif turn := next_in_turn(sorted(groups), position, MOST_REQUESTS):
        answers = _ask_hub(services, {name: groups[name][0] for name in turn})
        notes += answers.notes
        new = [name for name, commit in answers.commits.items() if commit and commit != commits.get(name)]
        fresh = {spec.name for name in new for spec in groups[name]}
        commits |= answers.commits
        if answers.away is None:
            health, position = health.answered(now, None), turn[-1]
        else:
            health = health.failed(now, answers.away)
            notes.append(Note.of(answers.away))
    catalog = declarations.catalog_hash
    if now - considered >= RECONSIDER_SECONDS or catalog != cursor.catalog:
        fresh = {spec.name for name, specs in groups.items() if commits.get(name) for spec in specs}
        considered = now

    def decide(spec: ModelSpec, ledger: Ledger) -> Candidate | None:
        commit = commits.get(revision_name(spec))
        return revision_candidate(spec, ledger, declarations.terms(spec), commit) if commit else None

    result = RequestQueue(NAME, inputs).advance(cursor.pending, fresh, decide)
    health = services.alert_on(health, NAME, services.hub_name, now)
    after = Cursor(
        commits=commits,
        position=position,
        health=health,
        pending=result.pending,
        considered=considered,
        catalog=catalog,
    )
    return Tick(result.requests, notes + result.notes, after)


TRIGGER = Trigger(
    name=NAME,
    description="Asks for a rollout when the branch or tag that a model follows on the hub is at another commit.",
    seconds=lambda settings: settings.hub_poll_seconds,
    cursor=Cursor,
    tick=tick,
)


def revision_name(spec: ModelSpec) -> str:
    """The revision and the token to ask with: one request answers for all models with the same name."""
    token = spec.weights.token
    return f"{spec.weights.repo}@{spec.weights.revision}" + (f" by {token.name}/{token.key}" if token else "")


def next_in_turn(names: Sequence[str], position: str, most: int) -> list[str]:
    """The next `most` of the sorted names after `position`, wrapping around, none twice."""
    after = next((index for index, name in enumerate(names) if name > position), 0)
    return [*names[after:], *names[:after]][:most]


def _by_revision(specs: Sequence[ModelSpec]) -> Groups:
    groups: defaultdict[str, list[ModelSpec]] = defaultdict(list)
    for spec in specs:
        if follows_revision(spec):
            groups[revision_name(spec)].append(spec)
    return groups


def _ask_hub(services: Services, revisions: Mapping[str, ModelSpec]) -> Answers:
    """Ask for the commits of revisions, several at once; stop when the hub does not answer."""
    answers, lock = Answers(), threading.Lock()

    def ask(name: str) -> None:
        if answers.away is not None:
            return
        try:
            commit = services.commit(revisions[name])
        except Unavailable as error:
            with lock:
                answers.away = error
        except LlmopsError as error:
            with lock:
                answers.commits[name] = ""
                answers.notes.append(Note.of(error))
        else:
            with lock:
                answers.commits[name] = commit

    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as threads:
        list(threads.map(ask, revisions))
    return answers
