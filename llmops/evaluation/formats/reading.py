"""What every tool's results come to, and what the readers of results files share. Pure."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Annotated, Literal, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from llmops.config.catalog.spec import Strict
from llmops.config.words import in_words
from llmops.errors import MeasurementFailed
from llmops.evaluation.statistics import summary
from llmops.worker.foreign import BadBytes, check_json

Latency = Literal["ttft", "tpot", "itl", "e2el"]
Files = Mapping[str, bytes]
"""Results files by their names, without folders."""

LONGEST = 256 << 20
"""Bytes of a file. Most of it are texts, which are skipped."""
CONTAINERS = 1_000_000
VALUES = 5_000_000
"""A file of a load has a value for each token: 5,000 answers of 1,000 tokens."""
SAME = 1e-6
"""Relative difference that rounding may make between a figure and the one computed from its cases."""
ERRORS_SHOWN = 3
ERROR_LENGTH = 160


class Reading(Strict):
    """What one run of a tool measured.

    Args:
        tool: Name and version of the tool that wrote the files.
        figures: Figures by name, without the suite's name. Rates and scores are shares, times are in milliseconds.
        scores: Figure -> case -> score, 0 to 1, of each figure that is a mean over cases and better when higher.
        samples: Milliseconds of each request, if the tool measures load.
        answers: Case -> answer.
        cases: How many cases the tool asked; 0 if it measures load.
        errors: Errors of the engine -> how often.
        unmeasured: Errors that tell nothing about the engine (no connection, 429) -> how often.
    """

    tool: str
    figures: dict[str, FiniteFloat]
    scores: dict[str, dict[str, FiniteFloat]] = Field(default_factory=dict[str, dict[str, float]])
    samples: dict[Latency, tuple[FiniteFloat, ...]] = Field(default_factory=dict[Latency, tuple[float, ...]])
    answers: dict[str, str] = Field(default_factory=dict[str, str])
    cases: int = 0
    errors: dict[str, int] = Field(default_factory=dict[str, int])
    unmeasured: dict[str, int] = Field(default_factory=dict[str, int])


class Part(BaseModel):
    """A part of a results file. Unnamed fields are ignored, and no value is converted."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


Count = Annotated[int, Field(ge=0, le=1 << 53)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Milliseconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]

PartType = TypeVar("PartType", bound=Part)


Code = Literal[
    "ResultsMissing",
    "ResultsAmbiguous",  # several files where one is expected, or several values of one name
    "ResultsUnreadable",  # empty, cut off, damaged, or of another tool
    "ResultsInconsistent",  # figures contradict their cases, or counts each other
    "ResultsUnsupported",  # of a version or kind of run that llmops cannot take figures from
    "RunIncomplete",
    "NothingMeasured",
]
"""Why a results file is no measurement."""


def refuse(name: str, code: Code, why: str, remedy: str = "") -> NoReturn:
    """Refuse a results file as no measurement.

    Raises:
        MeasurementFailed: Always, about the file.
    """
    raise MeasurementFailed(f"{name}: {why}", code=code, about=name, remedy=remedy)


def read(kind: type[PartType], name: str, content: bytes, what: str) -> PartType:
    """The content of a results file, as JSON.

    Args:
        kind: The model of the content.
        name: The file's name, for errors.
        content: The file's bytes.
        what: The kind of file in words, for errors.

    Raises:
        MeasurementFailed: The file is empty, cut off, or of another kind.
    """
    if not content or content.isspace():
        refuse(name, "ResultsUnreadable", "is empty")
    try:
        check_json(content, longest=LONGEST, containers=CONTAINERS, values=VALUES)
        return kind.model_validate_json(content)
    except BadBytes as error:
        refuse(name, "ResultsUnreadable", f"is no {what}: {error}")
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, item['loc'])) or 'the file'} {in_words(item)}" for item in error.errors()]
        more = f" and {len(problems) - ERRORS_SHOWN} more" if len(problems) > ERRORS_SHOWN else ""
        refuse(name, "ResultsUnreadable", f"is no {what}: {'; '.join(problems[:ERRORS_SHOWN])}{more}")


