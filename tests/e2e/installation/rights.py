"""Accounts of the installation, their rights, and their requests in the audit log."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client, config

BASE = Path(__file__).parents[3] / "k8s" / "base"
Object = dict[str, Any]


@dataclass(frozen=True, order=True)
class Rule:
    """One verb on one resource, in one role. `namespace` is empty for a ClusterRole."""

    role: str
    namespace: str
    group: str
    resource: str
    verb: str

    def __str__(self) -> str:
        where = f"Role {self.namespace}/{self.role}" if self.namespace else f"ClusterRole {self.role}"
        return f"{self.verb} {self.resource}{'.' if self.group else ''}{self.group} in {where}"


@dataclass(frozen=True, order=True)
class Request:
    """A kind of request of an account. `namespace` is empty for cluster-wide objects and for all namespaces at once."""

    user: str
    verb: str
    group: str
    resource: str
    namespace: str

    @property
    def attributes(self) -> Object:
        """The attributes for a SubjectAccessReview."""
        resource, _, subresource = self.resource.partition("/")
        return {
            "verb": self.verb,
            "group": self.group,
            "resource": resource,
            "subresource": subresource,
            "namespace": self.namespace,
        }


def objects(*names: str) -> list[Object]:
    """Objects in these files of k8s/base."""
    return [obj for name in names for obj in yaml.safe_load_all((BASE / name).read_text())]


def rules(name: str) -> list[Rule]:
    """Every single right that a file of k8s/base grants."""
    return [
        Rule(role["metadata"]["name"], role["metadata"].get("namespace", ""), group, resource, verb)
        for role in objects(name)
        if role["kind"] in ("Role", "ClusterRole")
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    ]


def granted(name: str, user: str, without: Rule | None = None) -> Iterator[Object]:
    """Roles and bindings of a file of k8s/base, bound to `user` and without one right.

    Args:
        name: Name of the file.
        user: Name of the user; part of the roles' names.
        without: The right to leave out.
    """
    for obj in objects(name):
        kept = json.loads(json.dumps(obj))
        role = obj["metadata"]["name"]
        kept["metadata"]["name"] = f"{role}-{user}"
        if "rules" in kept:
            namespace = obj["metadata"].get("namespace", "")
            kept["rules"] = [
                {"apiGroups": [rule.group], "resources": [rule.resource], "verbs": [rule.verb]}
                for rule in rules(name)
                if (rule.role, rule.namespace) == (role, namespace) and rule != without
            ]
        else:
            kept["roleRef"]["name"] = f"{role}-{user}"
            kept["subjects"] = [{"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}]
        yield kept


def entries(log: Path, user: str) -> list[Mapping[str, Any]]:
    """The audit log's entries on a user's requests, each request once."""
    lines = log.read_text().splitlines() if log.exists() else []
    entries_by_id = {entry["auditID"]: entry for entry in map(json.loads, lines) if entry["user"]["username"] == user}
    return [entry for entry in entries_by_id.values() if "objectRef" in entry]


def requests(log: Path, user: str) -> set[Request]:
    """The kinds of a user's requests in the audit log, each once."""
    requests: set[Request] = set()
    for entry in entries(log, user):
        reference = entry["objectRef"]
        resource = "/".join(filter(None, (reference["resource"], reference.get("subresource", ""))))
        verbs = {entry["verb"]}
        if entry["verb"] == "patch" and entry["responseStatus"]["code"] == 201:
            # To apply a new object, the API server also demands the right to create it.
            verbs.add("create")
        requests |= {
            Request(user, verb, reference.get("apiGroup", ""), resource, reference.get("namespace", ""))
            for verb in verbs
        }
    return requests


class Authorizer:
    """Asks the API server whether a user may send a request."""

    def __init__(self, kubeconfig: Path) -> None:
        self._api: Any = client.AuthorizationV1Api(config.new_client_from_config(str(kubeconfig)))

    def allows(self, request: Request) -> bool:
        """Whether the API server would allow a request."""
        spec = {"user": request.user, "resourceAttributes": request.attributes}
        return bool(self._api.create_subject_access_review({"spec": spec}).status.allowed)

    def refused(self, requests: Iterable[Request], user: str) -> set[Request]:
        """The requests that the API server would refuse to `user`."""
        theirs = [replace(request, user=user) for request in requests]
        with ThreadPoolExecutor(8) as pool:
            return {request for request, may in zip(theirs, pool.map(self.allows, theirs), strict=True) if not may}


def account_kubeconfig(path: Path, admin: Path, token: str) -> Path:
    """A kubeconfig with a service account's token."""
    content = json.loads(admin.read_text())
    content["users"] = [{"name": "account", "user": {"token": token}}]
    content["contexts"][0]["context"]["user"] = "account"
    path.write_text(json.dumps(content))
    path.chmod(0o600)
    return path
