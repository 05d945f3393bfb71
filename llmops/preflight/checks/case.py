"""What the checks of one model look at, and how checks are run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from llmops.clients.kubernetes.problems import Forbidden
from llmops.config.catalog.spec import ModelSpec
from llmops.errors import LlmopsError, Unavailable
from llmops.preflight.finding import Finding, about
from llmops.preflight.fit.shape import Shape
from llmops.preflight.snapshot import Snapshot
from llmops.releases.release import Release


@dataclass(frozen=True)
class HubAnswer:
    """What the hub said of a model's repository: its files may be downloaded.

    Args:
        endpoint: Base URL of the hub.
        repo: The repository.
        account: Whose token was sent; None if none was.
    """

    endpoint: str
    repo: str
    account: str | None = None


@dataclass(frozen=True)
class ImageAnswer:
    """What the registry said of the engine's image.

    Args:
        tag: The version that the policy means now.
        digest: What the tag is at.
        image: The repository.
        architectures: What it is there for, as Kubernetes names them: amd64, arm64.
    """

    tag: str
    digest: str
    image: str
    architectures: frozenset[str]


@dataclass(frozen=True)
class Start:
    """A start of an engine that was measured.

    Args:
        release: What was started.
        bytes: Of its weights.
        seconds: From its Deployment to its first answer; pulling the image is part of it.
    """

    release: str
    bytes: int
    seconds: float


@dataclass(frozen=True)
class Case:
    """One model on a cluster.

    Args:
        spec: Its entry.
        snapshot: The cluster.
        release: What the entry comes to now; None where that could not be found out.
        hub: What the hub said, or why it gave no answer; None where it need not be asked.
        image: What the registry said, or why it gave no answer.
        shape: What decides how much memory the model takes; None where it has no such description.
        starts: Those that were measured before.
    """

    spec: ModelSpec
    snapshot: Snapshot
    release: Release | None
    hub: HubAnswer | LlmopsError | None
    image: ImageAnswer | LlmopsError
    shape: Shape | LlmopsError | None = None
    starts: tuple[Start, ...] = ()


LooksAtT = TypeVar("LooksAtT", Snapshot, Case)


def _always(_: object) -> bool:
    return True


@dataclass(frozen=True)
class Check(Generic[LooksAtT]):
    """One check.

    Args:
        id: `TOPIC.WHAT`, for programs.
        subject: What it looks at, for people; where nothing can be seen there is no better word.
        parts: Parts of the snapshot without which it can say nothing.
        find: Pure; yields nothing where there is nothing to look at.
        used: Whether what it looks at is used at all: nobody has to see what is not.
    """

    id: str
    subject: str
    parts: tuple[str, ...]
    find: Callable[[LooksAtT], Iterable[Finding]]
    used: Callable[[LooksAtT], bool] = _always


def run(checks: Iterable[Check[LooksAtT]], at: LooksAtT) -> Iterator[Finding]:
    """All findings of the checks. A check whose parts could not be seen finds that, and never that all is well."""
    snapshot, model = (at, "") if isinstance(at, Snapshot) else (at.snapshot, at.spec.name)
    for check in checks:
        if not check.used(at):
            continue
        unseen = [snapshot.unseen[part] for part in check.parts if part in snapshot.unseen]
        found = [_cannot_be_seen(check.subject, error) for error in unseen] or check.find(at)
        yield from (about(check.id, model, each) for each in found)


def failed(subject: str, error: LlmopsError) -> Finding:
    """What an error means for a check: no answer and no right to look are unknown, any other refusal is an error."""
    severity = "unknown" if isinstance(error, Unavailable | Forbidden) else "error"
    return Finding(severity, subject, error.message, error.remedy or "Try again later.")


def _cannot_be_seen(subject: str, error: LlmopsError) -> Finding:
    return Finding("unknown", subject, f"cannot be seen: {error.message}", error.remedy or "Try again later.")


def amount(size: float) -> str:
    """Bytes for people: `39.8 GB`, `1.0 MB`."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def some(names: Iterable[str], shown: int = 5) -> str:
    """The first few names, and how many more there are."""
    found = list(names)
    more = f" and {len(found) - shown} more" if len(found) > shown else ""
    return ", ".join(found[:shown]) + more


def count(number: int, what: str) -> str:
    """`1 node`, `2 nodes`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
