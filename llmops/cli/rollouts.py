"""Runs the Dagster jobs in this process, and returns how they ended."""

from __future__ import annotations

import getpass
import json
import os
import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import dagster as dg

from llmops.cli.exits import BY_VERDICT, Exit, by_name
from llmops.defs.compat import ErrorSource
from llmops.releases.records import Record, Records
from llmops.releases.validations import Validation, Validations
from llmops.rollout.trial import REQUESTED_BY_TAG

CANCELLED = "Cancelled"


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Args:
        code: Exit code.
        line: The result in one line.
        record: The record of the trial; None if the run opened none.
        run: Id of the Dagster run.
    """

    code: Exit
    line: str
    record: Record | None
    run: str

    def as_json(self) -> str:
        """For programs."""
        record = self.record.model_dump(mode="json") if self.record else None
        return json.dumps(asdict(self) | {"code": int(self.code), "record": record}, indent=2)


def run_rollout(
    records: Records,
    model: str,
    *,
    engine_version: str | None,
    revision: str | None,
    retry: bool,
    accept: Sequence[str] = (),
) -> Ended:
    """Run the rollout job for a model.

    Args:
        records: To read the outcome from.
        model: Name of the model.
        engine_version: Engine version to take instead of the policy's.
        revision: Weights revision to take instead of the spec's.
        retry: Try a release again that was rejected.
        accept: Ids of the preflight's checks whose errors do not stop the rollout.
    """
    from llmops.defs.rollout.jobs import ROLLOUT

    options = {"engine_version": engine_version, "revision": revision, "retry": retry, "accept": list(accept)}
    config = {"ops": {"release": {"config": {key: value for key, value in options.items() if value is not None}}}}
    run = _run(ROLLOUT, config, model)
    tried = records.tried_by(model, run.run_id)
    record = records.record(model, tried) if tried else None
    if run.kind == CANCELLED:
        return Ended(Exit.CANCELLED, f"{model}: {run.failure}", record, run.run_id)
    if record is not None:
        return Ended(BY_VERDICT[record.verdict], f"{record.verdict}: {record.reason}", record, run.run_id)
    if run.success and run.failure:
        return Ended(by_name(run.kind), f"{model}: {run.failure}", None, run.run_id)
    if run.success:
        stable = records.state(model).stable
        return Ended(Exit.DONE, f"{model} {stable} serves already: nothing to do", None, run.run_id)
    return Ended(by_name(run.kind), run.failure, None, run.run_id)


def run_rollback(records: Records, model: str, to: str | None, reason: str = "") -> Ended:
    """Run the rollback job for a model.

    Args:
        records: To read the outcome from.
        model: Name of the model.
        to: Release to go back to; None means the previous one.
        reason: Reason for the record of the release that stops serving.
    """
    from llmops.defs.rollout.jobs import ROLLBACK

    options = {"model": model, "reason": reason} | ({"to": to} if to else {})
    config = {"ops": {"roll_back": {"config": options}}}
    run = _run(ROLLBACK, config, None)
    if run.success:
        return Ended(Exit.DONE, f"{model} {records.state(model).stable} serves", None, run.run_id)
    if run.kind == CANCELLED:
        return Ended(Exit.CANCELLED, f"{model}: {run.failure}", None, run.run_id)
    return Ended(by_name(run.kind), run.failure, None, run.run_id)


@dataclass(frozen=True)
class Revalidated:
    """How a validation ended.

    Args:
        code: Exit code.
        line: The result in one line.
        validation: The validation; None if there was none.
        run: Id of the Dagster run.
    """

    code: Exit
    line: str
    validation: Validation | None
    run: str

    def as_json(self) -> str:
        """For programs."""
        validation = self.validation.model_dump(mode="json") if self.validation else None
        return json.dumps(asdict(self) | {"code": int(self.code), "validation": validation}, indent=2)


def run_revalidation(records: Records, model: str, *, repair: bool, restore: bool) -> Revalidated:
    """Run the revalidation job for a model.

    Args:
        records: To read the outcome from.
        model: Name of the model.
        repair: Download wrong files again.
        restore: Apply the release's objects over changes by others.
    """
    from llmops.defs.validation.assets import OP, validation_key
    from llmops.defs.validation.jobs import JOB

    config = {"ops": {OP: {"config": {"repair": repair, "restore": restore}}}}
    run = _run(JOB, config, None, assets=[validation_key(model)])
    if run.kind == CANCELLED:
        return Revalidated(Exit.CANCELLED, f"{model}: {run.failure}", None, run.run_id)
    if run.failure:
        return Revalidated(by_name(run.kind), run.failure, None, run.run_id)
    validation = Validations(records.cluster).last(model)
    if validation is None or validation.run != run.run_id:
        return Revalidated(Exit.DONE, f"{model}: nothing serves yet, so there is nothing to validate", None, run.run_id)
    wrong, complete = validation.severity == "error", validation.complete
    code = Exit.REJECTED if wrong else Exit.DONE if complete else Exit.INCONCLUSIVE
    return Revalidated(code, validation.line(), validation, run.run_id)


@dataclass(frozen=True)
class _Run:
    """A run of a job. `failure` is why it failed or was skipped; `kind` is the class of that error, or a verdict."""

    run_id: str
    success: bool
    failure: str
    kind: str


def _run(job: str, config: dict[str, Any], model: str | None, assets: list[dg.AssetKey] | None = None) -> _Run:
    from llmops.definitions import defs

    definition = defs().resolve_job_def(job)
    # Without a named logger Dagster prints its whole event log.
    config = config | {"loggers": {"console": {}}}
    tags = {REQUESTED_BY_TAG: f"{getpass.getuser()}@{socket.gethostname()} (llmops)"}
    with instance() as dagster:
        result = definition.execute_in_process(
            run_config=config,
            instance=dagster,
            partition_key=model,
            asset_selection=assets,
            tags=tags,
            raise_on_error=False,
        )
        for event in result.all_events:
            if event.event_type_value == "STEP_FAILURE":
                return _failed(result.run_id, event.step_failure_data)
            if event.event_type_value == "ASSET_OBSERVATION" and (why := _skipped(event.event_specific_data)):
                return _Run(result.run_id, True, *why)
        failure = "" if result.success else "the run failed outside of its stages; see its log"
        return _Run(result.run_id, result.success, failure, "")


def _skipped(data: Any) -> tuple[str, str] | None:
    """Why the run was skipped, and the class of the error; None if the observation is none of a skip."""
    kind = data.asset_observation.metadata.get("error")
    return (str(data.asset_observation.description), str(kind.value)) if kind else None


def _failed(run: str, data: Any) -> _Run:
    intended = data.user_failure_data
    if intended is not None:
        kind = intended.metadata.get("verdict") or intended.metadata.get("error")
        return _Run(run, False, str(intended.description), str(kind.value) if kind else "")
    if data.error_source == ErrorSource.INTERRUPT:
        return _Run(run, False, "the run was cancelled", CANCELLED)
    cause = data.error.cause
    if cause is not None and by_name(kind := str(cause.cls_name)) is not Exit.BUG:
        # Dagster wraps an error that comes while it loads the outcome of the stage before.
        return _Run(run, False, cause.message.partition(": ")[2].strip(), kind)
    return _Run(run, False, data.error.to_string(), "")


def instance() -> dg.DagsterInstance:
    """The Dagster instance of DAGSTER_HOME, whose UI shows the run; without it, an ephemeral one."""
    return dg.DagsterInstance.get() if os.environ.get("DAGSTER_HOME") else dg.DagsterInstance.ephemeral()
