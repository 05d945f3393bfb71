"""Validates rendered objects against the published schemas of Kubernetes and of other projects' kinds."""

from __future__ import annotations

from functools import cache
from typing import Any, cast

from jsonschema import Draft202012Validator
from kubernetes_validate.utils import schema_contents
from llmops_sandbox.cluster.crds import definitions, schema
from referencing import Registry, Resource

from llmops.clients.kubernetes.kinds import kind_of

VERSIONS = ("1.34", "1.37")
"""Of Kubernetes: the oldest that is supported, and the sandbox's."""
UNPUBLISHED = ("GCPBackendPolicy", "HealthCheckPolicy")
"""Kinds of GKE's own, whose schemas are published nowhere as a package."""


def check_schema(manifest: dict[str, Any], version: str = VERSIONS[-1]) -> None:
    """Validate an object; fields that its schema does not name are errors, too.

    Raises:
        jsonschema.ValidationError: The object is invalid.
    """
    kind = manifest["kind"]
    if kind not in UNPUBLISHED:
        validator = _published().get(kind) or _of_kubernetes(kind, manifest["apiVersion"], version)
        validator.validate(manifest)


@cache
def _of_kubernetes(kind: str, api: str, version: str) -> Draft202012Validator:
    """The validator of `kubernetes_validate`, cached: its `validate` makes a new one for each object."""
    group, _, last = api.rpartition("/")
    name = "-".join(filter(None, (kind.lower(), group.partition(".")[0], last)))
    schema, parts = (
        schema_contents(f"kubernetes-json-schema/v{version}.0-local-strict/{file}.json", version)
        for file in (name, "_definitions")
    )
    resources = [Resource[Any].from_contents(schema) for schema in (parts, schema)]
    return Draft202012Validator(schema, registry=resources @ Registry[Any]())


@cache
def _published() -> dict[str, Draft202012Validator]:
    validators: dict[str, Draft202012Validator] = {}
    for definition in definitions():
        kind = kind_of(definition["spec"]["names"]["kind"])
        validators[kind.name] = Draft202012Validator(_closed(schema(definition, kind.api.rpartition("/")[2])))
    return validators


def _closed(node: Any) -> Any:
    """A structural schema that allows no unnamed fields, as in an API server's strict validation."""
    if isinstance(node, list):
        return [_closed(item) for item in cast(list[Any], node)]
    if not isinstance(node, dict):
        return node
    closed = {key: _closed(value) for key, value in cast(dict[str, Any], node).items()}
    named = isinstance(closed.get("properties"), dict) and closed.get("type") == "object"
    if named and not closed.get("x-kubernetes-preserve-unknown-fields"):
        closed.setdefault("additionalProperties", False)
    return closed
