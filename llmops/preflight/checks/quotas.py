"""Whether the namespace's quotas and LimitRanges let everything of a rollout be made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from llmops.manifests import engine, jobs
from llmops.manifests.evaluation import evaluation_job
from llmops.preflight.admission import claim_out_of_range, counts, defaulted, demands, hard, left, out_of_range, usage
from llmops.preflight.checks.case import Case, Check, some
from llmops.preflight.finding import Finding
from llmops.preflight.snapshot import Object

SUBJECT = "quotas"
RECORDS = 6
"""ConfigMaps that a release adds: pins, record, options, orders of evaluations, an alert."""


def _quotas(case: Case) -> Iterator[Finding]:
    """Each pod of a rollout against each quota: what it has to name, and whether the quota has room for it."""
    quotas, findings = case.snapshot.quotas, 0
    for quota in quotas:
        for finding in _against(case, quota):
            findings += 1
            yield finding
    if not findings:
        named = some(sorted(str(quota["metadata"]["name"]) for quota in quotas))
        yield Finding("ok", SUBJECT, f"{named}: room for all of a rollout" if quotas else "the namespace has none")


def _against(case: Case, quota: Object) -> Iterator[Finding]:
    name = f"ResourceQuota {quota['metadata']['name']}"
    bounds, rest = hard(quota), left(quota)
    for what, pod, number in _pods(case):
        counted = counts(pod, quota)
        if counted is None:
            yield Finding("unknown", SUBJECT, f"{name} has a scope that llmops does not know: {what} may be refused")
            continue
        if not counted:
            continue
        if missing := demands(pod, quota):
            remedy = f"Add a LimitRange with defaults for it to the namespace, or take it out of {name}."
            yield Finding("error", SUBJECT, f"{name} refuses {what}: it has to name {'; '.join(missing)}", remedy)
        needed = {amount: value * number for amount, value in usage(pod).items()}
        yield from _room(name, what, needed, bounds, rest)
    # Scopes select pods alone.
    yield from _room(name, "the objects of a release", _objects(case), bounds, rest)


def _room(
    name: str, what: str, needed: Mapping[str, Decimal], bounds: Mapping[str, Decimal], rest: Mapping[str, Decimal]
) -> Iterator[Finding]:
    never = [f"{amount} {needed[amount]:f} of {bounds[amount]:f}" for amount in sorted(bounds)
             if needed.get(amount, Decimal(0)) > bounds[amount]]  # fmt: skip
    if never:
        yield Finding("error", SUBJECT, f"{name} is too small for {what}: {', '.join(never)}", f"Raise {name}.")
        return
    # A quota that was lowered later has less than nothing left, also of what is not needed.
    free = {amount: max(rest[amount], Decimal(0)) for amount in rest.keys() & needed.keys()}
    now = [f"{amount} {needed[amount]:f}, {free[amount]:f} left" for amount in sorted(free)
           if needed[amount] > free[amount]]  # fmt: skip
    if now:
        remedy = f"Free or raise {name}."
        yield Finding("warning", SUBJECT, f"{name} has no room now for {what}: {', '.join(now)}", remedy)


def _ranges(case: Case) -> Iterator[Finding]:
    """Each pod of a rollout, and the claim if it is yet to be made, against each LimitRange."""
    findings = 0
    for limit_range in case.snapshot.limit_ranges:
        name = f"LimitRange {limit_range['metadata']['name']}"
        refused = [(what, list(out_of_range(pod, limit_range))) for what, pod, _ in _pods(case)]
        if case.spec.weights.strategy == "volume" and case.snapshot.claim is None:
            refused.append(("the claim", list(claim_out_of_range(case.snapshot.settings.storage, limit_range))))
        for what, reasons in refused:
            if reasons:
                findings += 1
                remedy = f"Change {name}, or what {what} asks for."
                yield Finding("error", "LimitRanges", f"{name} refuses {what}: {'; '.join(reasons)}", remedy)
    if not findings:
        yield Finding("ok", "LimitRanges", "none refuses a pod of a rollout")


def _pods(case: Case) -> Iterator[tuple[str, dict[str, Any], int]]:
    """The pods of a rollout in their order: what they are, their spec after defaults, and how many run at once."""
    release, settings, ranges = case.release, case.snapshot.settings, case.snapshot.limit_ranges
    if release is None:
        return
    made: list[tuple[str, Mapping[str, Any], int]] = []
    if release.weights.strategy == "volume":
        made.append(("the download Job", jobs.download_job(release, settings, "run"), 1))
        shards = jobs.checksum_shards(release.weights.size)
        made.append(("the checksum Job", jobs.checksum_job(release, settings, shards, "run"), shards))
    made += [("the canary", item, 1) for item in engine.objects(release, settings, "canary", 1, surge=True)]
    if case.snapshot.stable.get(case.spec.name) is None:
        number = case.spec.replicas
        stable = engine.objects(release, settings, "stable", number, surge=True)
        made += [(f"{number} replicas" if number > 1 else "the replica", item, number) for item in stable]
    if settings.evaluate_from != "here":
        image, taken = settings.evaluation_image, case.snapshot.taken
        made.append(("the evaluation Job", evaluation_job("evaluation", {}, 1, {}, image, settings, taken), 1))
    for what, item, number in made:
        if item["kind"] in ("Deployment", "Job"):
            yield what, defaulted(item["spec"]["template"]["spec"], ranges), number


def _objects(case: Case) -> dict[str, Decimal]:
    """How many objects of each kind a release adds, by the names of quotas."""
    first = case.snapshot.stable.get(case.spec.name) is None
    engines = 2 if first else 1
    amounts = {
        "services": engines,
        "count/services": engines,
        "count/deployments.apps": engines,
        "count/replicasets.apps": 2,
        "count/jobs.batch": 1,
        "configmaps": RECORDS,
        "count/configmaps": RECORDS,
    }
    if case.spec.weights.strategy == "volume" and case.snapshot.claim is None:
        amounts |= {"persistentvolumeclaims": 1, "count/persistentvolumeclaims": 1}
    return {name: Decimal(value) for name, value in amounts.items()}


CHECKS = (
    Check("quotas.room", SUBJECT, ("quotas", "limit_ranges", "stable", "claim"), _quotas),
    Check("quotas.ranges", "LimitRanges", ("limit_ranges", "stable", "claim"), _ranges),
)
