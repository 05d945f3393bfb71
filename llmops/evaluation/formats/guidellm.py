"""Results of guidellm: the JSON file of `guidellm run --output kind=json`.

llmops uses the words of `vllm bench serve`, and guidellm uses others:

| guidellm | llmops |
|---|---|
| `time_to_first_token_ms` | `ttft` |
| `inter_token_latency_ms`: of a request, (last token - first token) / (tokens - 1) | `tpot` |
| `request_latency`, in seconds | `e2el` |
| `time_per_output_token_ms`: of a request, latency / tokens | not taken: it includes the first token |

guidellm keeps no time of single tokens: there is no `itl`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from llmops.evaluation.formats.reading import (
    Count,
    Files,
    Latency,
    Milliseconds,
    Part,
    Reading,
    Seconds,
    check_version,
    latencies,
    mean,
    only,
    put,
    read,
    refuse,
    same,
    split_errors,
    tally,
)
from llmops.evaluation.formats.tool import RESULTS_PLACE, Tool

NAME = "guidellm"
RESULTS = "guidellm.json"
MILLISECONDS = 1000.0


class _Metadata(Part):
    version: Literal[2]
    guidellm_version: str


class _Info(Part):
    error: str | None = None


class _Request(Part):
    request_latency: Seconds
    time_to_first_token_ms: Milliseconds
    inter_token_latency_ms: Milliseconds | None


class _Failed(Part):
    info: _Info


class _Requests(Part):
    successful: tuple[_Request, ...]
    errored: tuple[_Failed, ...]


class _Totals(Part):
    successful: Count
    errored: Count
    incomplete: Count
    total: Count


class _Distribution(Part):
    mean: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _ByStatus(Part):
    successful: _Distribution


class _Metrics(Part):
    request_totals: _Totals
    request_latency: _ByStatus
    time_to_first_token_ms: _ByStatus
    inter_token_latency_ms: _ByStatus
    requests_per_second: _ByStatus
    output_tokens_per_second: _ByStatus
    tokens_per_second: _ByStatus


class _Benchmark(Part):
    metrics: _Metrics
    requests: _Requests
    type_: Literal["generative_benchmark"]


class _File(Part):
    metadata: _Metadata
    benchmarks: Annotated[tuple[_Benchmark, ...], Field(min_length=1)]


def parse(files: Files) -> Reading:
    """Read the results of one benchmark at one load.

    Raises:
        MeasurementFailed: They are incomplete, not guidellm's, of several loads, or of a run without any answer.
    """
    name, content = only(files, RESULTS)
    file = read(_File, name, content, "results file of guidellm")
    check_version(name, NAME, file.metadata.guidellm_version, "0.8.")
    benchmark, *others = file.benchmarks
    if others:
        why = f"has {len(file.benchmarks)} benchmarks"
        refuse(name, "ResultsUnsupported", why, "Measure one load per suite: no sweep, one rate.")
    metrics, totals, requests = benchmark.metrics, benchmark.metrics.request_totals, benchmark.requests
    if (len(requests.successful), len(requests.errored)) != (totals.successful, totals.errored):
        refuse(
            name,
            "ResultsInconsistent",
            f"has details of {len(requests.successful)} of {totals.successful} successful requests and of "
            f"{len(requests.errored)} of {totals.errored} failed ones",
            "Leave out sample_size.",
        )
    engines, unmeasured = split_errors(request.info.error or "no message" for request in requests.errored)
    good = requests.successful
    if not good and not engines:
        refuse(name, "NothingMeasured", f"no request was measured: {unmeasured[0] if unmeasured else 'none was sent'}")
    samples: dict[Latency, tuple[float, ...]] = {
        "ttft": tuple(request.time_to_first_token_ms for request in good),
        "tpot": tuple(gap for request in good if (gap := request.inter_token_latency_ms) is not None),
        "e2el": tuple(request.request_latency * MILLISECONDS for request in good),
    }
    figures: dict[str, float] = {}
    for figure, count in (("completed", len(good)), ("failed", len(engines)), ("unmeasured", len(unmeasured))):
        put(figures, name, figure, float(count))
    put(figures, name, "error_rate", len(engines) / (len(good) + len(engines)))
    if good:
        _check(name, metrics, samples)
        put(figures, name, "request_throughput", metrics.requests_per_second.successful.mean)
        put(figures, name, "output_throughput", metrics.output_tokens_per_second.successful.mean)
        put(figures, name, "total_token_throughput", metrics.tokens_per_second.successful.mean)
    for figure, value in latencies(samples).items():
        put(figures, name, figure, value)
    return Reading(
        tool=f"{NAME} {file.metadata.guidellm_version}",
        figures=figures,
        samples={kind: values for kind, values in samples.items() if values},
        errors=tally(engines),
        unmeasured=tally(unmeasured),
    )


def _check(name: str, metrics: _Metrics, samples: dict[Latency, tuple[float, ...]]) -> None:
    """Check the file's means against those of its requests."""
    for figure, in_file, computed in (
        ("time_to_first_token_ms", metrics.time_to_first_token_ms.successful.mean, mean(samples["ttft"])),
        (
            "inter_token_latency_ms",
            metrics.inter_token_latency_ms.successful.mean,
            mean(samples["tpot"]) if samples["tpot"] else 0.0,
        ),
        ("request_latency", metrics.request_latency.successful.mean, mean(samples["e2el"]) / MILLISECONDS),
    ):
        if not same(in_file, computed):
            why = f"{figure} is {in_file} on average, and {computed} over its requests"
            refuse(name, "ResultsInconsistent", why)


TOOL = Tool(
    name=NAME,
    program=("guidellm", "run"),
    saving=("--output", f"kind=json,path={RESULTS_PLACE}/{RESULTS}", "--disable-console"),
    reserved=("--output", "--disable-console"),
    patterns=(RESULTS,),
    parse=parse,
)
