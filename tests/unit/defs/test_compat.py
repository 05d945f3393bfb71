"""Every private name of Dagster that llmops uses exists and works as llmops expects."""

import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

import llmops
from llmops.defs import compat

PACKAGE = Path(llmops.__file__).parent


def _asset_job() -> None:
    assert type(dg.define_asset_job("some")) is compat.AssetJob


def _error_source() -> None:
    """The source of the error of a step that Ctrl-C interrupts."""

    @dg.op
    def interrupted() -> None:
        raise KeyboardInterrupt

    @dg.job(executor_def=dg.in_process_executor)
    def some() -> None:
        interrupted()

    result = some.execute_in_process(raise_on_error=False)
    (failed,) = (event for event in result.all_events if event.event_type_value == "STEP_FAILURE")
    assert failed.step_failure_data.error_source == compat.ErrorSource.INTERRUPT


def _interrupts() -> None:
    """Signals do not interrupt the block."""
    done = 0
    with compat.capture_interrupts():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
            done += 1
    assert done == 3


def _steps() -> None:
    seen: list[int] = []

    @dg.op(out=dg.Out(dg.Nothing))
    def first(context: dg.OpExecutionContext) -> None:
        seen.append(compat.steps_in_this_process(context))

    @dg.op(ins={"after": dg.In(dg.Nothing)})
    def second(context: dg.OpExecutionContext) -> None:
        seen.append(compat.steps_in_this_process(context))

    @dg.job(executor_def=dg.in_process_executor)
    def some() -> None:
        second(first())

    some.execute_in_process()
    assert seen == [2, 2]


def _not_executed() -> None:
    """The lines, without events, that a logger gets for the steps after a failed one."""
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            meta = getattr(record, "dagster_meta", {})
            if meta.get("dagster_event") is None:
                lines.append(str(meta.get("orig_message")))

    def logger(_: dg.InitLoggerContext) -> logging.Logger:
        logger = logging.Logger("some")
        logger.addHandler(Lines())
        return logger

    @dg.op(out=dg.Out(int, is_required=False), config_schema={"fails": bool})
    def first(context: dg.OpExecutionContext) -> Iterator[dg.Output[int]]:
        if context.op_config["fails"]:
            raise dg.Failure("no")
        yield from ()

    @dg.op
    def second(first: int) -> int:
        return first

    @dg.op
    def third(second: int) -> None:
        pass

    @dg.job(executor_def=dg.in_process_executor, logger_defs={"some": dg.LoggerDefinition(logger)})
    def some() -> None:
        third(second(first()))

    for fails in (True, False):
        ops = {"first": {"config": {"fails": fails}}}
        some.execute_in_process(raise_on_error=False, run_config={"loggers": {"some": {}}, "ops": ops})
    assert len(lines) == 4
    assert all(compat.NOT_EXECUTED.fullmatch(line) for line in lines), lines


def _unfinished() -> None:
    """A run is finished by success, failure or cancellation alone. Dagster gives no run the status MANAGED any more."""
    ends = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}
    assert set(compat.NOT_FINISHED_STATUSES) == set(dg.DagsterRunStatus) - ends - {dg.DagsterRunStatus.MANAGED}


def _partition_tag() -> None:
    assert compat.PARTITION_NAME_TAG == "dagster/partition"


def _run_key_tag() -> None:
    assert compat.RUN_KEY_TAG == "dagster/run_key"


def _tick_status() -> None:
    assert {status.value for status in compat.TickStatus} >= {"SUCCESS", "SKIPPED", "FAILURE"}


def _ticks() -> None:
    """A sensor's state and its ticks, as the instance keeps them."""
    assert {"selector_id", "origin", "status", "instigator_type"} <= set(dir(compat.InstigatorState))
    assert {"timestamp", "status", "error"} <= set(dir(compat.InstigatorTick))


CONTRACT: dict[str, Callable[[], None]] = {
    "InstigatorState": _ticks,
    "InstigatorTick": _ticks,
    "NOT_FINISHED_STATUSES": _unfinished,
    "PARTITION_NAME_TAG": _partition_tag,
    "RUN_KEY_TAG": _run_key_tag,
    "TickStatus": _tick_status,
    "AssetJob": _asset_job,
    "NOT_EXECUTED": _not_executed,
    "ErrorSource": _error_source,
    "capture_interrupts": _interrupts,
    "steps_in_this_process": _steps,
}


def test_every_name_has_a_contract() -> None:
    assert set(CONTRACT) == set(compat.__all__), "a name of llmops.defs.compat has no contract here"


@pytest.mark.parametrize("name", CONTRACT)
def test_dagster_keeps_the_contract(name: str) -> None:
    try:
        CONTRACT[name]()
    except Exception as error:  # noqa: BLE001 - any error must name the private name that broke
        pytest.fail(f"Dagster {dg.__version__} has changed llmops.defs.compat.{name}: {error!r}")


def test_no_other_module_imports_private_names_of_dagster() -> None:
    asking = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if "dagster._" in path.read_text()}
    assert asking == {"defs/compat.py"}
