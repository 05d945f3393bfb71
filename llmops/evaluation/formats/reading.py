"""What a tool's results say, whichever tool it was, and what all readers of results files have in common. Pure."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from llmops.config.catalog.spec import Strict
from llmops.errors import MeasurementFailed
from llmops.evaluation.statistics import summary

Latency = Literal["ttft", "tpot", "itl", "e2el"]
Files = Mapping[str, bytes]
"""Results files by their names, without folders."""

SAME = 1e-6
"""How far, relatively, a figure may be from the one computed of its cases: what rounding in another order makes."""
ERRORS_SHOWN = 3
ERROR_LENGTH = 160


class Reading(Strict):
    """What one run of a tool measured.

    Args:
        tool: Name and version of the tool that wrote the files.
        figures: By name, without the suite's. Rates and scores are shares, times are in milliseconds.
        scores: Figure -> case -> score, of each figure that is a mean over cases, 0 to 1, of which more is better.
        samples: Milliseconds of each request, of a tool that measures load.
        answers: Case -> what was answered.
        cases: How many cases were asked; 0 of a tool that measures load.
        errors: What the engine did instead of answering -> how often.
        unmeasured: What kept requests from being measured (no connection, 429) -> how often.
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
    """A part of a results file, of which only the fields that are named are read. Nothing is converted."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Milliseconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]

PartType = TypeVar("PartType", bound=Part)


def refuse(name: str, why: str, remedy: str = "") -> NoReturn:
    """Say that a results file is no measurement.

    Raises:
        MeasurementFailed: Always.
    """
    raise MeasurementFailed(f"{name}: {why}", remedy=remedy)


def read(kind: type[PartType], name: str, content: bytes, what: str) -> PartType:
    """The content of a results file, as JSON.

    Args:
        kind: What it has to be.
        name: The file's name, for errors.
        content: Its bytes.
        what: What it has to be, in words.

    Raises:
        MeasurementFailed: It is empty, cut off, or something else.
    """
    if not content.strip():
        refuse(name, "is empty")
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, item['loc'])) or 'the file'}: {item['msg']}" for item in error.errors()]
        more = f" and {len(problems) - ERRORS_SHOWN} more" if len(problems) > ERRORS_SHOWN else ""
        refuse(name, f"is no {what}: {'; '.join(problems[:ERRORS_SHOWN])}{more}")


def only(files: Files, what: str) -> tuple[str, bytes]:
    """The one file that there has to be.

    Raises:
        MeasurementFailed: There is none, or there are several.
    """
    if not files:
        refuse(what, "was not written")
    if len(files) > 1:
        refuse(what, f"is not one file but {len(files)}: {', '.join(sorted(files))}")
    return next(iter(files.items()))


def check_version(name: str, tool: str, version: str, *known: str) -> None:
    """Refuse files of a version whose format is not known.

    Args:
        name: The file's name.
        tool: The tool's name.
        version: Its version, as the file says.
        known: Starts of the versions that can be read, such as `0.4.`.

    Raises:
        MeasurementFailed: It is none of them.
    """
    if not version.startswith(known):
        readable = " and ".join(f"{start}x" for start in known)
        refuse(name, f"is of {tool} {version}; {readable} can be read", f"Use {tool} {readable}.")


def figure_name(*parts: str) -> str:
    """A figure's name as gates write it: lower case, parts joined by dots, what may not stand in it as `_`."""
    return ".".join(re.sub(r"[^a-z0-9_.-]+", "_", part.lower()) for part in parts if part)


def put(figures: dict[str, float], name: str, figure: str, value: float) -> None:
    """Add a figure.

    Raises:
        MeasurementFailed: It is no number, or there is another one of that name.
    """
    if not math.isfinite(value):
        refuse(name, f"{figure} is {value}")
    if figure in figures:
        refuse(name, f"has two figures that are both called {figure}")
    figures[figure] = value


def mean(values: Iterable[float]) -> float:
    """The mean of one value or more."""
    known = list(values)
    return math.fsum(known) / len(known)


def same(one: float, other: float, tolerance: float = SAME) -> bool:
    """Whether two figures are the same but for rounding."""
    return math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance)


def latencies(samples: Mapping[Latency, Iterable[float]]) -> dict[str, float]:
    """Figures of latencies, as a load profile names them: `p95_ttft_ms`."""
    return {
        f"{statistic}_{kind}_ms": value
        for kind, values in samples.items()
        for statistic, value in summary(list(values)).items()
    }


def tally(errors: Iterable[str]) -> dict[str, int]:
    """Errors by their first line, shortened."""
    return dict(Counter(error.strip().partition("\n")[0][:ERROR_LENGTH] for error in errors))


def split_errors(errors: Iterable[str]) -> tuple[list[str], list[str]]:
    """Errors that are the engine's doing, and those that are not known to be: no connection, 429, the tool's own.

    A release is rejected for what its engine did alone, so that the engine has to have been reached.
    """
    judged = [(error, _is_engines(error)) for error in errors]
    return [error for error, is_ in judged if is_], [error for error, is_ in judged if not is_]


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
