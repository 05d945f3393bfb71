"""Removing weights from the volume that nothing needs any more.

What is in images or in pods goes with them; of an image, the proof is forgotten.
"""

from llmops import names
from llmops.manifests.jobs import collect_job
from llmops.stages.jobs import run_job
from llmops.stages.trial import Trial


def collect_weights(current: Trial) -> None:
    """Remove the model's weights but stable's, the previous release's, those in use, and the N kept besides."""
    model, records = current.model, current.records
    state = records.state(model)
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


def weights_in_use(current: Trial) -> set[str]:
    """Keys of the weights that pods of the model's engines have mounted now."""
    used: set[str] = set()
    for pod in current.cluster.list("Pod", labels={names.MODEL_LABEL: current.model}):
        labels = pod["metadata"]["labels"]
        if names.TRACK_LABEL in labels:
            used.add(current.records.release(current.model, labels[names.RELEASE_LABEL]).weights.key)
    return used


def forget_weights(current: Trial, key: str) -> None:
    """Forget the proof of weights that are about to be removed, and the Jobs that a later run would adopt."""
    current.records.forget_weights(current.model, key)
    for stage in ("download", "checksum"):
        name = names.job_name(current.model, stage, key)
        current.cluster.delete("Job", name, propagation="Foreground", wait=60)
