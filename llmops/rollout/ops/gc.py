"""Remove old weights from the volume, and ConfigMaps with options of old engines.

Weights in an image leave no bytes on the volume: llmops only deletes their proof.
"""

from llmops.config import names
from llmops.manifests import configuration
from llmops.manifests.jobs import collect_job
from llmops.releases.records import State
from llmops.rollout.current import CurrentModel
from llmops.rollout.ops.jobs import run_job


def collect_weights(current: CurrentModel) -> None:
    """Remove old weights of the model from the volume.

    Weights of the stable, the previous and the candidate release stay, as do mounted ones and `keep_weights` more.
    """
    model, records = current.model, current.records
    if (state := _state(current)) is None:
        return
    needed = needed_weights(current, state)
    unneeded = [key for key in records.verified_keys(model) if key not in needed]
    keep_weights = current.spec.rollout.keep_weights
    if not (old := unneeded[keep_weights:]):
        return
    proofs = [records.verified_weights(model, key) for key in old]
    for key in old:
        forget_weights(current, key)
    if not any(proof and proof.on_volume for proof in proofs):
        return
    keep = [*sorted(needed), *unneeded[:keep_weights]]
    run_job(current, collect_job(model, keep, current.settings, current.run, current.run[:8]))
    current.log(f"{model}: weights of older releases removed: {', '.join(old)}")


def collect_configurations(current: CurrentModel) -> None:
    """Remove ConfigMaps with options that neither the stable, previous or candidate release nor a pod uses."""
    model, cluster, records = current.model, current.cluster, current.records
    if (state := _state(current)) is None:
        return
    live = (state.stable, state.previous, state.candidate)
    needed = {configuration.name(records.release(model, release)) for release in live if release is not None}
    for pod in cluster.list("Pod", labels={names.MODEL_LABEL: model}):
        needed |= {volume["configMap"]["name"] for volume in pod["spec"].get("volumes", ()) if "configMap" in volume}
    for config_map in cluster.list("ConfigMap", labels=configuration.selector(model)):
        if (name := config_map["metadata"]["name"]) not in needed:
            cluster.delete("ConfigMap", name, uid=config_map["metadata"]["uid"])
            current.log(f"ConfigMap {name} removed: no release of {model} needs it")


def _state(current: CurrentModel) -> State | None:
    """The state of the model; None if its record was lost: a recovered state may not name every needed release."""
    state = current.records.state(current.model)
    if not state.recovered:
        return state
    current.log(
        f"{current.model}: llmops keeps old weights and options, because ConfigMap {names.state_name(current.model)} "
        "does not name the stable release. The next promotion removes them."
    )
    return None


def needed_weights(current: CurrentModel, state: State) -> set[str]:
    """Keys of the weights that pods mount, and of those of the stable, the previous and the candidate release."""
    live = (state.stable, state.previous, state.candidate)
    keys = {current.records.release(current.model, release).weights.key for release in live if release is not None}
    return weights_in_use(current) | keys


def weights_in_use(current: CurrentModel) -> set[str]:
    """Keys of the weights that the model's engine pods mount now."""
    used: set[str] = set()
    for pod in current.cluster.list("Pod", labels={names.MODEL_LABEL: current.model}):
        labels = pod["metadata"]["labels"]
        if names.TRACK_LABEL in labels:
            used.add(current.records.release(current.model, labels[names.RELEASE_LABEL]).weights.key)
    return used


def forget_weights(current: CurrentModel, key: str) -> None:
    """Delete the proof of weights, and the Jobs that a later run would adopt.

    For weights that are to be removed, or to be fetched and compared again.
    """
    current.records.forget_weights(current.model, key)
    for stage in ("download", "checksum"):
        name = names.job_name(current.model, stage, key)
        current.cluster.delete("Job", name, propagation="Foreground", wait=60)
