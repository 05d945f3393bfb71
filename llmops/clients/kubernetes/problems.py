"""Refusals of the API server as errors: which object, why, and what to do next."""

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
    """An object of that name exists."""


class NotFound(ClusterCannot):
    """The object, its namespace, or the API of its kind does not exist.

    Args:
        message: The call, and the answer.
        code: See `LlmopsError`.
        about: See `LlmopsError`.
        object_absent: Whether the object itself is missing, and not its namespace or the API of its kind.
        remedy: What to do next.
    """

    def __init__(
        self, message: str, *, code: str = "", about: str = "", object_absent: bool = False, remedy: str = ""
    ) -> None:
        super().__init__(message, code=code, about=about, remedy=remedy)
        self.object_absent = object_absent


class Conflict(ClusterCannot):
    """Another client changed the object, or owns fields that the call sets.

    Args:
        message: What was refused, and why.
        code: See `LlmopsError`.
        about: See `LlmopsError`.
        managers: Field managers that own the fields; empty if the object's version has changed.
        fields: Paths of those fields.
        of_object: Whether it is about the object of the call, and not about a quota that counts it.
        remedy: What to do next.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        about: str = "",
        managers: tuple[str, ...] = (),
        fields: tuple[str, ...] = (),
        of_object: bool = True,
        remedy: str = "",
    ) -> None:
        super().__init__(message, code=code, about=about, remedy=remedy)
        self.managers = managers
        self.fields = fields
        self.of_object = of_object


class Forbidden(ClusterCannot):
    """The account lacks a right, or an admission rule or a quota refuses the call."""


class NotEntitled(Forbidden):
    """The account lacks a right; the remedy shows the rule that grants it."""


class Expired(ClusterCannot):
    """The API server no longer keeps the version that a watch or a paged list resumes from: list again."""


class Invalid(BadInput):
    """The API server rejects the content of the object."""


class TimedOut(ClusterCannot):
    """The deadline of a wait passed."""


@dataclass(frozen=True)
class Call:
    """One call to the API server, as error messages name it.

    Attributes:
        verb: get, list, apply, create, patch, delete, watch, read logs of.
        kind: Kind of the object.
        namespace: Its namespace; None for kinds that have none.
        name: Its name; None for a collection.
    """

    verb: str
    kind: str
    namespace: str | None = None
    name: str | None = None

    @property
    def about(self) -> str:
        """The object, or the kind of a collection."""
        return f"{self.kind} {self.name}" if self.name else self.kind

    def __str__(self) -> str:
        where = f" in namespace {self.namespace}" if self.namespace else ""
        return f"{self.verb} {self.about}{where}"


def parse_status(body: bytes) -> dict[str, Any]:
    """Parse the API server's Status object; another body (a proxy's page, plain text) becomes the message of one."""
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
    """The error for an answer that is not a success; its `about` is the object of the call.

    Args:
        code: HTTP status.
        http_reason: HTTP reason, used if `status` has no reason.
        status: Kubernetes Status object from `parse_status`.
        call: The call that was refused.
        retry_after: Seconds of the Retry-After header, if the answer has one.
    """
    reason = str(status.get("reason") or http_reason or "")
    detail = str(status.get("message") or "no message")
    message = f"{call}: {code} {reason}: {detail}"
    details: Mapping[str, Any] = status.get("details") or {}
    causes: list[Mapping[str, Any]] = details.get("causes") or []
    if code == 409:
        return _conflict(reason, message, details, call)
    if code == 403:
        return _forbidden(message, detail, causes, call)
    if code == 401:
        return ClusterCannot(
            message,
            code="CredentialsRefused",
            about=call.about,
            remedy="Log in to the cluster again: its API does not accept these credentials.",
        )
    if code == 404:
        return _not_found(message, details, call)
    if code == 410 or reason == "Expired":
        return Expired(message, about=call.about)
    # Server-side apply answers 500 for fields of a wrong type or name: no retry helps.
    if code in (400, 413, 415, 422) or "failed to create typed patch object" in detail:
        fields = ", ".join(dict.fromkeys(str(cause["field"]) for cause in causes if cause.get("field")))
        return Invalid(message, about=call.about, remedy=f"Correct {fields}." if fields else "")
    problem = "RateLimited" if code == 429 else "ApiServerFailed"
    return Unavailable(message, code=problem, about=call.about, retry_after=retry_after)


def is_passing_conflict(problem: LlmopsError, body: object) -> bool:
    """Whether a conflict is between the API server's own writes, so that the same call succeeds a moment later.

    Two creations that count against one ResourceQuota conflict over it (kubernetes issue 67761), and "try again" is
    what the API server says of a write that it could not repeat often enough. A call that names the version or the uid
    which it expects has to decide anew, and a field that somebody else owns stays owned.

    Args:
        problem: The refusal of the call.
        body: What the call sent.
    """
    if not isinstance(problem, Conflict) or problem.fields:
        return False
    return not problem.of_object or ("try again" in problem.message and not _expects(body))


def _expects(body: object) -> bool:
    """Whether a body names the version or the uid of the object that it is to change."""
    content = cast("Mapping[str, Any]", body) if isinstance(body, Mapping) else {}
    meta: Mapping[str, Any] = content.get("metadata") or {}
    return bool(content.get("preconditions") or meta.get("resourceVersion") or meta.get("uid"))


def _conflict(reason: str, message: str, details: Mapping[str, Any], call: Call) -> LlmopsError:
    if reason == "AlreadyExists":
        return AlreadyExists(message, about=call.about)
    causes: list[Mapping[str, Any]] = details.get("causes") or []
    owned = [cause for cause in causes if cause.get("reason") == "FieldManagerConflict"]
    if not owned:
        # A quota in the way of another object is no conflict over that object.
        of_object = details.get("kind") != "resourcequotas" or call.kind == "ResourceQuota"
        return Conflict(message, about=call.about, of_object=of_object)
    managers = tuple(sorted({match[1] for cause in owned if (match := _MANAGER.search(str(cause.get("message", ""))))}))
    fields = tuple(str(cause.get("field", "?")) for cause in owned)
    who = ", ".join(repr(manager) for manager in managers) or "another field manager"
    return Conflict(
        f"{call}: {who} owns {', '.join(fields)}, which llmops sets",
        code="FieldsOwned",
        about=call.about,
        managers=managers,
        fields=fields,
        remedy=f"Stop {who} from setting these fields, or take them over once with force.",
    )


def _forbidden(message: str, detail: str, causes: list[Mapping[str, Any]], call: Call) -> LlmopsError:
    if match := _FORBIDDEN.search(detail):
        resource, _, _ = match["resource"].partition("/")
        rule = f'apiGroups: ["{match["group"]}"], resources: ["{match["resource"]}"], verbs: ["{match["verb"]}"]'
        where = f"a Role in namespace {match['namespace']}" if match["namespace"] else "a ClusterRole"
        if match["user"] == "system:anonymous":
            return Forbidden(
                message,
                code="CredentialsMissing",
                about=call.about,
                remedy=f"The request for {resource} reached the API server without credentials: log in again.",
            )
        return NotEntitled(
            message, about=call.about, remedy=f"Give {match['user']} the rule {{{rule}}} through {where}."
        )
    if any(cause.get("reason") == "NamespaceTerminating" for cause in causes):
        return Forbidden(
            message,
            code="NamespaceTerminating",
            about=call.about,
            remedy="Wait until the namespace is gone, then create it again.",
        )
    if "status unknown for quota" in detail:
        # The quota is new, and its controller has not counted yet.
        return Unavailable(message, code="QuotaNotCounted", about=call.about)
    if "exceeded quota" in detail:
        return Forbidden(
            message, code="QuotaExceeded", about=call.about, remedy="Free or raise the quota of the namespace."
        )
    return Forbidden(
        message,
        code="AdmissionRefused",
        about=call.about,
        remedy="An admission rule of the cluster refuses the object: change the object or the rule.",
    )


def _not_found(message: str, details: Mapping[str, Any], call: Call) -> LlmopsError:
    if details.get("kind") == "namespaces" and call.kind != "Namespace":
        namespace = str(details.get("name"))
        return NotFound(
            message,
            code="NamespaceNotFound",
            about=f"Namespace {namespace}",
            remedy=f"Create the namespace {namespace}.",
        )
    if not details.get("name"):
        return NotFound(
            message,
            code="KindNotServed",
            about=call.kind,
            remedy=f"The cluster does not serve the kind {call.kind}: install the component that provides it.",
        )
    return NotFound(message, about=call.about, object_absent=True)
