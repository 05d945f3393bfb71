"""What serves a model now, by the cluster."""

from __future__ import annotations

from llmops.config import names
from llmops.config.catalog.spec import Strict
from llmops.releases.validations import Validations
from llmops.rollout.platform import Platform


class ModelStatus(Strict):
    """One model: the release that serves, the one under trial, the end of the last trial.

    Args:
        stable: Release that was promoted last.
        deployed: Release of the main Deployment; differs from stable during a promotion.
        image: Image of the main Deployment.
        replicas: Replicas that the main Deployment should have.
        ready: Its ready replicas.
        trial: Release whose canary is up.
        last: Verdict of the last trial, in a line.
        validated: Result of the last validation of the serving release, in a line.
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
    """Read a model's status from the cluster."""
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
