"""The input of a model's checks, and the runner of checks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from llmops.clients.kubernetes.problems import Forbidden
from llmops.config.catalog.spec import ModelSpec
from llmops.errors import LlmopsError, Unavailable
from llmops.preflight.finding import Finding, about
from llmops.preflight.fit.shape import Shape
from llmops.preflight.snapshot import Object, Snapshot
from llmops.releases.release import Release


@dataclass(frozen=True)
class HubAnswer:
    """The hub's answer for a model's repository: llmops may download its files.

    Args:
        endpoint: Base URL of the hub.
        repo: The repository.
        account: Account of the token; None without a token.
    """

    endpoint: str
    repo: str
    account: str | None = None


@dataclass(frozen=True)
class ImageAnswer:
    """The registry's answer for the engine's image.

    Args:
        tag: The tag that the policy picks now.
        digest: Digest of the tag.
        image: The repository.
        architectures: Architectures of the image, by their names in Kubernetes: amd64, arm64.
    """

    tag: str
    digest: str
    image: str
    architectures: frozenset[str]


@dataclass(frozen=True)
class Start:
    """A measured start of an engine.

    Args:
        release: Id of the release.
        bytes: Size of its weights.
        seconds: From its Deployment to its first answer, with the pull of the image.
    """

    release: str
    bytes: int
    seconds: float


@dataclass(frozen=True)
class Case:
    """One model on a cluster.

    Args:
        spec: The model's entry.
        snapshot: The cluster.
        release: The release that the entry resolves to now; None if it could not be resolved.
        hub: The hub's answer or error; None if the weights do not come from a hub.
        image: The registry's answer or error.
        shape: The model's shape or the error of reading it; None if the model has no `config.json`, or
            its pins come from a file.
        starts: Earlier measured starts.
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
        subject: Subject of the finding if a part is unseen.
        parts: Parts of the snapshot that the check needs.
        find: The check. Pure; it yields nothing without an object to check.
        used: Whether the configuration uses the feature: an unused one needs no right to read.
    """

    id: str
    subject: str
    parts: tuple[str, ...]
    find: Callable[[LooksAtT], Iterable[Finding]]
    used: Callable[[LooksAtT], bool] = _always


def run(checks: Iterable[Check[LooksAtT]], at: LooksAtT) -> Iterator[Finding]:
    """All findings of the checks. A check with an unseen part is unknown, never ok."""
    snapshot, model = (at, "") if isinstance(at, Snapshot) else (at.snapshot, at.spec.name)
    for check in checks:
        if not check.used(at):
            continue
        unseen = [snapshot.unseen[part] for part in check.parts if part in snapshot.unseen]
        findings = [_unseen(check.subject, error) for error in unseen] or check.find(at)
        yield from (about(check.id, model, finding) for finding in findings)


def failed(subject: str, error: LlmopsError) -> Finding:
    """The finding for an error: unknown without an answer or the right to read, else an error."""
    severity = "unknown" if isinstance(error, Unavailable | Forbidden) else "error"
    return Finding(severity, subject, error.message, error.remedy or "Try again later.")


def _unseen(subject: str, error: LlmopsError) -> Finding:
    return Finding("unknown", subject, f"cannot be read: {error.message}", error.remedy or "Try again later.")


def amount(size: float) -> str:
    """Bytes for people: `39.8 GB`, `1.0 MB`."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def some(names: Iterable[str], shown: int = 5) -> str:
    """The first few names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - shown} more" if len(listed) > shown else ""
    return ", ".join(listed[:shown]) + more


def names_of(objects: Iterable[Object]) -> str:
    """The first few names of objects, sorted; `none` without objects."""
    return some(sorted(str(obj["metadata"]["name"]) for obj in objects)) or "none"


def count(number: int, what: str) -> str:
    """`1 node`, `2 nodes`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
