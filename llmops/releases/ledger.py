"""The ledger of a model's trials: the serving release, the pins of each trial, and how each trial ended.

The ConfigMap of the model's state holds it, beside the full records. One list call reads the ledgers of all models:
sensors for a thousand models cannot read every record.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from llmops.clients.kubernetes.client import Cluster
from llmops.config import names
from llmops.config.catalog.spec import ModelSpec
from llmops.config.schema import Strict, VerdictValue
from llmops.releases.release import Release

Cause = Literal["judged", "cancelled", "died"]
ModelT = TypeVar("ModelT", bound=BaseModel)

DECLARED_KEY = "declared"
TRIED_PREFIX = "tried."
VERDICT_PREFIX = "verdict."
STATE_LABELS = {names.RECORD_LABEL: "state"}
# Objects around the engines, and what the preflight accepts: not part of the release, and no reason to try a
# rejected one again.
_AROUND = {"exposure", "autoscaling", "objectives", "routing", "preflight"}
# Policy that picks the image's version; the pins have its result.
_POLICY = {"version", "variant", "prereleases"}
_KEPT = ("stable", "previous", "candidate", "canary_percent")


class State(Strict):
    """The releases of a model that matter now, by their ids.

    Args:
        stable: The release that serves users.
        previous: The release that served before stable; a rollback returns to it.
        candidate: The release under trial, or the last one under trial.
        canary_percent: The canary's share of users' requests.
        recovered: The state's ConfigMap names no stable: this state comes from the Deployment and the records.
        unproven: Release of the main Deployment, if nothing proves which release served before it.
    """

    stable: str | None = None
    previous: str | None = None
    candidate: str | None = None
    canary_percent: int = 0
    recovered: bool = False
    unproven: str | None = None

    @classmethod
    def read(cls, data: Mapping[str, str]) -> State:
        """Read the state from the data of its ConfigMap."""
        return cls.model_validate({key: value for key, value in data.items() if key in _KEPT})

    def kept(self) -> dict[str, str | None]:
        """The data of the state's ConfigMap."""
        values = {key: getattr(self, key) for key in _KEPT if key in self.model_fields_set}
        return {key: str(value) for key, value in values.items() if value is not None}


class Tried(Strict):
    """The pins of a release under trial, and the terms of the trial.

    Args:
        image: Image repository, as the spec names it.
        tag: Tag that the policy picked.
        digest: Digest of the tag at that time.
        repo: Hub repository.
        commit: Commit of the weights.
        terms: See `terms`.
    """

    image: str
    tag: str
    digest: str
    repo: str
    commit: str
    terms: str


class Decided(Strict):
    """How a trial ended: verdict, stage, and whether it judged the release."""

    verdict: VerdictValue
    stage: str
    cause: Cause = "judged"


class Ledger(Strict):
    """A model's state and trials.

    Args:
        state: The stable, previous and candidate releases.
        declared: Hash of the catalog entry that last resolved to a release; see `declaration`.
        tried: Opened trials, by release.
        decided: Ended trials, by release.
    """

    state: State = State()
    declared: str | None = None
    tried: dict[str, Tried] = Field(default_factory=dict[str, Tried])
    decided: dict[str, Decided] = Field(default_factory=dict[str, Decided])

    @property
    def serving(self) -> Tried | None:
        """stable's pins; None without a stable, or without its pins."""
        return self.tried.get(self.state.stable or "")

    @property
    def last(self) -> Tried | None:
        """The pins of the last trial's release."""
        return self.tried.get(self.state.candidate or "")

    def rejections(self, **pins: str) -> list[Decided]:
        """Rejections of releases with these pins (fields of `Tried`)."""
        return [
            end
            for release, end in self.decided.items()
            if end.verdict == "Failed" and (tried := self.tried.get(release)) and _has(tried, pins)
        ]

    def is_decided(self, **pins: str) -> bool:
        """Whether a release with these pins has passed or was rejected."""
        return any(
            end.verdict != "Inconclusive" and (tried := self.tried.get(release)) and _has(tried, pins)
            for release, end in self.decided.items()
        )


