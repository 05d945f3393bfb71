"""Removing what nothing needs any more: weights from the volume, and files of engines' options.

What is in images or in pods goes with them; of an image, the proof is forgotten.
"""

from llmops.config import names
from llmops.manifests import configuration
from llmops.manifests.jobs import collect_job
from llmops.releases.records import State
from llmops.rollout.current import CurrentModel
from llmops.rollout.ops.jobs import run_job


def collect_weights(current: CurrentModel) -> None:
    """Remove the model's weights but stable's, the previous release's, those in use, and the N kept besides."""
    model, records = current.model, current.records
    if (state := _state(current)) is None:
        return
    needed = weights_in_use(current)
    for release in (state.stable, state.previous, state.candidate):
        if release is not None:
            needed.add(records.release(model, release).weights.key)
    others = [key for key in records.verified_keys(model) if key not in needed]
    spared = current.spec.rollout.keep_weights
    if not (gone := others[spared:]):
        return
    proofs = [records.verified_weights(model, key) for key in gone]
    for key in gone:
        forget_weights(current, key)
    if not any(proof and proof.on_volume for proof in proofs):
        return
    keep = [*sorted(needed), *others[:spared]]
    run_job(current, collect_job(model, keep, current.settings, current.run, current.run[:8]))
    current.log(f"{model}: weights of older releases removed: {', '.join(gone)}")


def collect_configurations(current: CurrentModel) -> None:
    """Remove the files of options that neither stable, the previous release, the candidate nor a pod has."""
    model, cluster, records = current.model, current.cluster, current.records
    if (state := _state(current)) is None:
        return
    live = (state.stable, state.previous, state.candidate)
    needed = {configuration.name(records.release(model, each)) for each in live if each is not None}
    for pod in cluster.list("Pod", labels={names.MODEL_LABEL: model}):
        needed |= {volume["configMap"]["name"] for volume in pod["spec"].get("volumes", ()) if "configMap" in volume}
    for found in cluster.list("ConfigMap", labels=configuration.selector(model)):
        if (name := found["metadata"]["name"]) not in needed:
            cluster.delete("ConfigMap", name, uid=found["metadata"]["uid"])
            current.log(f"ConfigMap {name} removed: no release of {model} needs it")


def _state(current: CurrentModel) -> State | None:
    """The state of the model; None if its record is lost. Recovered, it may not name all that is needed."""
    state = current.records.state(current.model)
    if not state.recovered:
        return state
    current.log(
        f"nothing old of {current.model} is removed: ConfigMap {names.state_name(current.model)} does not say what "
        "serves. The next promotion removes it."
    )
    return None


def weights_in_use(current: CurrentModel) -> set[str]:
    """Keys of the weights that pods of the model's engines have mounted now."""
    used: set[str] = set()
    for pod in current.cluster.list("Pod", labels={names.MODEL_LABEL: current.model}):
        labels = pod["metadata"]["labels"]
        if names.TRACK_LABEL in labels:
            used.add(current.records.release(current.model, labels[names.RELEASE_LABEL]).weights.key)
    return used


def forget_weights(current: CurrentModel, key: str) -> None:
    """Forget the proof of weights that are about to be removed, and the Jobs that a later run would adopt."""
    current.records.forget_weights(current.model, key)
    for stage in ("download", "checksum"):
        name = names.job_name(current.model, stage, key)
        current.cluster.delete("Job", name, propagation="Foreground", wait=60)
