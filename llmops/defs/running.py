"""Between trials and Dagster: runs, metadata, failures."""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping
from contextlib import contextmanager

import dagster as dg

from llmops.config.redaction import withheld
from llmops.defs.compat import capture_interrupts, steps_in_this_process
from llmops.errors import LlmopsError, kind_of
from llmops.releases.records import Record
from llmops.releases.stages import STAGES
from llmops.rollout.orchestrator import Orchestrator
from llmops.rollout.shown import File, Json, Link, Markdown, Shown
from llmops.rollout.trial import REQUESTED_BY_TAG, TrialEnded


def orchestrator_of(context: dg.AssetExecutionContext | dg.OpExecutionContext) -> Orchestrator:
    """The run that executes an asset or an op."""
    run = context.run
    context.log.addFilter(_without_secrets)
    assets = [key.to_user_string() for key in run.asset_selection or ()]

    def observe(line: str, shown: Shown) -> None:
        context.log_event(
            dg.AssetObservation(
                asset_key=context.asset_key,
                partition=context.partition_key,
                description=withheld(line),
                metadata=metadata(shown),
            )
        )

    return Orchestrator(
        run=run.run_id,
        requested_by=run.tags.get(REQUESTED_BY_TAG, "Dagster UI"),
        log=context.log,
        stages=run.step_keys_to_execute or assets or STAGES,
        shares_process=steps_in_this_process(context) > 1,
        observe=observe,
        shield=capture_interrupts,
    )


def _without_secrets(record: logging.LogRecord) -> bool:
    """A filter of Dagster's log, whose lines its database keeps."""
    record.msg, record.args = withheld(record.getMessage()), None
    return True


def metadata(shown: Shown) -> Mapping[str, dg.MetadataValue]:
    """Values for people as Dagster's metadata."""
    return {name: _value(value) for name, value in shown.items()}


def _value(value: object) -> dg.MetadataValue:
    match value:
        case Markdown(text):
            return dg.MetadataValue.md(withheld(text))
        case Link(url):
            return dg.MetadataValue.url(url)
        case File(path):
            return dg.MetadataValue.path(path)
        case Json(content):
            return dg.MetadataValue.json(content)
        case bool():
            return dg.MetadataValue.bool(value)
        case int():
            return dg.MetadataValue.int(value)
        case float():
            return dg.MetadataValue.float(value)
        case _:
            return dg.MetadataValue.text(withheld(str(value)))


@contextmanager
def as_failure(model: str) -> Generator[None]:
    """Turn what a trial raises inside the block into a failed step: the UI shows a sentence instead of a traceback.

    Args:
        model: Name of the model.

    Raises:
        dagster.Failure: The trial ended, or the stage failed; the description says why. Dagster does not retry it.
    """
    try:
        yield
    except TrialEnded as ended:
        raise ended_at(ended) from ended.__cause__
    except LlmopsError as error:
        # Dagster keeps the cause, too.
        error.message, error.remedy = withheld(error.message), withheld(error.remedy)
        error.args = (error.message,)
        raise failure(model, error) from error


def failure(model: str, error: LlmopsError) -> dg.Failure:
    """The failure for an error that is no verdict on a release."""
    return dg.Failure(withheld(f"{model}: {error}"), metadata=error_metadata(error), allow_retries=False)


def error_metadata(error: LlmopsError) -> dict[str, str]:
    """Class and code of an error, for programs."""
    return {"error": kind_of(error), "code": error.code}


def ended_at(ended: TrialEnded) -> dg.Failure:
    """The failure for a trial that did not pass, or was refused."""
    record: Record = ended.record
    shown = {"release": record.release, "verdict": record.verdict, "reason": withheld(record.reason)}
    return dg.Failure(withheld(str(ended)), metadata=shown, allow_retries=False)
