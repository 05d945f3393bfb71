"""Arguments, environment and folders of a container. Pure functions over API objects."""

from __future__ import annotations

import base64
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmops.clients.kubernetes.quantity import quantity
from llmops_sandbox.agent.api import Object

HOST_IP = "127.0.0.1"
_REFERENCE = re.compile(r"\$(?:\$|\(([^()]*)\))")
_SUBSCRIPT = re.compile(r"^metadata\.(labels|annotations)\['(.+)'\]$")
_ANY_ADDRESS = re.compile(r"(?<![\w.])0\.0\.0\.0(?![\w.])")
_SERVICE = re.compile(r"(?<![\w.-])([a-z0-9-]+)\.([a-z0-9-]+)\.svc(?:\.cluster\.local)?(?![\w-]|\.\w)")

AddressOf = Callable[[str, str], str | None]
"""The cluster address of a Service, by namespace and name."""


class ConfigError(Exception):
    """A container refers to an object or key that is missing: a kubelet's CreateContainerConfigError."""


@dataclass(frozen=True)
class Mount:
    """A path of a container, and its folder or file on this machine."""

    path: str
    host: str
    read_only: bool = False


@dataclass(frozen=True)
class Sources:
    """The sources of environment variables.

    Args:
        pod: The pod's object.
        pod_ip: Its address; the object may not have it yet.
        allocatable: The resources of its node: the limit of a container without one.
        config_maps: Existing config maps that the pod refers to, by name.
        secrets: Existing secrets that the pod refers to, by name.
    """

    pod: Object
    pod_ip: str
    allocatable: Mapping[str, str]
    config_maps: Mapping[str, Object]
    secrets: Mapping[str, Object]


@dataclass(frozen=True)
class Environment:
    """A container's variables as the API declares them.

    Args:
        values: Names and values, in order.
        secret: Names of the variables that hold a secret.
    """

    values: dict[str, str]
    secret: frozenset[str]


def expand(text: str, values: Mapping[str, str]) -> str:
    """Expand `$(NAME)` as Kubernetes does: an unknown name stays as written, `$$` is a dollar."""

    def replace(match: re.Match[str]) -> str:
        if match.group() == "$$":
            return "$"
        return values.get(match.group(1), match.group())

    return _REFERENCE.sub(replace, text)


class Translator:
    """Rewrites a container's paths and addresses to those of this machine.

    It replaces a mount path at the start of a path, as whole components: alone, after `=`, `:`, a comma, a quote, a
    space or `file://`, never inside a longer path or name. The longest mount path wins. `NAME.NAMESPACE.svc` becomes
    the Service's address, because this machine's resolver does not resolve cluster names.

    Args:
        mounts: The container's mounts.
        pod_ip: Replaces `0.0.0.0`, so that pods do not compete for a port.
        address_of: Gives the address of a Service; an unknown name stays as written.
    """

    def __init__(
        self, mounts: Iterable[Mount], pod_ip: str, address_of: AddressOf = lambda namespace, name: None
    ) -> None:
        self._address_of = address_of
        self._hosts = {mount.path.rstrip("/"): mount.host for mount in mounts if mount.path.rstrip("/")}
        self._pod_ip = pod_ip
        paths = "|".join(re.escape(path) for path in sorted(self._hosts, key=len, reverse=True))
        self._pattern = re.compile(rf"(?:(?<=file://)|(?<![\w./~%)}}-]))(?:{paths})(?![\w.-])") if paths else None

    def __call__(self, text: str) -> str:
        """`text` with paths and addresses of this machine."""
        if self._pattern is not None:
            text = self._pattern.sub(lambda match: self._hosts[match.group()], text)
        return self.names(_ANY_ADDRESS.sub(self._pod_ip, text))

    def names(self, text: str) -> str:
        """`text` with names of Services replaced, and nothing else."""
        return _SERVICE.sub(lambda match: self._address_of(match[2], match[1]) or match[0], text)


def references(container: Object) -> tuple[set[str], set[str]]:
    """Names of the config maps and of the secrets that a container's environment refers to."""
    config_maps: set[str] = set()
    secrets: set[str] = set()
    for source in container.get("envFrom", []):
        if reference := source.get("configMapRef"):
            config_maps.add(reference["name"])
        if reference := source.get("secretRef"):
            secrets.add(reference["name"])
    for variable in container.get("env", []):
        source = variable.get("valueFrom", {})
        if reference := source.get("configMapKeyRef"):
            config_maps.add(reference["name"])
        if reference := source.get("secretKeyRef"):
            secrets.add(reference["name"])
    return config_maps, secrets


