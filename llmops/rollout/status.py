"""What serves of a model now, as the cluster shows it."""

from __future__ import annotations

from llmops.config import names
from llmops.config.catalog.spec import Strict
from llmops.releases.validations import Validations
from llmops.rollout.platform import Platform


class ModelStatus(Strict):
    """One model: what serves, what is under trial, how the last trial ended.

    Args:
        stable: Release that was promoted last.
        deployed: Release that the main Deployment is at; differs from stable in the middle of a promotion.
        image: Image of the main Deployment.
        replicas: Wanted.
        ready: Ready.
        trial: Release whose canary is up.
        last: How the last trial ended, in a line.
        validated: How the last validation of what serves ended, in a line.
    """

    model: str
    stable: str | None
    deployed: str | None
    image: str | None
    replicas: int
    ready: int
    trial: str | None
    last: str | None
    validated: str | None = None


def model_status(platform: Platform, model: str) -> ModelStatus:
    """Ask the cluster about a model."""
    cluster, records = platform.cluster, platform.records
    main = cluster.get("Deployment", names.engine_name(model, "stable"))
    canary = cluster.get("Deployment", names.engine_name(model, "canary"))
    history = records.history(model)
    last = f"{history[0].release} {history[0].verdict}: {history[0].reason}" if history else None
    validation = Validations(cluster).last(model)
    return ModelStatus(
        model=model,
        stable=records.state(model).stable,
        deployed=main["metadata"]["labels"].get(names.RELEASE_LABEL) if main else None,
        image=main["spec"]["template"]["spec"]["containers"][0]["image"] if main else None,
        replicas=main["spec"].get("replicas", 0) if main else 0,
        ready=(main.get("status") or {}).get("readyReplicas", 0) if main else 0,
        trial=canary["metadata"]["labels"].get(names.RELEASE_LABEL) if canary else None,
        last=last,
        validated=f"{validation.finished:%Y-%m-%d %H:%M} UTC {validation.summary()}" if validation else None,
    )
