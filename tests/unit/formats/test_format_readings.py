"""Figures, scores and samples of real results files, and every file that is no measurement."""

from __future__ import annotations

import io
import json
import statistics
import zipfile
from collections.abc import Callable
from typing import Any

import pytest

from llmops.errors import MeasurementFailed
from llmops.evaluation.formats import TOOLS, ToolName
from llmops.evaluation.formats.reading import Files, Reading, figure_name, split_errors

Written = Callable[[str], Files]

LM_EVAL, INSPECT, PROMPTFOO = "lm-eval-0.4.13", "inspect-ai-0.3.285", "promptfoo-0.121.20"
VLLM, GUIDELLM = "vllm-bench-0.32.0", "guidellm-0.8.1"
GOOD: dict[str, ToolName] = {
    f"{LM_EVAL}/one-task": "lm-eval",
    f"{LM_EVAL}/two-tasks": "lm-eval",
    f"{LM_EVAL}/choice": "lm-eval",
    f"{INSPECT}/eval": "inspect-ai",
    f"{INSPECT}/json": "inspect-ai",
    f"{PROMPTFOO}/good": "promptfoo",
    f"{VLLM}/good": "vllm-bench",
    f"{GUIDELLM}/good": "guidellm",
}


def parse(tool: ToolName, files: Files) -> Reading:
    return TOOLS[tool].parse(files)


def test_one_task_has_its_metric_by_case(written: Written) -> None:
    reading = parse("lm-eval", written(f"{LM_EVAL}/one-task"))
    assert reading.tool == "lm-eval 0.4.13"
    assert reading.figures == {"exact_match": pytest.approx(11 / 12), "error_rate": 0.0}
    assert reading.cases == 12
    assert [case for case, score in reading.scores["exact_match"].items() if score < 1] == ["sums/8"]
    assert reading.answers["sums/0"] == "85"


def test_several_tasks_and_filters_have_names_of_their_own(written: Written) -> None:
    reading = parse("lm-eval", written(f"{LM_EVAL}/two-tasks"))
    assert reading.figures == {
        "sums.exact_match": pytest.approx(11 / 12),
        "sums-filters.exact_match.strict-match": pytest.approx(11 / 12),
        "sums-filters.exact_match.flexible-extract": pytest.approx(10 / 12),
        "error_rate": 0.0,
    }
    assert reading.cases == 24
    assert reading.scores == {}, "no metric is one of both tasks"


def test_the_real_vllm_was_asked_for_log_probabilities(written: Written) -> None:
    reading = parse("lm-eval", written(f"{LM_EVAL}/choice"))
    assert reading.figures == {"acc": pytest.approx(5 / 6), "acc_norm": pytest.approx(4 / 6), "error_rate": 0.0}
    assert len(reading.scores["acc_norm"]) == 6


def test_a_limit_is_the_suites_choice_and_half_a_task_is_not(written: Written) -> None:
    files = dict(written(f"{LM_EVAL}/limited"))
    assert parse("lm-eval", files).cases == 4
    (name,) = [name for name in files if name.startswith("results_")]
    content = json.loads(files[name])
    content["config"]["limit"] = None
    with pytest.raises(MeasurementFailed, match="4 of 12") as raised:
        parse("lm-eval", {**files, name: json.dumps(content).encode()})
    assert (raised.value.code, raised.value.about) == ("RunIncomplete", name)


@pytest.mark.parametrize("form", ["eval", "json"])
def test_a_log_of_inspect_says_the_same_in_both_forms(written: Written, form: str) -> None:
    reading = parse("inspect-ai", written(f"{INSPECT}/{form}"))
    assert reading.tool == "inspect-ai 0.3.285"
    assert reading.figures == {
        "exact.mean": pytest.approx(11 / 12),
        "includes.accuracy": pytest.approx(11 / 12),
        "error_rate": 0.0,
    }
    assert reading.scores["includes.accuracy"] == reading.scores["exact.mean"]
    assert reading.scores["exact.mean"]["add-carry"] == 1.0
    assert reading.cases == len(reading.scores["exact.mean"]) == 12


@pytest.mark.parametrize(("form", "shown"), [("failed", "InternalServerError"), ("errors-tolerated", "task sums")])
def test_a_run_of_inspect_that_failed_is_no_measurement(written: Written, form: str, shown: str) -> None:
    with pytest.raises(MeasurementFailed, match=shown) as raised:
        parse("inspect-ai", written(f"{INSPECT}/{form}"))
    assert raised.value.code == "RunIncomplete"


def test_samples_of_inspect_that_failed_are_no_measurement(written: Written) -> None:
    (content,) = written(f"{INSPECT}/json").values()
    log = json.loads(content)
    log["results"]["completed_samples"] = 9
    with pytest.raises(MeasurementFailed, match="9 of 12") as raised:
        parse("inspect-ai", {"log.json": json.dumps(log).encode()})
    assert (raised.value.code, raised.value.about) == ("RunIncomplete", "log.json")


