"""The records of a model's releases, as ConfigMaps.

The pins of a release (immutable), its record (outcomes of its stages, and its verdict), proofs of weights, and the
model's state (its stable release, and the one under trial). They survive the loss of Dagster's database.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, Field

from llmops.clients.kubernetes.client import Cluster
from llmops.config import names
from llmops.config.schema import Strict, VerdictValue
from llmops.errors import BadInput, ClusterCannot
from llmops.releases.ledger import Cause, Decided, State, ending, forgetting, reopening
from llmops.releases.recovery import Evidence, what_served
from llmops.releases.release import Release
from llmops.releases.stages import STAGES
from llmops.releases.store import Changes, Data, Store, Stored, record_labels
from llmops.releases.stored import read_release

OutcomeT = TypeVar("OutcomeT", bound=BaseModel)

VERDICT_KEY = "verdict.json"
REJECTION_KEY = "rejection.json"
OPEN_KEY = "open.json"
ACCEPTED_KEY = "accepted"
PROOF_KEY = "verified.json"
LIVE_KEYS = ("stable", "previous", "candidate")


class OpenTrial(Strict):
    """A trial without a verdict: the reaper of an abandoned one reports its run and stage.

    Args:
        run: Dagster run of the trial.
        requested_by: Who or what asked for it.
        stage: The last stage that started.
        since: When it started.
        served: Release that served then; "" is none, None unknown.
    """

    run: str
    requested_by: str
    stage: str
    since: datetime.datetime
    served: str | None = None


class Record(Strict):
    """The record of a release's trial: its verdict, the reason, the figures, and who asked for it."""

    model: str
    release: str
    verdict: VerdictValue
    reason: str = Field(description="One line.")
    details: str = Field(default="", description="Evidence: events, last log lines.")
    stage: str = Field(description="Stage that decided.")
    image: str
    commit: str
    figures: dict[str, float] = Field(default_factory=dict[str, float])
    stages: dict[str, float] = Field(default_factory=dict[str, float], description="Seconds that each stage took.")
    run: str = ""
    requested_by: str = ""
    accepted: tuple[str, ...] = Field(
        default=(), description="Ids of the preflight's findings that would have stopped the trial, and were accepted."
    )
    code: str = Field(
        default="", description="The reason in one CamelCase word; empty where a gate or a person decided."
    )
    finished: datetime.datetime
    cause: Cause = Field(
        default="judged",
        description="judged: a stage or a gate decided; cancelled, died: the run ended before a decision.",
    )

    @property
    def decided(self) -> Decided:
        """The part of the record that the ledger keeps."""
        return Decided(verdict=self.verdict, stage=self.stage, cause=self.cause)


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

    def save_release(self, pins: dict[str, Any]) -> None:
        """Keep the pins of a release. Existing pins of that name are equal: the name has their hash."""
        self._store.create(pins)

    def release(self, model: str, release: str) -> Release:
        """The pins of a release.

        Raises:
            BadInput: There is no such release of this model.
        """
        pins = self._store.data(names.pins_name(model, release)).get(names.RELEASE_FILE)
        if pins is None:
            raise BadInput(
                f"{model}: there is no release {release}",
                code="NoSuchRelease",
                about=f"release {release}",
                remedy=f"Take one that `llmops history {model}` lists.",
            )
        return read_release(pins)

    def state(self, model: str) -> State:
        """The model's stable, previous and candidate releases.

        If its ConfigMap names no stable, the main Deployment and the records of trials decide.
        """
        stored = self._store.get(names.state_name(model))
        state = State.read({} if stored is None else stored.data)
        return state if state.stable else self._recovered(model, state, stored)

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
        ended = _ended(trials)
        passed = [record.release for record in ended if record.verdict == "Passed"]
        served = what_served(
            Evidence(
                deployed=deployed,
                passed=passed,
                refused={record.release for record in ended if record.verdict != "Passed"},
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
        return _record(self._trial(model, release), VERDICT_KEY)

    def rejection(self, model: str, release: str) -> Record | None:
        """The record of the trial that rejected the release; None without a rejection, or if a later trial passed.

        A later Inconclusive trial leaves the rejection in force.
        """
        return _rejection(self._trial(model, release))

    def save_record(self, record: Record) -> None:
        """Keep a verdict and close the trial. Inconclusive leaves a rejection in force."""
        rejection = self.rejection(record.model, record.release) if record.verdict == "Inconclusive" else None
        self._keep(record.model, record.release, record, rejection)

    def restore_record(self, model: str, release: str, record: Record | None) -> None:
        """Restore the record that another one replaced; None if there was none."""
        self._keep(model, release, record, None)

    def _keep(
        self, model: str, release: str, record: Record | None, rejection: Record | None, *, outcomes: bool = True
    ) -> None:
        data: dict[str, str | None] = {
            VERDICT_KEY: record.model_dump_json() if record else None,
            REJECTION_KEY: rejection.model_dump_json() if rejection else None,
            OPEN_KEY: None,
        }
        if not outcomes:
            data |= {f"{stage}.{kind}": None for stage in STAGES[1:] for kind in ("json", "seconds")}
        self._write_trial(model, release, data)
        end = rejection or record
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

        The proof of its weights stays, and so does a rejection until a trial passes.
        """
        self._keep(model, release, None, self.rejection(model, release), outcomes=False)

    def history(self, model: str) -> list[Record]:
        """Records of ended trials, newest first: for each release its last record, and the record of its rejection."""
        return _ended(self._trials(model))

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


def _ended(trials: Mapping[str, Data]) -> list[Record]:
    decisions = [_record(data, key) for data in trials.values() for key in (VERDICT_KEY, REJECTION_KEY)]
    return sorted((record for record in decisions if record), key=lambda record: record.finished, reverse=True)


def _record(data: Data, key: str) -> Record | None:
    return Record.model_validate_json(data[key]) if key in data else None


def _rejection(data: Data) -> Record | None:
    last = _record(data, VERDICT_KEY)
    return last if last and last.verdict == "Failed" else _record(data, REJECTION_KEY)


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
