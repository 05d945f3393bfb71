"""Whether the hub gives the weights, and the registry the image."""

from __future__ import annotations

from collections.abc import Iterator

from llmops.clients.hub import RateLimited
from llmops.errors import LlmopsError
from llmops.preflight.capacity import obstacle, replica
from llmops.preflight.checks.case import Case, Check, amount, failed, some
from llmops.preflight.finding import Finding

MANY_COPIES = 2
"""More replicas than this are no experiment any more: each downloads its own copy."""
ARCHITECTURE_LABEL = "kubernetes.io/arch"


def _hub(case: Case) -> Iterator[Finding]:
    """Whether the hub gives the weights to this token."""
    match case.hub:
        case None:
            return
        case RateLimited() as error:
            yield Finding("warning", "hub", error.message, error.remedy)
        case LlmopsError() as error:
            yield failed("hub", error)
        case answer:
            who = f"the token of {answer.account}" if answer.account else "everybody"
            yield Finding("ok", "hub", f"{answer.endpoint} gives {answer.repo} to {who}")


def _copies(case: Case) -> Iterator[Finding]:
    """Whether replicas that start together overload the hub."""
    replicas = case.spec.replicas
    if case.spec.weights.strategy != "init" or replicas <= MANY_COPIES:
        return
    size = f" of {amount(case.release.weights.size)}" if case.release else ""
    yield Finding(
        "warning",
        "weights strategy",
        f"init: {replicas} pods that start at once download a copy{size} each; the hub limits rates (429)",
        "Take weights.strategy volume: one download for all replicas. init is for experiments.",
    )


def _image(case: Case) -> Iterator[Finding]:
    """Whether the image exists, is pinned, and supports the nodes' processors."""
    if isinstance(case.image, LlmopsError):
        yield failed("image", case.image)
        return
    answer = case.image
    pinned = f"{answer.tag} is pinned as {answer.image}@{answer.digest}"
    nodes = [node for node in case.snapshot.nodes if obstacle(replica(case.spec), node) is None]
    needed = {str((node["metadata"].get("labels") or {}).get(ARCHITECTURE_LABEL, "")) for node in nodes} - {""}
    if not answer.architectures:
        message = f"{pinned}; the registry does not say for which processors"
        yield Finding("unknown", "image", message, "See that it has been built for those of the nodes.")
    elif missing := sorted(needed - answer.architectures):
        yield Finding(
            "error",
            "image",
            f"{pinned} for {some(sorted(answer.architectures))}; the nodes that fit have {some(missing)}",
            f"Take an image for {some(missing)} (engine.image, engine.variant), or other nodes (gpu.product).",
        )
    else:
        yield Finding("ok", "image", f"{pinned} for {some(sorted(answer.architectures))}")


CHECKS = (
    Check("sources.image", "image", ("nodes",), _image),
    Check("sources.hub", "hub", (), _hub),
    Check("sources.copies", "weights strategy", (), _copies),
)
