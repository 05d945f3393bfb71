"""Back to a release that served before: the same promotion, without a trial."""

import dagster as dg

from llmops.errors import BadInput
from llmops.preflight.snapshot import take_snapshot
from llmops.preflight.strategy import choose_strategy
from llmops.releases.records import Records
from llmops.stages.platform import Platform
from llmops.stages.promotion import promote
from llmops.stages.trial import trial

JOB = "rollback"


class RollbackConfig(dg.Config):
    """Which model goes back, and where to."""

    model: str
    """Name of the model."""
    to: str | None = None
    """Id of the release; None is the one that served before."""


def choose_target(records: Records, model: str, to: str | None) -> str:
    """The release that a rollback goes to.

    Raises:
        BadInput: There is none, it serves already, or it never passed.
    """
    state = records.state(model)
    target = to or state.previous
    if target is None:
        raise BadInput(
            f"{model}: no release served before {state.stable or 'now'}", remedy=f"See `llmops history {model}`."
        )
    if target == state.stable:
        raise BadInput(f"{model}: {target} serves already")
    release = records.release(model, target)
    record = records.record(model, target)
    if record is None or record.verdict != "Passed":
        what = f"{record.verdict}: {record.reason}" if record else "it was never tried to its end"
        raise BadInput(f"{model}: {target} is no release to go back to ({what})")
    if records.verified_weights(model, release.weights.key) is None:
        raise BadInput(
            f"{model}: the weights of {target} are no longer on the volume",
            remedy=f"`llmops rollout {model} --revision {release.weights.commit} --engine-version "
            f"{release.engine.tag.removeprefix('v')}` brings them back.",
        )
    return target


@dg.op(description="Moves the main Deployment back to a release that served before.")
def roll_back(context: dg.OpExecutionContext, platform: Platform, config: RollbackConfig) -> None:
    """Promote a release that has passed its trial before."""
    with trial(context, platform, "promotion", model=config.model, judged=False) as current:
        target = choose_target(platform.records, config.model, config.to)
        replaced = platform.records.state(config.model).stable
        release = current.load(target)
        choice = choose_strategy(current.spec, take_snapshot(current.cluster, current.spec, current.settings))
        promote(current, release, surge=choice.strategy != "in-place")
        current.end()
        current.announce("RolledBack", f"{config.model} rolled back to {target} from {replaced}")


@dg.job(name=JOB, executor_def=dg.in_process_executor)
def rollback_job() -> None:
    """Takes a model back to a release that served before."""
    roll_back()
