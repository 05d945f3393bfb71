"""What the API server refuses, as errors that say which object, why, and what to do next."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from llmops.errors import BadInput, ClusterCannot, LlmopsError, Unavailable

_FORBIDDEN = re.compile(
    r'User "(?P<user>[^"]*)" cannot (?P<verb>\S+) resource "(?P<resource>[^"]*)"'
    r' in API group "(?P<group>[^"]*)"(?: in the namespace "(?P<namespace>[^"]*)")?'
)
_MANAGER = re.compile(r'conflict with "([^"]*)"')


class AlreadyExists(ClusterCannot):
    """An object of that name is already there."""


class NotFound(ClusterCannot):
    """What a call is about is not there.

    Args:
        message: What was asked, and the answer.
        object_absent: Whether it is the object itself; else it is its namespace, or the API of its kind.
        remedy: What to do next.
    """

    def __init__(
        self, message: str, *, code: str = "", about: str = "", object_absent: bool = False, remedy: str = ""
    ) -> None:
        super().__init__(message, code=code, about=about, remedy=remedy)
        self.object_absent = object_absent


class Conflict(ClusterCannot):
    """Somebody else changed the object, or owns the fields that were to be set.

    Args:
        message: What was refused, and why.
        managers: Field managers that own the fields; empty if the object's version had moved on.
        fields: Paths of those fields.
        remedy: What to do next.
    """

    def __init__(
        self,
        message: str,
        *,
        about: str = "",
        managers: tuple[str, ...] = (),
        fields: tuple[str, ...] = (),
        remedy: str = "",
    ) -> None:
        super().__init__(message, about=about, remedy=remedy)
        self.managers = managers
        self.fields = fields


class Forbidden(ClusterCannot):
    """The account may not do this, or an admission rule or a quota refuses it."""


class NotEntitled(Forbidden):
    """The account lacks a right; the remedy has the rule that gives it."""


class Expired(ClusterCannot):
    """The version that a watch or a paged list goes on from is no longer kept: list anew."""


class Invalid(BadInput):
    """The API server does not accept the object's content."""


class TimedOut(ClusterCannot):
    """What was waited for did not happen in the time allowed."""


@dataclass(frozen=True)
class Call:
    """What is being asked of the API server, for error messages.

    Attributes:
        verb: What is done: get, list, apply, create, patch, delete, watch, read logs of.
        kind: Kind of the object.
        namespace: Its namespace; None for kinds that have none.
        name: Its name; None for a collection.
    """

    verb: str
    kind: str
    namespace: str | None = None
    name: str | None = None

    def __str__(self) -> str:
        where = f" in namespace {self.namespace}" if self.namespace else ""
        return f"{self.verb} {self.kind}{f' {self.name}' if self.name else ''}{where}"


def parse_status(body: bytes) -> dict[str, Any]:
    """The API server's Status object; anything else (a proxy's page, plain text) becomes its message."""
    text = body.decode("utf-8", "replace")
    try:
        status: Any = json.loads(text)
    except ValueError:
        status = None
    if isinstance(status, dict):
        return cast("dict[str, Any]", status)
    return {"message": text.strip()[:500]}


def refusal(
    code: int, http_reason: str, status: Mapping[str, Any], call: Call, *, retry_after: float | None = None
) -> LlmopsError:
    """The error for an answer that is not a success.

    Args:
        code: HTTP status.
        http_reason: Its HTTP reason, used where the body has none.
        status: Kubernetes Status object, or what `parse_status` made of the body.
        call: What was asked.
        retry_after: Seconds after which the server said to come back, if it said so.
    """
    reason = str(status.get("reason") or http_reason or "")
    said = str(status.get("message") or "no message")
    message = f"{call}: {code} {reason}: {said}"
    details: Mapping[str, Any] = status.get("details") or {}
    causes: list[Mapping[str, Any]] = details.get("causes") or []
    if code == 409:
        return _conflict(reason, message, causes, call)
    if code == 403:
        return _forbidden(message, said, causes)
    if code == 401:
        return ClusterCannot(message, remedy="Log in to the cluster again: its API does not accept these credentials.")
    if code == 404:
        return _not_found(message, details, call)
    if code == 410 or reason == "Expired":
        return Expired(message)
    # Server-side apply answers 500 for fields of a wrong type or name, which never passes by itself.
    if code in (400, 413, 415, 422) or "failed to create typed patch object" in said:
        fields = ", ".join(dict.fromkeys(str(cause["field"]) for cause in causes if cause.get("field")))
        return Invalid(message, remedy=f"Correct {fields}." if fields else "")
    return Unavailable(message, retry_after=retry_after)


def _conflict(reason: str, message: str, causes: list[Mapping[str, Any]], call: Call) -> LlmopsError:
    if reason == "AlreadyExists":
        return AlreadyExists(message)
    owned = [cause for cause in causes if cause.get("reason") == "FieldManagerConflict"]
    if not owned:
        return Conflict(message)
    found = {match[1] for cause in owned if (match := _MANAGER.search(str(cause.get("message", ""))))}
    managers = tuple(sorted(found))
    fields = tuple(str(cause.get("field", "?")) for cause in owned)
    who = ", ".join(repr(manager) for manager in managers) or "another field manager"
    return Conflict(
        f"{call}: {who} owns {', '.join(fields)}, which llmops would set",
        managers=managers,
        fields=fields,
        remedy=f"Stop {who} from setting these fields, or take them over once with force.",
    )


def _forbidden(message: str, said: str, causes: list[Mapping[str, Any]]) -> LlmopsError:
    if match := _FORBIDDEN.search(said):
        resource, _, _ = match["resource"].partition("/")
        rule = f'apiGroups: ["{match["group"]}"], resources: ["{match["resource"]}"], verbs: ["{match["verb"]}"]'
        where = f"a Role in namespace {match['namespace']}" if match["namespace"] else "a ClusterRole"
        if match["user"] == "system:anonymous":
            return Forbidden(
                message, remedy=f"The API server saw no credentials with the request for {resource}: log in again."
            )
        return NotEntitled(message, remedy=f"Give {match['user']} the rule {{{rule}}} through {where}.")
    if any(cause.get("reason") == "NamespaceTerminating" for cause in causes):
        return Forbidden(message, remedy="Wait until the namespace is gone, then create it again.")
    if "exceeded quota" in said:
        return Forbidden(message, remedy="Free or raise the quota of the namespace.")
    return Forbidden(message, remedy="An admission rule of the cluster refuses it: change the object, or the rule.")


def _not_found(message: str, details: Mapping[str, Any], call: Call) -> LlmopsError:
    if details.get("kind") == "namespaces" and call.kind != "Namespace":
        return NotFound(message, remedy=f"Create the namespace {details.get('name')}.")
    if not details.get("name"):
        return NotFound(message, remedy=f"The cluster does not serve the kind {call.kind}: install what brings it.")
    return NotFound(message, object_absent=True)