def test_an_older_zip_and_a_damaged_one(written: Written) -> None:
    (content,) = written(f"{INSPECT}/eval").values()
    (log,) = (json.loads(text) for text in written(f"{INSPECT}/json").values())
    older = io.BytesIO()
    with zipfile.ZipFile(older, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("reductions.json", json.dumps(log.pop("reductions")))
        archive.writestr("header.json", json.dumps(log))
    assert parse("inspect-ai", {"log.eval": older.getvalue()}).figures["exact.mean"] == pytest.approx(11 / 12)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        start = archive.getinfo("reductions.json").header_offset
    damaged = bytearray(content)
    damaged[start + 60] ^= 0xFF
    with pytest.raises(MeasurementFailed, match=r"reductions\.json") as raised:
        parse("inspect-ai", {"log.eval": bytes(damaged)})
    assert raised.value.code == "ResultsUnreadable"


def test_promptfoo_scores_cases_and_counts_errors_apart(written: Written) -> None:
    reading = parse("promptfoo", written(f"{PROMPTFOO}/good"))
    assert reading.tool == "promptfoo 0.121.20"
    assert reading.figures == {"score": pytest.approx(2 / 3), "pass_rate": pytest.approx(2 / 3), "error_rate": 0.0}
    assert reading.scores["score"] == {"0/0": 1.0, "1/0": 1.0, "2/0": 0.0}
    assert reading.answers["2/0"] == "7575"
    broken = parse("promptfoo", written(f"{PROMPTFOO}/broken"))
    assert broken.figures == {"error_rate": 1.0}, "no answer is no score of 0"
    assert broken.errors == {"API error: 500 Internal Server Error": 3}
    with pytest.raises(MeasurementFailed, match="fetch failed") as raised:
        parse("promptfoo", written(f"{PROMPTFOO}/away"))
    assert raised.value.code == "NothingMeasured"


def test_a_reading_of_vllm_bench_has_the_figures_of_its_file(written: Written) -> None:
    (content,) = written(f"{VLLM}/good").values()
    file = json.loads(content)
    reading = parse("vllm-bench", written(f"{VLLM}/good"))
    names = [
        f"{statistic}_{kind}_ms"
        for statistic in ("mean", "median", "std", "p50", "p90", "p95", "p99")
        for kind in ("ttft", "tpot", "itl", "e2el")
    ]
    for name in (*names, "request_throughput", "output_throughput", "total_token_throughput", "completed"):
        assert reading.figures[name] == pytest.approx(file[name]), name
    assert reading.figures["error_rate"] == 0.0
    assert len(reading.samples["ttft"]) == 16
    assert statistics.fmean(reading.samples["e2el"]) == pytest.approx(file["mean_e2el_ms"]), "milliseconds"


def test_figures_of_guidellm_get_the_names_of_vllm_bench(written: Written) -> None:
    (content,) = written(f"{GUIDELLM}/good").values()
    metrics = json.loads(content)["benchmarks"][0]["metrics"]
    reading = parse("guidellm", written(f"{GUIDELLM}/good"))
    assert reading.figures["mean_ttft_ms"] == pytest.approx(metrics["time_to_first_token_ms"]["successful"]["mean"])
    assert reading.figures["mean_tpot_ms"] == pytest.approx(metrics["inter_token_latency_ms"]["successful"]["mean"])
    assert reading.figures["mean_e2el_ms"] == pytest.approx(1000 * metrics["request_latency"]["successful"]["mean"])
    assert reading.figures["median_e2el_ms"] == pytest.approx(
        1000 * metrics["request_latency"]["successful"]["median"], rel=0.05
    )
    assert reading.figures["request_throughput"] == pytest.approx(metrics["requests_per_second"]["successful"]["mean"])
    assert "itl" not in reading.samples
    assert len(reading.samples["ttft"]) == 12


@pytest.mark.parametrize("folder", GOOD)
def test_an_empty_cut_off_or_foreign_file_is_no_measurement(written: Written, folder: str) -> None:
    tool, files = GOOD[folder], written(folder)
    (name, *_) = sorted(files)
    for content in (
        b"",
        b"\n",
        b"null",
        b"[]",
        b"{}",
        b"not JSON",
        files[name][: len(files[name]) // 2],
        files[name][:-2],
    ):
        with pytest.raises(MeasurementFailed) as raised:
            parse(tool, {**files, name: content})
        assert name in raised.value.message
    with pytest.raises(MeasurementFailed):
        parse(tool, {})
    for other in TOOLS:
        if other != tool:
            with pytest.raises(MeasurementFailed):
                parse(other, files)


VERSIONS: dict[str, tuple[str, ...]] = {
    f"{LM_EVAL}/one-task": ("lm_eval_version",),
    f"{INSPECT}/json": ("eval", "packages", "inspect_ai"),
    f"{PROMPTFOO}/good": ("metadata", "promptfooVersion"),
    f"{GUIDELLM}/good": ("metadata", "guidellm_version"),
}


@pytest.mark.parametrize("folder", VERSIONS)
def test_a_file_of_another_version_is_not_guessed_at(written: Written, folder: str) -> None:
    files = dict(written(folder))
    name = sorted(files)[0]
    content = json.loads(files[name])
    node: Any = content
    *path, last = VERSIONS[folder]
    for part in path:
        node = node[part]
    node[last] = "7.0.1"
    with pytest.raises(MeasurementFailed, match=r"7\.0\.1") as raised:
        parse(GOOD[folder], {**files, name: json.dumps(content).encode()})
    assert (raised.value.code, raised.value.about) == ("ResultsUnsupported", name)
    assert raised.value.remedy


def changed(files: Files, old: str, new: str) -> Files:
    assert any(old.encode() in content for content in files.values()), old
    return {name: content.replace(old.encode(), new.encode(), 1) for name, content in files.items()}


UNREADABLE, INCONSISTENT = "ResultsUnreadable", "ResultsInconsistent"
MEASURED = '"exact_match,none": 0.9166666666666666'


@pytest.mark.parametrize(
    ("folder", "old", "new", "code", "shown"),
    [
        (f"{LM_EVAL}/one-task", MEASURED, '"exact_match,none": NaN', UNREADABLE, "nan"),
        (f"{LM_EVAL}/one-task", MEASURED, '"exact_match,none": "N/A"', UNREADABLE, "'N/A'"),
        (f"{LM_EVAL}/one-task", MEASURED, '"exact_match,none": 0.99', INCONSISTENT, "0.99"),
        (f"{LM_EVAL}/one-task", '"exact_match": 1.0}', '"exact_match": Infinity}', UNREADABLE, "inf"),
        (f"{LM_EVAL}/one-task", '"filter": "none"', '"filter": "other"', INCONSISTENT, "filter"),
        (f"{VLLM}/good", '"completed": 16', '"completed": 15', INCONSISTENT, "15.*16"),
        (f"{VLLM}/good", '"mean_ttft_ms": ', '"mean_ttft_ms": 1', INCONSISTENT, "mean_ttft_ms"),
        (f"{VLLM}/good", '"duration": ', '"duration": NaN, "was": ', UNREADABLE, "duration"),
        (f"{VLLM}/good", '"duration": ', '"duration": 1e999, "was": ', UNREADABLE, "duration"),
        (f"{PROMPTFOO}/good", '"successes": 2', '"successes": 3', INCONSISTENT, "3, 1, 0"),
        (f"{PROMPTFOO}/good", '"failureReason": 0', '"failureReason": 7', UNREADABLE, "failureReason"),
        (f"{GUIDELLM}/good", '"request_totals":{"successful":12', '"request_totals":{"successful":13', INCONSISTENT,
         "12 of 13"),
    ],
)  # fmt: skip
def test_a_file_that_contradicts_itself_is_no_measurement(
    written: Written, folder: str, old: str, new: str, code: str, shown: str
) -> None:
    files = written(folder)
    if folder.startswith(GUIDELLM):
        files = {
            name: json.dumps(json.loads(content), separators=(",", ":")).encode() for name, content in files.items()
        }
    with pytest.raises(MeasurementFailed, match=shown) as raised:
        parse(GOOD[folder], changed(files, old, new))
    assert raised.value.code == code


@pytest.mark.parametrize(
    ("error", "is_engines"),
    [
        ("API error: 500 Internal Server Error", True),
        ("Server error '503 Service Unavailable' for url 'http://10.0.0.7:8000/v1/chat/completions'", True),
        ("Internal Server Error", True),
        ("Server disconnected without sending a response.", True),
        ("API error: 429 Too Many Requests", False),
        ("Cannot connect to host 10.0.0.7:500 ssl:default [Connect call failed ('10.0.0.7', 500)]", False),
        ("Request failed after 4 retries: TypeError: fetch failed (Cause: Error: connect ECONNREFUSED)", False),
        ("ReferenceError: x is not defined", False),
    ],
)
def test_an_error_is_the_engines_if_it_was_reached(error: str, is_engines: bool) -> None:
    assert split_errors([error]) == (([error], []) if is_engines else ([], [error]))


def test_names_of_figures_are_as_gates_write_them() -> None:
    assert figure_name("Sums & more", "Exact Match", "") == "sums_more.exact_match"
