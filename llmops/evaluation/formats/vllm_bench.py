"""Results of `vllm bench serve --save-result --save-detailed`.

Its figures have the names that llmops uses. The reader computes them from the requests, whose times are in seconds, and
checks the file's own against them: a file of a run without any answer has 0 ms.
"""

from __future__ import annotations

from llmops.evaluation.formats.reading import (
    Count,
    Files,
    Latency,
    Milliseconds,
    Part,
    Reading,
    Seconds,
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

NAME = "vllm-bench"
RESULTS = "vllm-bench.json"
MILLISECONDS = 1000.0


class _File(Part):
    backend: str
    endpoint_type: str
    num_prompts: Count
    duration: Seconds
    completed: Count
    failed: Count
    total_input_tokens: Count
    total_output_tokens: Count
    request_throughput: Seconds
    output_throughput: Seconds
    total_token_throughput: Seconds
    mean_ttft_ms: Milliseconds
    mean_tpot_ms: Milliseconds
    mean_itl_ms: Milliseconds
    mean_e2el_ms: Milliseconds
    output_lens: tuple[Count, ...]
    ttfts: tuple[Seconds, ...]
    itls: tuple[tuple[Seconds, ...], ...]
    latencies: tuple[Seconds, ...]
    errors: tuple[str, ...]


def parse(files: Files) -> Reading:
    """Read the results of one run.

    Raises:
        MeasurementFailed: They are incomplete, not of `vllm bench serve`, or of a run without any answer.
    """
    name, content = only(files, RESULTS)
    run = read(_File, name, content, "results file of vllm bench serve with details (--save-detailed)")
    details = (run.output_lens, run.ttfts, run.itls, run.latencies, run.errors)
    if any(len(values) != run.num_prompts for values in details):
        why = f"has details of {len(run.errors)} requests, and num_prompts is {run.num_prompts}"
        refuse(name, "ResultsInconsistent", why)
    good = [index for index, error in enumerate(run.errors) if not error]
    if len(good) != run.completed or run.failed != run.num_prompts - run.completed:
        stated = f"states {run.completed} completed and {run.failed} failed requests"
        why = f"{stated}, and has details of {len(good)} completed ones"
        refuse(name, "ResultsInconsistent", why)
    engines, unmeasured = split_errors(error for error in run.errors if error)
    if not good and not engines:
        refuse(name, "NothingMeasured", f"no request was measured: {unmeasured[0] if unmeasured else 'none was sent'}")
    samples = _samples(run, good)
    figures: dict[str, float] = {}
    for figure, count in (("completed", len(good)), ("failed", len(engines)), ("unmeasured", len(unmeasured))):
        put(figures, name, figure, float(count))
    put(figures, name, "error_rate", len(engines) / (len(good) + len(engines)))
    if good:
        put(figures, name, "request_throughput", run.request_throughput)
        put(figures, name, "output_throughput", run.output_throughput)
        put(figures, name, "total_token_throughput", run.total_token_throughput)
        _check(name, run, samples)
    for figure, value in latencies(samples).items():
        put(figures, name, figure, value)
    return Reading(
        tool="vllm bench serve",
        figures=figures,
        samples={kind: values for kind, values in samples.items() if values},
        errors=tally(engines),
        unmeasured=tally(unmeasured),
    )


def _samples(run: _File, good: list[int]) -> dict[Latency, tuple[float, ...]]:
    """Times of the completed requests, in milliseconds."""
    return {
        "ttft": tuple(run.ttfts[index] * MILLISECONDS for index in good),
        "tpot": tuple(
            (run.latencies[index] - run.ttfts[index]) * MILLISECONDS / (run.output_lens[index] - 1)
            for index in good
            if run.output_lens[index] > 1
        ),
        "itl": tuple(gap * MILLISECONDS for index in good for gap in run.itls[index]),
        "e2el": tuple(run.latencies[index] * MILLISECONDS for index in good),
    }


def _check(name: str, run: _File, samples: dict[Latency, tuple[float, ...]]) -> None:
    """Check the file's means against its requests, and its throughputs against counts and duration."""
    means = (run.mean_ttft_ms, run.mean_tpot_ms, run.mean_itl_ms, run.mean_e2el_ms)
    for kind, in_file in zip(("ttft", "tpot", "itl", "e2el"), means, strict=True):
        # Without samples, the file has 0.
        computed = mean(samples[kind]) if samples[kind] else 0.0
        if not same(in_file, computed):
            refuse(name, "ResultsInconsistent", f"mean_{kind}_ms is {in_file}, and {computed} over its requests")
    if not run.duration:
        refuse(name, "ResultsInconsistent", "took no time")
    if sum(run.output_lens) != run.total_output_tokens:
        why = f"has {sum(run.output_lens)} output tokens in its requests, of {run.total_output_tokens}"
        refuse(name, "ResultsInconsistent", why)
    tokens = run.total_input_tokens + run.total_output_tokens
    for figure, value, count in (
        ("request_throughput", run.request_throughput, run.completed),
        ("output_throughput", run.output_throughput, run.total_output_tokens),
        ("total_token_throughput", run.total_token_throughput, tokens),
    ):
        if not same(value, count / run.duration):
            why = f"{figure} is {value}, and {count} in {run.duration} s are {count / run.duration}"
            refuse(name, "ResultsInconsistent", why)


TOOL = Tool(
    name=NAME,
    program=("vllm", "bench", "serve"),
    saving=(
        *("--save-result", "--save-detailed", "--percentile-metrics", "ttft,tpot,itl,e2el"),
        *("--result-dir", RESULTS_PLACE, "--result-filename", RESULTS),
    ),
    reserved=(
        *("--save-result", "--save-detailed", "--append-result", "--result-dir", "--result-filename"),
        "--percentile-metrics",
    ),
    patterns=(RESULTS,),
    parse=parse,
    environment={"VLLM_NO_USAGE_STATS": "1"},
)