def only(files: Files, what: str) -> tuple[str, bytes]:
    """The name and content of the one results file.

    Raises:
        MeasurementFailed: There is none, or there are several.
    """
    if not files:
        refuse(what, "ResultsMissing", "was not written")
    if len(files) > 1:
        refuse(what, "ResultsAmbiguous", f"is not one file but {len(files)}: {', '.join(sorted(files))}")
    return next(iter(files.items()))


def check_version(name: str, tool: str, version: str, *prefixes: str) -> None:
    """Refuse files of a version whose format is not known.

    Args:
        name: The file's name.
        tool: The tool's name.
        version: The tool's version, from the file.
        known: Prefixes of the known versions, such as `0.4.`.

    Raises:
        MeasurementFailed: The version has none of the prefixes.
    """
    if not version.startswith(prefixes):
        readable = " and ".join(f"{start}x" for start in prefixes)
        why = f"is of {tool} {version}, llmops reads {readable}"
        refuse(name, "ResultsUnsupported", why, f"Use {tool} {readable}.")


def figure_name(*parts: str) -> str:
    """A figure's name as gates write it: lower case, parts joined by dots, other characters replaced by `_`."""
    return ".".join(re.sub(r"[^a-z0-9_.-]+", "_", part.lower()) for part in parts if part)


def put(figures: dict[str, float], name: str, figure: str, value: float) -> None:
    """Add a figure.

    Raises:
        MeasurementFailed: The value is not finite, or another figure has that name.
    """
    if not math.isfinite(value):
        refuse(name, "ResultsUnreadable", f"{figure} is {value}")
    if figure in figures:
        refuse(name, "ResultsAmbiguous", f"has two figures of the name {figure}")
    figures[figure] = value


def number(name: str, what: str, value: object) -> float:
    """A value as a finite number.

    Raises:
        MeasurementFailed: It is none, or no float takes it.
    """
    if not isinstance(value, bool) and isinstance(value, int | float):
        with suppress(OverflowError):
            if math.isfinite(converted := float(value)):
                return converted
    refuse(name, "ResultsUnreadable", f"{what} is no number: {repr(value)[:ERROR_LENGTH]}")


def mean(values: Iterable[float]) -> float:
    """The mean of one value or more."""
    numbers = list(values)
    return math.fsum(numbers) / len(numbers)


def same(one: float, other: float, tolerance: float = SAME) -> bool:
    """Whether two figures differ by rounding at most."""
    return math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance)


def latencies(samples: Mapping[Latency, Iterable[float]]) -> dict[str, float]:
    """Figures of latencies, named as those of a load profile: `p95_ttft_ms`."""
    return {
        f"{statistic}_{kind}_ms": value
        for kind, values in samples.items()
        for statistic, value in summary(list(values)).items()
    }


def tally(errors: Iterable[str]) -> dict[str, int]:
    """Errors by their first line, shortened."""
    return dict(Counter(error.strip().partition("\n")[0][:ERROR_LENGTH] for error in errors))


def split_errors(errors: Iterable[str]) -> tuple[list[str], list[str]]:
    """Errors of the engine, and errors that tell nothing about it: no connection, 429, the tool's own.

    Only errors of an engine that was reached may reject a release.
    """
    of_engine: list[str] = []
    unmeasured: list[str] = []
    for error in errors:
        (of_engine if _is_engines(error) else unmeasured).append(error)
    return of_engine, unmeasured


def _is_engines(error: str) -> bool:
    return _UNMEASURED.search(error) is None and _ENGINES.search(error) is not None


_UNMEASURED = re.compile(
    r"\b429\b|too many requests|connection refused|ECONNREFUSED|cannot connect|connect ?error|connect ?timeout|"
    r"connection attempts failed|fetch failed|ENOTFOUND|EAI_AGAIN|name resolution|getaddrinfo",
    re.IGNORECASE,
)
_ENGINES = re.compile(
    r"\b[45]\d\d\b|internal server error|bad request|service unavailable|bad gateway|timed? ?out|disconnected|"
    r"reset by peer|connection (was )?closed|connection lost|socket hang up|incomplete|payload",
    re.IGNORECASE,
)
