"""The check `fidelity`: whether each replica of stable is what the release was at its promotion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmops.clients.kubernetes.watch import Object
from llmops.config import names
from llmops.evaluation.backends.base import Replica, Target
from llmops.evaluation.fidelity.reference import Reference
from llmops.evaluation.gates.divergence import Excess, recognized
from llmops.manifests.engine import GPU_PRODUCT_LABEL
from llmops.releases.release import Release
from llmops.releases.validations import CheckResult, Finding
from llmops.rollout.current import Current, CurrentModel
from llmops.rollout.ops.measuring import backend_of
from llmops.rollout.ops.serving import is_ready
from llmops.rollout.outcomes import EvaluationOutcome

ALL = "all replicas"


@dataclass(frozen=True)
class Told:
    """What one replica is told to be.

    Args:
        pod: Name of its pod.
        place: Its node, with the GPU if known.
        value: Whether it is the same as at the promotion.
        found: How far it is from that; None if too few texts have a score.
        unavailable: Why it gives no scores; empty if it does.
    """

    pod: str
    place: str
    value: str
    found: Excess | None = None
    unavailable: str = ""


def check_fidelity(current: CurrentModel, release: Release) -> CheckResult:
    """Let every ready replica of stable score the texts that the release scored in its trial.

    A replica that differs from its siblings points to its hardware.

    Raises:
        MeasurementFailed: A replica cannot be reached, or fails to score.
    """
    kept = _kept(current, release)
    if kept is not None and (why := _damage(kept)):
        return CheckResult(check="fidelity", value="Inconclusive", line=why)
    if kept is None:
        return CheckResult(check="fidelity", value="Passed", line="its trial kept nothing to recognize the release by")
    pods = _ready(current, release)
    if not pods:
        return CheckResult(check="fidelity", value="Inconclusive", line="no replica is ready")
    places = _places(current, pods)
    backend = backend_of(current, Target(release, "stable"))
    distances = backend.recognize(release, _replicas(pods), kept, release.evaluation.concurrency)
    told: list[Told] = []
    for pod, found in zip(pods, distances, strict=True):
        name = pod["metadata"]["name"]
        if found.unavailable:
            told.append(Told(name, places[name], "open", unavailable=found.unavailable))
        else:
            told.append(Told(name, places[name], *recognized(found, release.evaluation.confidence, len(pods))))
    return result(release, told)


def result(release: Release, told: Sequence[Told]) -> CheckResult:
    """The result of the check, by what each replica is told to be."""
    if all(replica.unavailable for replica in told):
        line = f"not available: {told[0].pod}: {told[0].unavailable}"
        return CheckResult(check="fidelity", value="Passed", line=line)
    others = [replica for replica in told if replica.value == "other"]
    figures = {"largest_divergence_nats": max((replica.found.value for replica in told if replica.found), default=0.0)}
    if others:
        findings = _findings(release, told, others)
        line = "; ".join(finding.message for finding in findings)
        return CheckResult(check="fidelity", value="Failed", line=line, findings=findings, figures=figures)
    if still_open := [replica for replica in told if replica.value == "open"]:
        words = (
            f"{replica.pod} ({replica.unavailable})" if replica.unavailable else replica.pod for replica in still_open
        )
        line = f"too few texts tell what {', '.join(words)} is"
        return CheckResult(check="fidelity", value="Inconclusive", line=line, figures=figures)
    give = "1 replica gives" if len(told) == 1 else f"{len(told)} replicas give"
    line = f"{give} the log-probabilities of the promotion"
    return CheckResult(check="fidelity", value="Passed", line=line, figures=figures)


def _findings(release: Release, told: Sequence[Told], others: Sequence[Told]) -> tuple[Finding, ...]:
    if len(others) == len(told) > 1:
        words = ", ".join(f"{replica.pod} {_nats(replica)}" for replica in others)
        message = f"all {len(told)} replicas differ from what {release.id} was at its promotion: {words}"
        remedy = (
            "Look for what changed for all: driver, type of GPU, an admission rule. Then "
            f"`llmops rollout {release.model} --retry` tries the release again."
        )
        return (Finding(subject=ALL, severity="error", message=message, remedy=remedy),)
    same = sum(replica.value == "same" for replica in told)
    siblings = f", and {same} other replica{' does' if same == 1 else 's do'} not" if same else ""
    return tuple(
        Finding(
            subject=f"replica on {replica.place}",
            severity="error",
            message=f"replica {replica.pod} on {replica.place} differs from what {release.id} was at its promotion: "
            f"{_nats(replica)}{siblings}",
            remedy=f"Cordon the node, delete pod {replica.pod}, and test the node's GPUs (`dcgmi diag -r 3`).",
        )
        for replica in others
    )


def _nats(replica: Told) -> str:
    assert replica.found is not None
    return f"{replica.found.value:.4f} nats a token over the null of {replica.found.null:.4f}"


def _kept(current: CurrentModel, release: Release) -> Reference | None:
    outcome = current.records.outcome(release.model, release.id, "evaluation", EvaluationOutcome)
    return next(iter(outcome.canary.references.values()), None) if outcome else None


def _damage(kept: Reference) -> str:
    """Why the reference cannot be read; empty if it can."""
    try:
        kept.unpack()
    except ValueError as error:
        return str(error)
    return ""


def _ready(current: Current, release: Release) -> list[Object]:
    """Ready pods of stable that run the release and have an address, by name."""
    pods = current.cluster.list("Pod", labels=names.engine_selector(release.model, "stable"))
    return sorted(
        (
            pod
            for pod in pods
            if "deletionTimestamp" not in pod["metadata"]
            and pod["metadata"]["labels"].get(names.RELEASE_LABEL) == release.id
            and is_ready(pod)
            and pod["status"].get("podIP")
        ),
        key=lambda pod: str(pod["metadata"]["name"]),
    )


def _replicas(pods: Sequence[Object]) -> list[Replica]:
    addresses = [(str(pod["metadata"]["name"]), str(pod["status"]["podIP"])) for pod in pods]
    return [
        Replica(name, f"http://{f'[{address}]' if ':' in address else address}:{names.ENGINE_PORT}")
        for name, address in addresses
    ]


def _places(current: Current, pods: Sequence[Object]) -> Mapping[str, str]:
    """Pod -> its node, with the GPU's product if the node is labelled with it."""
    products = {
        node["metadata"]["name"]: (node["metadata"].get("labels") or {}).get(GPU_PRODUCT_LABEL)
        for node in current.cluster.list("Node")
    }
    places: dict[str, str] = {}
    for pod in pods:
        node = pod["spec"].get("nodeName") or "an unknown node"
        product = products.get(node)
        places[pod["metadata"]["name"]] = f"node {node} ({product})" if product else f"node {node}"
    return places
