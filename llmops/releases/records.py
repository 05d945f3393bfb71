"""The records of a model's releases, as ConfigMaps.

The pins of a release (immutable), its record (outcomes of its stages, and its verdict), proofs of weights, and the
model's state (its stable release, and the one under trial). They survive the loss of Dagster's database.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel

from llmops.clients.kubernetes.client import Cluster
from llmops.config import names
from llmops.config.schema import Strict
from llmops.errors import BadInput, ClusterCannot
from llmops.releases.history import (
    OpenTrial,
    Record,
    appending,
    beginning,
    ended,
    in_force,
    last_record,
    newest_first,
    withdrawing,
)
from llmops.releases.ledger import State, ending, forgetting, reopening
from llmops.releases.recovery import Evidence, what_served
from llmops.releases.release import Release
from llmops.releases.stages import STAGES
from llmops.releases.store import Changes, Data, Store, Stored, record_labels
from llmops.releases.stored import read_release

OutcomeT = TypeVar("OutcomeT", bound=BaseModel)

OPEN_KEY = "open.json"
ACCEPTED_KEY = "accepted"
PROOF_KEY = "verified.json"
LIVE_KEYS = ("stable", "previous", "candidate")


class VerifiedWeights(Strict):
    """Proof that the volume, or an image, holds the weights: every byte was read and compared."""

    path: str
    files: int
    bytes: int
    verified: datetime.datetime
    on_volume: bool = True


class Records:
    """Reads and writes the records.

    Args:
        cluster: The cluster; the ConfigMaps are in its namespace.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._store = Store(cluster)

    def save_release(self, pins: dict[str, Any]) -> bool:
        """Keep the pins of a release, and a copy in its record. Pins of that name are equal: it has their hash.

        The copy brings the pins back if somebody deletes them: without them nobody could go back to the release.

        Returns:
            Whether the pins are new.
        """
        labels = pins["metadata"]["labels"]
        model, release = labels[names.MODEL_LABEL], labels[names.RELEASE_LABEL]
        stored = self._store.data(pins["metadata"]["name"]), self._trial(model, release)
        if all(self._pins(data, release) for data in stored):
            # A quota or a policy that refuses ConfigMaps refuses one that exists, too.
            return False
        is_new = self._store.create(pins)
        self._write_trial(model, release, pins["data"])
        return is_new

    def release(self, model: str, release: str) -> Release:
        """The pins of a release.

        Raises:
            BadInput: There is no such release of this model.
        """
        name = names.pins_name(model, release)
        if (
            pins := self._pins(self._store.data(name), release) or self._pins(self._trial(model, release), release)
        ) is None:
            raise BadInput(
                f"{model}: there is no release {release}: ConfigMap {name}, or its content, is gone",
                code="NoSuchRelease",
                about=f"release {release}",
                remedy=f"Take one that `llmops history {model}` lists. If the ConfigMap was deleted, restore it, or "
                "roll out the same entry, revision and engine version again: the same inputs are the same release.",
            )
        return pins

    @staticmethod
    def _pins(data: Data, release: str) -> Release | None:
        """The pins in the data of a ConfigMap, if they are those of the release."""
        if (text := data.get(names.RELEASE_FILE)) is None:
            return None
        pins = read_release(text)
        return pins if pins.id == release else None

    def state(self, model: str) -> State:
        """The model's stable, previous and candidate releases.

        If its ConfigMap names no stable, the main Deployment and the records of trials decide.
        """
        stored = self._store.get(names.state_name(model))
        state = State.read({} if stored is None else stored.data)
        return state if state.stable else self._recovered(model, state, stored)

    def has_state(self, model: str, **releases: str | None) -> bool:
        """Whether the state's ConfigMap has each of these keys that has a value here, with this or another value."""
        data = self._store.data(names.state_name(model))
        return all(data.get(key) for key, release in releases.items() if release is not None)

    def proven_state(self, model: str) -> State:
        """The state, for a caller that changes what serves.

        Raises:
            ClusterCannot: The main Deployment exists, and nothing proves which release served before.
        """
        state = self.state(model)
        if state.unproven is not None:
            raise in_doubt(model, state.unproven)
        return state

    def recover_state(self, model: str) -> State:
        """Write a recovered state to its ConfigMap. The caller holds the model's lease.

        Returns:
            The state; `recovered` if it was lost.
        """
        state = self.state(model)
        if state.recovered:
            self.update_state(model, **state.kept())
        return state

    def _recovered(self, model: str, state: State, stored: Stored | None) -> State:
        main = self.cluster.get("Deployment", names.engine_name(model, "stable"))
        deployed = _label(main, names.RELEASE_LABEL) if main is not None else None
        trials = self._trials(model)
        opened = {
            release: OpenTrial.model_validate_json(data[OPEN_KEY])
            for release, data in trials.items()
            if OPEN_KEY in data
        }
        verdicts = _verdicts(trials)
        passed = [record.release for record in verdicts if record.verdict == "Passed"]
        served = what_served(
            Evidence(
                deployed=deployed,
                passed=passed,
                refused={release for release, data in trials.items() if ended(data)} - set(passed),
                opened={release: trial.served for release, trial in opened.items()},
                unpromoted=main is not None and stored is not None and _created(stored.manifest) < _created(main),
            )
        )
        candidate = state.candidate or max(opened, key=lambda release: opened[release].since, default=None)
        updates: dict[str, Any] = {"candidate": candidate}
        if served != "":
            updates |= {"recovered": True, "stable": served, "unproven": deployed if served is None else None}
            updates["previous"] = state.previous or next((release for release in passed if release != served), None)
            if candidate in opened and "canary_percent" not in state.model_fields_set:
                updates |= self._share(model, candidate, opened[candidate], trials[candidate])
        return state.model_copy(update=updates)

    def _share(self, model: str, release: str, trial: OpenTrial, data: Data) -> dict[str, int]:
        """The canary's share of users' requests by the progress of its trial; empty if it has no users yet."""
        if trial.stage not in ("traffic", "promotion"):
            return {}
        if self.cluster.get("Deployment", names.engine_name(model, "canary")) is None:
            return {}
        steps = self.release(model, release).traffic.steps
        return {"canary_percent": steps[-1 if "traffic.json" in data else 0].percent} if steps else {}

    def update_state(self, model: str, **changes: str | None) -> State:
        """Set keys of the state; None removes one."""
        self._store.merge(names.state_name(model), record_labels("state", model), changes)
        return self.state(model)

    def outcome(self, model: str, release: str, stage: str, kind: type[OutcomeT]) -> OutcomeT | None:
        """The outcome of a stage for this release; None if the stage has none."""
        text = self._trial(model, release).get(f"{stage}.json")
        return kind.model_validate_json(text) if text else None

    def save_outcome(self, model: str, release: str, stage: str, outcome: BaseModel | None) -> None:
        """Keep the outcome of a stage for this release; None removes it."""
        text = outcome.model_dump_json() if outcome is not None else None
        self._write_trial(model, release, {f"{stage}.json": text})

    def save_seconds(self, model: str, release: str, stage: str, seconds: float) -> None:
        """Keep how long a stage took, whether it passed or failed."""
        self._write_trial(model, release, {f"{stage}.seconds": f"{seconds:.3f}"})

    def save_accepted(self, model: str, release: str, ids: Sequence[str]) -> None:
        """Keep which errors of the preflight this trial accepts."""
        self._write_trial(model, release, {ACCEPTED_KEY: " ".join(ids) or None})

    def accepted(self, model: str, release: str) -> tuple[str, ...]:
        """Ids of the errors of the preflight that this trial accepts."""
        return tuple(self._trial(model, release).get(ACCEPTED_KEY, "").split())

    def seconds(self, model: str, release: str) -> dict[str, float]:
        """Seconds of each stage of this release; 0 for a stage that did not run."""
        data = self._trial(model, release)
        return {stage: float(data.get(f"{stage}.seconds", 0)) for stage in STAGES}

    def record(self, model: str, release: str) -> Record | None:
        """The record of the release's last trial; None if no trial has ended, or one is open."""
        return last_record(self._trial(model, release))

    def verdict(self, model: str, release: str) -> Record | None:
        """The record of the newest trial that passed or rejected the release; None if none did.

        A trial that is cancelled or decides nothing leaves it in force.
        """
        return in_force(ended(self._trial(model, release)))

    def rejection(self, model: str, release: str) -> Record | None:
        """The verdict on the release, if it is a rejection."""
        verdict = self.verdict(model, release)
        return verdict if verdict is not None and verdict.verdict == "Failed" else None

    def save_record(self, record: Record) -> None:
        """Keep how a trial ended, beside all earlier trials of the release, and close it."""
        self._change_trial(record.model, record.release, lambda data: {**appending(data, record), OPEN_KEY: None})
        self._note_end(record.model, record.release, record)

    def withdraw_record(self, record: Record, last: Record | None) -> None:
        """Take back a record, because what it says did not happen.

        Args:
            record: The record.
            last: The record of the last trial before it; None if there was none.
        """
        self._write_trial(record.model, record.release, withdrawing(record, last))
        self._note_end(record.model, record.release, last)

    def _note_end(self, model: str, release: str, last: Record | None) -> None:
        """Note in the model's state how the last trial ended; a rejection in force goes before."""
        end = self.rejection(model, release) or last
        self.update_state(model, **(ending(release, end.decided) if end else reopening(release)))

    def open_trial(self, model: str, release: str, trial: OpenTrial) -> None:
        """Keep that a stage of the release's trial has started."""
        self._write_trial(model, release, {OPEN_KEY: trial.model_dump_json()})

    def opened(self, model: str, release: str) -> OpenTrial | None:
        """The release's open trial; None without one."""
        text = self._trial(model, release).get(OPEN_KEY)
        return OpenTrial.model_validate_json(text) if text else None

    def forget_trial(self, model: str, release: str) -> None:
        """Allow another trial of the release, for `--retry`.

        The proof of its weights stays, and so do the records of earlier trials.
        """
        outcomes = {f"{stage}.{kind}": None for stage in STAGES[1:] for kind in ("json", "seconds")}
        self._change_trial(model, release, lambda data: {**beginning(data), **outcomes, OPEN_KEY: None})
        self._note_end(model, release, None)

    def history(self, model: str) -> list[Record]:
        """Records of all ended trials, newest first."""
        return newest_first(record for data in self._trials(model).values() for record in ended(data))

    def verdicts(self, model: str) -> list[Record]:
        """The verdict in force on each release that has one, newest first."""
        return _verdicts(self._trials(model))

    def tried_by(self, model: str, run: str) -> str | None:
        """The release whose trial a run opened or ended, also if somebody deleted the model's state meanwhile."""
        return next((release for release, data in self._trials(model).items() if _run_of(data) == run), None)

    def _trials(self, model: str) -> dict[str, dict[str, str]]:
        """The data of all trials, by release."""
        trials = self._store.list({names.MODEL_LABEL: model, names.RECORD_LABEL: "trial"})
        return {trial.labels[names.RELEASE_LABEL]: trial.data for trial in trials}

    def verified_weights(self, model: str, key: str) -> VerifiedWeights | None:
        """Proof of these weights; None if they were never verified, or are deleted."""
        text = self._store.data(_weights_name(model, key)).get(PROOF_KEY)
        return VerifiedWeights.model_validate_json(text) if text else None

    def has_weights(self, release: Release) -> bool:
        """Whether an engine can start: the weights are proven, or each pod downloads and verifies its own."""
        pins = release.weights
        return pins.strategy == "init" or self.verified_weights(release.model, pins.key) is not None

    def save_verified_weights(self, model: str, key: str, verified: VerifiedWeights) -> None:
        """Keep the proof."""
        proof = {PROOF_KEY: verified.model_dump_json()}
        self._store.merge(_weights_name(model, key), record_labels("weights", model), proof)

    def verified_keys(self, model: str) -> list[str]:
        """Keys of the model's proven weights, newest proof first."""
        proofs = [
            (VerifiedWeights.model_validate_json(text), proof.name.removeprefix(_weights_name(model, "")))
            for proof in self._store.list({names.MODEL_LABEL: model, names.RECORD_LABEL: "weights"})
            if (text := proof.data.get(PROOF_KEY))
        ]
        return [key for _, key in sorted(proofs, key=lambda proof: proof[0].verified, reverse=True)]

    def forget_weights(self, model: str, key: str) -> None:
        """Delete the proof: before llmops deletes the weights, or because they were altered."""
        self._store.delete(_weights_name(model, key))

    def prune(self, model: str, limit: int) -> list[str]:
        """Remove the oldest records above `limit`, never those of stable, previous or candidate.

        Returns:
            Ids of the removed releases. Nothing is removed after the loss of the state: a recovered one may not name
            all live releases.
        """
        state = self.state(model)
        if state.recovered:
            return []
        live = {getattr(state, key) for key in LIVE_KEYS}
        releases = list(dict.fromkeys(record.release for record in self.history(model)))
        old = [release for release in releases[limit:] if release not in live]
        for release in old:
            self._store.delete(names.record_name(model, release))
            self._store.delete(names.pins_name(model, release))
            self.update_state(model, **forgetting(release))
        return old

    def _trial(self, model: str, release: str) -> dict[str, str]:
        """The data of a release's trial; empty without a trial."""
        return self._store.data(names.record_name(model, release))

    def _write_trial(self, model: str, release: str, changes: Changes) -> None:
        self._store.merge(names.record_name(model, release), record_labels("trial", model, release), changes)

    def _change_trial(self, model: str, release: str, change: Callable[[Data], Changes]) -> None:
        self._store.update(names.record_name(model, release), record_labels("trial", model, release), change)


