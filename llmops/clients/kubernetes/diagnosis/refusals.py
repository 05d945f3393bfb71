"""Why no pod may be made: the words of quotas, LimitRanges and other admission, as controllers pass them on.

Words: apiserver pkg/admission/plugin/resourcequota/controller.go, kubernetes plugin/pkg/admission/limitranger,
pod-security-admission, apiserver pkg/admission/plugin/{webhook,policy}.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from llmops.clients.kubernetes.diagnosis.fields import event_time, mapping, text
from llmops.clients.kubernetes.diagnosis.finding import Diagnosis, Heals
from llmops.clients.kubernetes.quantity import quantity
from llmops.errors import BadInput, ClusterCannot

_AMOUNTS = re.compile(
    r"exceeded quota: (?P<quota>[^,\s]+), requested: (?P<requested>.*?), used: .*?, limited: (?P<limited>[^\s]*)"
)
_DEMANDS = re.compile(r"failed quota: (?P<quota>[^:\s]+): must specify (?P<what>.*)")
_RANGE = re.compile(
    r"(?:maximum|minimum) \S+ usage per \w+ is|max limit to request ratio per \w+ is|usage per \w+ is .*[Nn]o limit is"
)
_PASSING = re.compile(
    r"failed calling webhook|failed to call webhook|status unknown for quota|quota evaluation timed out|service account"
    r"|deadline exceeded|connection refused|i/o timeout|try again|being terminated",
    re.I,
)
_DENIED = re.compile(r"denied the request|denied request|violates PodSecurity|no PriorityClass", re.I)


def refused(subject: str, message: str) -> Diagnosis:
    """The diagnosis of an object whose pods the API server refuses.

    Args:
        subject: The object that makes the pods: `Job x`.
        message: The controller's words, which quote the API server's.
    """
    code, heals, remedy = _classify(message)
    return Diagnosis("refused", code, heals, f"{subject} gets no pods: {message}", ClusterCannot, remedy,
                     subject=subject)  # fmt: skip


def refusal_of(job: Mapping[str, Any], events: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """The Event that says why a Job gets no pods; None if it had one since.

    Args:
        job: The Job.
        events: Events about it.
    """
    uid = text(mapping(job, "metadata"), "uid")
    mine = [event for event in events if text(mapping(event, "involvedObject"), "uid") == uid]
    failures = [event for event in mine if text(event, "reason") == "FailedCreate"]
    newest = max(failures, key=event_time, default=None)
    if newest is None:
        return None
    made = max((event_time(event) for event in mine if text(event, "reason") == "SuccessfulCreate"), default="")
    return newest if event_time(newest) > made else None


def _classify(message: str) -> tuple[str, Heals, str]:
    if match := _DEMANDS.search(message):
        remedy = (
            f"Give the namespace a LimitRange whose defaults set what quota {match['quota']} demands, or take it out "
            "of the quota."
        )
        return "QuotaDemandsLimits", "never", remedy
    if "exceeded quota" in message:
        return "QuotaExceeded", "never" if _never_fits(message) else "maybe", "Free or raise the quota."
    if _RANGE.search(message):
        return "LimitRangeRefuses", "never", "Change the LimitRange of the namespace, or what the pods ask for."
    remedy = "Change the admission rule that refuses these pods, or the pods."
    if _PASSING.search(message):
        return "PodsRefused", "maybe", "See what the API server waits for: the webhook, account or quota that it names."
    return "PodsRefused", "never" if _DENIED.search(message) else "maybe", remedy


def _never_fits(message: str) -> bool:
    """Whether one pod alone asks for more than the quota has."""
    match = _AMOUNTS.search(message)
    if match is None:
        return False
    requested, limited = _amounts(match["requested"]), _amounts(match["limited"])
    try:
        return any(quantity(requested[name]) > quantity(limited[name]) for name in requested.keys() & limited.keys())
    except BadInput:
        return False


def _amounts(listed: str) -> dict[str, str]:
    """`requests.cpu=2,pods=1` as a mapping."""
    pairs = (item.rpartition("=") for item in listed.split(","))
    return {name.strip(): value.strip() for name, _, value in pairs if name}
