"""Results of promptfoo: the JSON file of `promptfoo eval --output`.

A case is one test with one prompt; promptfoo scores it from 0 to 1. `pass_rate` is the share of cases whose assertions
all hold.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from llmops.evaluation.formats.reading import (
    Count,
    Files,
    Part,
    Reading,
    Share,
    check_version,
    mean,
    only,
    put,
    read,
    refuse,
    split_errors,
    tally,
)
from llmops.evaluation.formats.tool import RESULTS_PLACE, Tool

NAME = "promptfoo"
RESULTS = "promptfoo.json"
ERROR = 2
"""The `failureReason` of a case without a decision. 0 is no failure, 1 a failed assertion."""


class _Response(Part):
    output: object = ""


class _Case(Part):
    test: int = Field(alias="testIdx")
    prompt: int = Field(alias="promptIdx")
    score: Share
    success: bool
    reason: Literal[0, 1, 2] = Field(alias="failureReason")
    error: str | None = None
    response: _Response | None = None

    @property
    def id(self) -> str:
        return f"{self.test}/{self.prompt}"


class _Stats(Part):
    successes: Count
    failures: Count
    errors: Count


class _Prompt(Part):
    provider: str


class _Results(Part):
    version: Literal[3]
    results: tuple[_Case, ...] = Field(min_length=1)
    stats: _Stats
    prompts: tuple[_Prompt, ...] = Field(min_length=1)


class _Metadata(Part):
    version: str = Field(alias="promptfooVersion")


class _File(Part):
    results: _Results
    metadata: _Metadata


def parse(files: Files) -> Reading:
    """Read the results of one run, of one provider.

    Raises:
        MeasurementFailed: They are incomplete, not promptfoo's, or of several providers.
    """
    name, content = only(files, RESULTS)
    file = read(_File, name, content, "results file of promptfoo")
    check_version(name, NAME, file.metadata.version, "0.1")
    results, stats = file.results, file.results.stats
    if len(providers := {prompt.provider for prompt in results.prompts}) > 1:
        why = f"has results of {len(providers)} providers"
        refuse(name, "ResultsUnsupported", why, "Give one provider: the engine.")
    cases = {case.id: case for case in results.results}
    if len(cases) != len(results.results):
        refuse(name, "ResultsUnsupported", "has results of the same test and prompt twice", "Leave out --repeat.")
    errors = [case for case in results.results if case.reason == ERROR]
    decided = {case.id: case for case in results.results if case.reason != ERROR}
    passed = [case for case in decided.values() if case.success]
    counted = (len(passed), len(decided) - len(passed), len(errors))
    if counted != (stats.successes, stats.failures, stats.errors):
        stated = (stats.successes, stats.failures, stats.errors)
        why = f"states {stated} cases that passed, failed and had errors, and has {counted}"
        refuse(name, "ResultsInconsistent", why)
    engines, unmeasured = split_errors(case.error or "no message" for case in errors)
    if not decided and not engines:
        refuse(name, "NothingMeasured", f"no case was measured: {unmeasured[0]}")
    figures: dict[str, float] = {}
    if decided:
        put(figures, name, "score", mean(case.score for case in decided.values()))
        put(figures, name, "pass_rate", len(passed) / len(decided))
    put(figures, name, "error_rate", len(engines) / (len(decided) + len(engines)))
    return Reading(
        tool=f"{NAME} {file.metadata.version}",
        figures=figures,
        scores={"score": {case_id: case.score for case_id, case in decided.items()}} if decided else {},
        answers={case_id: _text(case) for case_id, case in decided.items()},
        cases=len(cases),
        errors=tally(engines),
        unmeasured=tally(unmeasured),
    )


def _text(case: _Case) -> str:
    return str(case.response.output) if case.response else ""


TOOL = Tool(
    name=NAME,
    program=("promptfoo", "eval"),
    saving=(
        *("--output", f"{RESULTS_PLACE}/{RESULTS}"),
        *("--no-cache", "--no-progress-bar", "--no-table", "--no-share"),
    ),
    reserved=("--output", "-o", "--share", "--watch", "-w", "--repeat"),
    patterns=(RESULTS,),
    parse=parse,
    environment={
        "PROMPTFOO_DISABLE_TELEMETRY": "1",
        "PROMPTFOO_DISABLE_UPDATE": "1",
        "PROMPTFOO_DISABLE_REMOTE_GENERATION": "1",
        # A failed case is a result, and no failure of the run.
        "PROMPTFOO_FAILED_TEST_EXIT_CODE": "0",
    },
)
