"""The ledger of a model's trials: what serves, what has been tried of which pins, and how that ended.

It is kept in the ConfigMap of the model's state, beside the full records, so that one list tells it of all models:
sensors that look after a thousand of them can't read every record.
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
# What stands around the engines: not of the release, and no other chance for one that was rejected.
_AROUND = {"exposure", "autoscaling", "objectives", "routing"}
# How versions of the image are chosen; which one was, the pins say.
_POLICY = {"version", "variant", "prereleases"}
_KEPT = ("stable", "previous", "candidate", "canary_percent")


class State(Strict):
    """Which releases of a model matter now; each is a release id.

    Args:
        stable: Serves users.
        previous: Served before it; what a rollback goes back to.
        candidate: Under trial, or the last that was.
        canary_percent: Share of users' requests that the canary gets.
        recovered: The record of the state does not say what serves: what is here comes from what else the cluster has.
        unproven: Release that the main Deployment is at, where nothing proves what served before it.
    """

    stable: str | None = None
    previous: str | None = None
    candidate: str | None = None
    canary_percent: int = 0
    recovered: bool = False
    unproven: str | None = None

    @classmethod
    def read(cls, data: Mapping[str, str]) -> State:
        """Take the state out of the data of its ConfigMap."""
        return cls.model_validate({key: value for key, value in data.items() if key in _KEPT})

    def kept(self) -> dict[str, str | None]:
        """What the state's ConfigMap gets to say all of it."""
        values = {key: getattr(self, key) for key in _KEPT if key in self.model_fields_set}
        return {key: str(value) for key, value in values.items() if value is not None}


class Tried(Strict):
    """The pins of a release under trial, and the terms that they were tried on.

    Args:
        image: Image repository, as the spec names it.
        tag: Tag that it was found by.
        digest: Digest that the tag was at.
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
    """How a trial ended, at which stage, and whether by a decision on the release."""

    verdict: VerdictValue
    stage: str
    cause: Cause = "judged"


class Ledger(Strict):
    """What is known of a model's trials.

    Args:
        state: Which releases are stable, previous and candidate.
        declared: Hash of the catalog's entry that was last resolved to a release; see `declaration`.
        tried: Trials that were opened, by release.
        decided: How they ended, by release; a trial that has no end yet is not here.
    """

    state: State = State()
    declared: str | None = None
    tried: dict[str, Tried] = Field(default_factory=dict[str, Tried])
    decided: dict[str, Decided] = Field(default_factory=dict[str, Decided])

    @property
    def serving(self) -> Tried | None:
        """The pins of stable; None if nothing serves, or its pins are not known."""
        return self.tried.get(self.state.stable or "")

    @property
    def last(self) -> Tried | None:
        """The pins of the release that was tried last."""
        return self.tried.get(self.state.candidate or "")

    def rejections(self, **pins: str) -> list[Decided]:
        """How trials ended that were rejected and had these pins (fields of `Tried`)."""
        return [
            end
            for release, end in self.decided.items()
            if end.verdict == "Failed" and (tried := self.tried.get(release)) and _has(tried, pins)
        ]

    def is_decided(self, **pins: str) -> bool:
        """Whether a release with these pins passed or was rejected."""
        return any(
            end.verdict != "Inconclusive" and (tried := self.tried.get(release)) and _has(tried, pins)
            for release, end in self.decided.items()
        )


def terms(spec: ModelSpec, suites: Mapping[str, str]) -> str:
    """Hash of all that goes into a model's releases besides its image's version and its weights' commit.

    A rejection holds for the terms that it was made on: with other gates or other arguments the same image may pass.

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
    """Hash of all in a model's entry that a rollout may act on: terms, version policies, replicas, what stands
    around the engines.

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
    """What the state's ConfigMap gets when a release is taken up: its pins, no end, and the entry it is from.

    Args:
        release: The release.
        spec: The entry of the catalog that it was resolved from.
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
    """What the state's ConfigMap gets when a trial has ended."""
    return {VERDICT_PREFIX + release: end.model_dump_json()}


def reopening(release: str) -> dict[str, str | None]:
    """What is taken out of the state's ConfigMap when a release is to be tried anew."""
    return {VERDICT_PREFIX + release: None}


def forgetting(release: str) -> dict[str, str | None]:
    """What is taken out of the state's ConfigMap when a record is removed."""
    return {TRIED_PREFIX + release: None, VERDICT_PREFIX + release: None}


def ledgers(cluster: Cluster) -> dict[str, Ledger]:
    """The ledger of every model of the installation, by its name, in one list."""
    return {
        str(state["metadata"]["labels"][names.MODEL_LABEL]): read_ledger(state.get("data") or {})
        for state in cluster.list("ConfigMap", labels=STATE_LABELS)
    }


def read_ledger(data: Mapping[str, str]) -> Ledger:
    """Read the data of a state's ConfigMap; what another version of llmops wrote and this one can't read, it leaves."""
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