def environment(container: Object, sources: Sources) -> Environment:
    """A container's declared variables, resolved.

    Raises:
        ConfigError: A config map, a secret or a key that isn't optional is missing.
    """
    values: dict[str, str] = {}
    secret: set[str] = set()
    namespace = sources.pod["metadata"]["namespace"]
    for source in container.get("envFrom", []):
        prefix = source.get("prefix", "")
        if reference := source.get("configMapRef"):
            data = _object(sources.config_maps, "configmap", reference, namespace).get("data", {})
            values.update({prefix + key: value for key, value in data.items()})
        if reference := source.get("secretRef"):
            data = secret_data(_object(sources.secrets, "secret", reference, namespace))
            values.update({prefix + key: value.decode(errors="replace") for key, value in data.items()})
            secret.update(prefix + key for key in data)
    for variable in container.get("env", []):
        name = variable["name"]
        if origin := variable.get("valueFrom"):
            value = _value(origin, container, sources)
            if value is None:
                continue
            if "secretKeyRef" in origin:
                secret.add(name)
            else:
                secret.discard(name)
            values[name] = value
        else:
            values[name] = expand(variable.get("value", ""), values)
            secret.discard(name)
    return Environment(values, frozenset(secret))


def command(
    container: Object,
    program: Sequence[str],
    values: Mapping[str, str],
    translate: Translator,
    pod_ip: str,
) -> list[str]:
    """Arguments of a container's process: `command` in place of the image's program, then `args`."""
    if declared := container.get("command"):
        start = [translate(expand(part, values)) for part in declared]
    else:
        # The image store has this machine's paths.
        start = [part.replace("{pod_ip}", pod_ip).replace("{python}", sys.executable) for part in program]
    return start + [translate(expand(part, values)) for part in container.get("args", [])]


def secret_data(secret: Object) -> dict[str, bytes]:
    """A secret's content, decoded."""
    return {key: base64.b64decode(value) for key, value in secret.get("data", {}).items()}


def field(path: str, pod: Object, pod_ip: str) -> str:
    """A pod's field for the downward API.

    Raises:
        ConfigError: The downward API has no such field.
    """
    metadata: Object = pod["metadata"]
    if match := _SUBSCRIPT.match(path):
        return metadata.get(match.group(1), {}).get(match.group(2), "")
    if path in ("metadata.labels", "metadata.annotations"):
        entries: dict[str, str] = metadata.get(path.removeprefix("metadata."), {})
        return "\n".join(f'{key}="{_quoted(entries[key])}"' for key in sorted(entries))
    fields = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "spec.nodeName": pod["spec"].get("nodeName", ""),
        "spec.serviceAccountName": pod["spec"].get("serviceAccountName", ""),
        "status.podIP": pod_ip,
        "status.podIPs": pod_ip,
        "status.hostIP": HOST_IP,
        "status.hostIPs": HOST_IP,
    }
    if path not in fields:
        raise ConfigError(f"unsupported fieldPath: {path}")
    return fields[path]


def resource_field(source: Object, container: Object, allocatable: Mapping[str, str]) -> str:
    """A container's request or limit for the downward API: in units of the divisor, rounded up."""
    kind, _, resource = source["resource"].partition(".")
    declared: dict[str, str] = container.get("resources", {}).get(kind, {})
    amount = declared.get(resource) or (allocatable.get(resource, "0") if kind == "limits" else "0")
    divisor = quantity(source.get("divisor") or "1")
    return str(math.ceil(quantity(amount) / (divisor or 1)))


def _value(origin: Object, container: Object, sources: Sources) -> str | None:
    namespace = sources.pod["metadata"]["namespace"]
    if reference := origin.get("configMapKeyRef"):
        data = _object(sources.config_maps, "configmap", reference, namespace).get("data", {})
        return _key(data, reference, "ConfigMap", namespace)
    if reference := origin.get("secretKeyRef"):
        data = secret_data(_object(sources.secrets, "secret", reference, namespace))
        value = _key(data, reference, "Secret", namespace)
        return None if value is None else value.decode(errors="replace")
    if reference := origin.get("fieldRef"):
        return field(reference["fieldPath"], sources.pod, sources.pod_ip)
    if reference := origin.get("resourceFieldRef"):
        return resource_field(reference, container, sources.allocatable)
    raise ConfigError(f"unsupported source of an environment variable: {', '.join(origin)}")


def _object(known: Mapping[str, Object], kind: str, reference: Object, namespace: str) -> Object:
    referenced = known.get(reference["name"])
    if referenced is None and not reference.get("optional"):
        raise ConfigError(f'{kind} "{reference["name"]}" not found')
    return referenced or {}


def _key(data: Mapping[str, Any], reference: Object, kind: str, namespace: str) -> Any:
    if reference["key"] not in data and not reference.get("optional"):
        raise ConfigError(f"couldn't find key {reference['key']} in {kind} {namespace}/{reference['name']}")
    return data.get(reference["key"])


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
