"""Reads fields of objects that may be missing or of any type: a kubelet of another version must not break a rollout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast


def is_mapping(value: object) -> bool:
    """Whether a value has fields."""
    return isinstance(value, Mapping)


def mapping(owner: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A field that has fields; empty if it is missing or has none."""
    value = owner.get(key) if is_mapping(owner) else None
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def mappings(value: object) -> list[Mapping[str, Any]]:
    """The items of a list that have fields."""
    items = cast("Iterable[object]", value) if isinstance(value, list | tuple) else ()
    return [cast("Mapping[str, Any]", item) for item in items if isinstance(item, Mapping)]


def text(owner: Mapping[str, Any], key: str) -> str:
    """A field of text; empty if it is missing or none."""
    value = owner.get(key)
    return value if isinstance(value, str) else ""


def integer(owner: Mapping[str, Any], key: str) -> int:
    """A field that is a whole number; 0 if it is missing or none."""
    value = owner.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def event_time(event: Mapping[str, Any]) -> str:
    """When an Event was seen last, RFC 3339."""
    series = text(mapping(event, "series"), "lastObservedTime")
    created = text(mapping(event, "metadata"), "creationTimestamp")
    return series or text(event, "lastTimestamp") or text(event, "eventTime") or created


class PodFields:
    """A pod's fields, and the Events about it.

    Args:
        pod: The pod.
        events: Events about the pod, oldest first.
        runs_once: Whether the pod belongs to a Job.
    """

    def __init__(self, pod: Mapping[str, Any], events: Sequence[Mapping[str, Any]], *, runs_once: bool) -> None:
        self.meta = mapping(pod, "metadata")
        self.spec = mapping(pod, "spec")
        self.status = mapping(pod, "status")
        self.events = events
        self.runs_once = runs_once
        self.name = text(self.meta, "name") or "?"
        self.label = f"pod {self.name}"

    @property
    def node(self) -> str:
        """Name of the pod's node; empty before it has one."""
        return text(self.spec, "nodeName")

    def images(self) -> list[str]:
        """The images that the pod asks for."""
        declared = [*mappings(self.spec.get("initContainers")), *mappings(self.spec.get("containers"))]
        return [image for item in declared if (image := text(item, "image"))]

    def conditions(self) -> dict[str, Mapping[str, Any]]:
        """Conditions by type."""
        return {text(item, "type"): item for item in mappings(self.status.get("conditions"))}

    def initial(self) -> list[Mapping[str, Any]]:
        """Status of the init containers, sidecars of Kubernetes among them."""
        return mappings(self.status.get("initContainerStatuses"))

    def main(self) -> list[Mapping[str, Any]]:
        """Status of the containers that run side by side."""
        return mappings(self.status.get("containerStatuses"))

    def containers(self) -> list[Mapping[str, Any]]:
        """Status of all containers, init containers first."""
        return [*self.initial(), *self.main()]

    def newest(self, *reasons: str, container: str = "", begins: str = "") -> Mapping[str, Any] | None:
        """The newest Event with one of these reasons.

        Args:
            reasons: Reasons.
            container: Leave out Events that name another container.
            begins: How the message begins.
        """
        for event in reversed(self.events):
            place = text(mapping(event, "involvedObject"), "fieldPath")
            elsewhere = container and "{" in place and not place.endswith(f"{{{container}}}")
            if text(event, "reason") in reasons and text(event, "message").startswith(begins) and not elsewhere:
                return event
        return None

    def told(self, *reasons: str, container: str = "", begins: str = "") -> str | None:
        """Message of the newest Event, see `newest`."""
        event = self.newest(*reasons, container=container, begins=begins)
        return None if event is None else text(event, "message")