def _verdicts(trials: Mapping[str, Data]) -> list[Record]:
    return newest_first(verdict for data in trials.values() if (verdict := in_force(ended(data))) is not None)


def in_doubt(model: str, deployed: str) -> ClusterCannot:
    """The error if nothing proves which release served: to go on could take production down."""
    name, state = names.engine_name(model, "stable"), names.state_name(model)
    return ClusterCannot(
        f"{model}: ConfigMap {state} names no stable release, and nothing else proves one: Deployment {name} has "
        f"release {deployed}, whose trial did not pass, and no other release has passed",
        code="StableUnknown",
        about=f"ConfigMap {state}",
        remedy=f"If {deployed} serves users: kubectl patch configmap {state} --type merge -p "
        f'\'{{"data":{{"stable":"{deployed}"}}}}\'. If it never did: kubectl delete '
        f"deployment,service,poddisruptionbudget {name}. Then roll out again.",
    )


def _label(manifest: Mapping[str, Any], label: str) -> str | None:
    return (manifest["metadata"].get("labels") or {}).get(label)


def _created(manifest: Mapping[str, Any]) -> str:
    return str(manifest["metadata"]["creationTimestamp"])


def _weights_name(model: str, key: str) -> str:
    return f"{model}.weights.{key}"


def _run_of(data: Data) -> str | None:
    """The run of the open trial, or of the last one that ended."""
    if OPEN_KEY in data:
        return OpenTrial.model_validate_json(data[OPEN_KEY]).run
    last = last_record(data)
    return last.run if last else None