def terms(spec: ModelSpec, suites: Mapping[str, str]) -> str:
    """Hash of all that goes into a model's releases except the image's version and the weights' commit.

    A rejection holds for its terms only: with other gates or arguments the same image may pass.

    Args:
        spec: The model.
        suites: SHA-256 of each of its suites, by name.
    """
    content = spec.model_dump(
        mode="json",
        exclude_defaults=True,
        exclude={
            **dict.fromkeys(("description", "replicas", "automation", *_AROUND), True),
            "engine": _POLICY,
            "weights": {"revision"},
        },
    )
    return _hash({**content, "suites": {name: suites[name] for name in spec.evaluation.suites}})


def declaration(spec: ModelSpec, suites: Mapping[str, str]) -> str:
    """Hash of all in a model's entry that a rollout acts on: terms, version policies, replicas, objects around engines.

    Args:
        spec: The model.
        suites: SHA-256 of each of its suites, by name.
    """
    around = spec.model_dump(mode="json", exclude_defaults=True, include=_AROUND)
    return _hash({
        **({"around": around} if around else {}),
        "terms": terms(spec, suites),
        "replicas": spec.replicas,
        "revision": spec.weights.revision,
        "engine": {name: getattr(spec.engine, name) for name in sorted(_POLICY)},
    })  # fmt: skip


def opening(release: Release, spec: ModelSpec) -> dict[str, str | None]:
    """Changes to the state's ConfigMap that open a trial: the release's pins, and the hash of its entry.

    Args:
        release: The release.
        spec: The catalog entry that it resolves.
    """
    suites = {suite.name: suite.sha256 for suite in release.suites}
    tried = Tried(
        image=release.engine.image,
        tag=release.engine.tag,
        digest=release.engine.digest,
        repo=release.weights.repo,
        commit=release.weights.commit,
        terms=terms(spec, suites),
    )
    return {TRIED_PREFIX + release.id: tried.model_dump_json(), DECLARED_KEY: declaration(spec, suites)}


def ending(release: str, end: Decided) -> dict[str, str | None]:
    """Changes to the state's ConfigMap that end a trial."""
    return {VERDICT_PREFIX + release: end.model_dump_json()}


def reopening(release: str) -> dict[str, str | None]:
    """Changes to the state's ConfigMap that allow another trial of a release."""
    return {VERDICT_PREFIX + release: None}


def forgetting(release: str) -> dict[str, str | None]:
    """Changes to the state's ConfigMap that remove a release's record."""
    return {TRIED_PREFIX + release: None, VERDICT_PREFIX + release: None}


def ledgers(cluster: Cluster) -> dict[str, Ledger]:
    """The ledger of every model by its name, in one list call."""
    return {
        str(state["metadata"]["labels"][names.MODEL_LABEL]): read_ledger(state.get("data") or {})
        for state in cluster.list("ConfigMap", labels=STATE_LABELS)
    }


def read_ledger(data: Mapping[str, str]) -> Ledger:
    """Read the data of a state's ConfigMap; entries of other llmops versions that do not parse are skipped."""
    return Ledger(
        state=State.read(data),
        declared=data.get(DECLARED_KEY),
        tried=_parsed(data, TRIED_PREFIX, Tried),
        decided=_parsed(data, VERDICT_PREFIX, Decided),
    )


def _parsed(data: Mapping[str, str], prefix: str, kind: type[ModelT]) -> dict[str, ModelT]:
    by_release: dict[str, ModelT] = {}
    for key, text in data.items():
        if key.startswith(prefix):
            try:
                by_release[key.removeprefix(prefix)] = kind.model_validate_json(text)
            except ValidationError:
                continue
    return by_release


def _has(tried: Tried, pins: Mapping[str, str]) -> bool:
    return all(getattr(tried, name) == value for name, value in pins.items())


def _hash(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]
