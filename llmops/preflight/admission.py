"""What quotas and LimitRanges say to a pod before it exists, as the API server's admission would. Pure.

Rules: kubernetes pkg/quota/v1/evaluator/core/pods.go (what a pod counts, what it must specify, scopes),
plugin/pkg/admission/limitranger/admission.go (defaults, bounds, ratio).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from llmops.clients.kubernetes.quantity import quantity

Object = Mapping[str, Any]
Amounts = Mapping[str, Decimal]

DEMANDED = ("cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory")
"""Amounts that each container must name if a quota bounds them."""
_PLAIN = ("cpu", "memory", "ephemeral-storage")
"""Resources whose requests a quota may also name without `requests.`."""


def defaulted(pod: Object, ranges: Iterable[Object]) -> dict[str, Any]:
    """A pod's spec as it is after defaults: a limit alone is also the request; then come the LimitRanges' defaults."""
    result = copy.deepcopy(dict(pod))
    defaults = [item for one in ranges for item in _limits(one) if item.get("type") == "Container"]
    for container in _containers(result):
        resources: dict[str, Any] = container.setdefault("resources", {})
        limits = resources.setdefault("limits", {})
        requests = resources.setdefault("requests", {})
        for name, value in limits.items():
            requests.setdefault(name, value)
        for item in defaults:
            for name, value in (item.get("default") or {}).items():
                limits.setdefault(name, value)
            for name, value in (item.get("defaultRequest") or {}).items():
                requests.setdefault(name, value)
    return result


def usage(pod: Object) -> dict[str, Decimal]:
    """What a pod counts against a quota, by the quota's names: `pods`, `requests.cpu`, `cpu`, `limits.memory`."""
    amounts: dict[str, Decimal] = {"pods": Decimal(1), "count/pods": Decimal(1)}
    for kind in ("requests", "limits"):
        for name, value in total(pod, kind).items():
            amounts[f"{kind}.{name}"] = value
            if kind == "requests" and name in _PLAIN:
                amounts[name] = value
    return amounts


def total(pod: Object, kind: str) -> dict[str, Decimal]:
    """A pod's requests or limits: the sum of its containers, or its largest init container if that is more."""
    running: dict[str, Decimal] = {}
    for container in pod.get("containers") or ():
        for name, value in _of(container, kind).items():
            running[name] = running.get(name, Decimal(0)) + value
    for container in pod.get("initContainers") or ():
        for name, value in _of(container, kind).items():
            running[name] = max(running.get(name, value), value)
    return running


def demands(pod: Object, quota: Object) -> list[str]:
    """What containers of the pod must name because the quota bounds it: `limits.cpu for engine`."""
    bounded = [name for name in DEMANDED if name in hard(quota)]
    missing: list[str] = []
    for name in bounded:
        kind, _, resource = name.rpartition(".")
        lacking = [str(one.get("name")) for one in _containers(pod) if resource not in _of(one, kind or "requests")]
        if lacking:
            missing.append(f"{name} for {', '.join(lacking)}")
    return missing


def hard(quota: Object) -> dict[str, Decimal]:
    """The bounds of a quota, by name."""
    return _quantities((quota.get("spec") or {}).get("hard"))


def left(quota: Object) -> dict[str, Decimal]:
    """What a quota has left, by name; all of it where it counts nothing yet."""
    used = _quantities((quota.get("status") or {}).get("used"))
    return {name: bound - used.get(name, Decimal(0)) for name, bound in hard(quota).items()}


def counts(pod: Object, quota: Object) -> bool | None:
    """Whether a quota counts a pod, by its scopes; None if it has one that llmops does not know."""
    spec: Mapping[str, Any] = quota.get("spec") or {}
    none: list[str] = []
    wanted = [(str(scope), "Exists", none) for scope in spec.get("scopes") or ()]
    wanted += [
        (str(item.get("scopeName")), str(item.get("operator")), list(item.get("values") or ()))
        for item in (spec.get("scopeSelector") or {}).get("matchExpressions") or ()
    ]
    answers = [_in_scope(pod, *scope) for scope in wanted]
    if False in answers:
        return False
    return None if None in answers else True


def _in_scope(pod: Object, scope: str, operator: str, values: Sequence[str]) -> bool | None:
    ends = pod.get("activeDeadlineSeconds") is not None
    best_effort = not total(pod, "requests") and not total(pod, "limits")
    match scope:
        case "Terminating":
            return ends
        case "NotTerminating":
            return not ends
        case "BestEffort":
            return best_effort
        case "NotBestEffort":
            return not best_effort
        case "CrossNamespacePodAffinity":
            return False
        case "PriorityClass":
            name = str(pod.get("priorityClassName") or "")
            known = {"In": name in values, "NotIn": name not in values, "Exists": bool(name), "DoesNotExist": not name}
            return known.get(operator)
        case _:
            return None


def out_of_range(pod: Object, limit_range: Object) -> Iterator[str]:
    """Why a LimitRange refuses a pod, in sentences."""
    for item in _limits(limit_range):
        if item.get("type") == "Container":
            for container in _containers(pod):
                what = f"container {container.get('name')}"
                yield from _outside(what, _of(container, "requests"), _of(container, "limits"), item)
        elif item.get("type") == "Pod":
            yield from _outside("the pod", total(pod, "requests"), total(pod, "limits"), item)


def claim_out_of_range(storage: str, limit_range: Object) -> Iterator[str]:
    """Why a LimitRange refuses a claim of this size, in sentences."""
    asked = {"storage": quantity(storage)}
    for item in _limits(limit_range):
        if item.get("type") == "PersistentVolumeClaim":
            yield from _outside("the claim", asked, asked, item)


def _outside(what: str, requests: Amounts, limits: Amounts, item: Object) -> Iterator[str]:
    for name, most in _quantities(item.get("max")).items():
        if name not in limits:
            yield f"{what} has no limit for {name}, and may have {most:f} at most"
        elif limits[name] > most:
            yield f"{what} has a limit of {limits[name]:f} {name}, and may have {most:f} at most"
    for name, least in _quantities(item.get("min")).items():
        if name not in requests:
            yield f"{what} requests no {name}, and has to request {least:f} at least"
        elif requests[name] < least:
            yield f"{what} requests {requests[name]:f} {name}, and has to request {least:f} at least"
    for name, most in _quantities(item.get("maxLimitRequestRatio")).items():
        if not requests.get(name) or name not in limits:
            yield f"{what} needs a request and a limit for {name}: their ratio may be {most:f} at most"
        elif limits[name] / requests[name] > most:
            asked = f"a limit of {limits[name]:f} {name} for a request of {requests[name]:f}"
            yield f"{what} has {asked}: more than {most:f} times"


def _limits(limit_range: Object) -> list[Object]:
    return list((limit_range.get("spec") or {}).get("limits") or ())


def _containers(pod: Object) -> list[dict[str, Any]]:
    return [*(pod.get("containers") or ()), *(pod.get("initContainers") or ())]


def _of(container: Object, kind: str) -> dict[str, Decimal]:
    return _quantities((container.get("resources") or {}).get(kind))


def _quantities(amounts: Mapping[str, Any] | None) -> dict[str, Decimal]:
    return {name: quantity(value) for name, value in (amounts or {}).items()}
