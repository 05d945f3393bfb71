"""Figures, scores and samples of files that the tools wrote themselves, and every file that is no measurement."""

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
    found = parse("lm-eval", written(f"{LM_EVAL}/one-task"))
    assert found.tool == "lm-eval 0.4.13"
    assert found.figures == {"exact_match": pytest.approx(11 / 12), "error_rate": 0.0}
    assert found.cases == 12
    assert [case for case, score in found.scores["exact_match"].items() if score < 1] == ["sums/8"]
    assert found.answers["sums/0"] == "85"


def test_several_tasks_and_filters_have_names_of_their_own(written: Written) -> None:
    found = parse("lm-eval", written(f"{LM_EVAL}/two-tasks"))
    assert found.figures == {
        "sums.exact_match": pytest.approx(11 / 12),
        "sums-filters.exact_match.strict-match": pytest.approx(11 / 12),
        "sums-filters.exact_match.flexible-extract": pytest.approx(10 / 12),
        "error_rate": 0.0,
    }
    assert found.cases == 24
    assert found.scores == {}, "no metric is one of both tasks"


def test_the_real_vllm_was_asked_for_log_probabilities(written: Written) -> None:
    found = parse("lm-eval", written(f"{LM_EVAL}/choice"))
    assert found.figures == {"acc": pytest.approx(5 / 6), "acc_norm": pytest.approx(4 / 6), "error_rate": 0.0}
    assert len(found.scores["acc_norm"]) == 6


def test_a_limit_is_the_suites_choice_and_half_a_task_is_not(written: Written) -> None:
    files = dict(written(f"{LM_EVAL}/limited"))
    assert parse("lm-eval", files).cases == 4
    (name,) = [name for name in files if name.startswith("results_")]
    content = json.loads(files[name])
    content["config"]["limit"] = None
    with pytest.raises(MeasurementFailed, match="task sums asked 4 of 12 cases only"):
        parse("lm-eval", {**files, name: json.dumps(content).encode()})


@pytest.mark.parametrize("form", ["eval", "json"])
def test_a_log_of_inspect_says_the_same_in_both_forms(written: Written, form: str) -> None:
    found = parse("inspect-ai", written(f"{INSPECT}/{form}"))
    assert found.tool == "inspect-ai 0.3.285"
    assert found.figures == {
        "exact.mean": pytest.approx(11 / 12),
        "includes.accuracy": pytest.approx(11 / 12),
        "error_rate": 0.0,
    }
    assert found.scores["includes.accuracy"] == found.scores["exact.mean"]
    assert found.scores["exact.mean"]["add-carry"] == 1.0
    assert found.cases == len(found.scores["exact.mean"]) == 12


@pytest.mark.parametrize(
    ("form", "said"), [("failed", "ended as error: .*InternalServerError"), ("errors-tolerated", "no results")]
)
def test_a_run_of_inspect_that_failed_is_no_measurement(written: Written, form: str, said: str) -> None:
    with pytest.raises(MeasurementFailed, match=f"task sums .*{said}"):
        parse("inspect-ai", written(f"{INSPECT}/{form}"))


def test_samples_of_inspect_that_failed_are_no_measurement(written: Written) -> None:
    (content,) = written(f"{INSPECT}/json").values()
    log = json.loads(content)
    log["results"]["completed_samples"] = 9
    with pytest.raises(MeasurementFailed, match="9 of 12 samples were completed"):
        parse("inspect-ai", {"log.json": json.dumps(log).encode()})


def test_an_older_zip_and_a_damaged_one(written: Written) -> None:
    (content,) = written(f"{INSPECT}/eval").values()
    (log,) = (json.loads(each) for each in written(f"{INSPECT}/json").values())
    older = io.BytesIO()
    with zipfile.ZipFile(older, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("reductions.json", json.dumps(log.pop("reductions")))
        archive.writestr("header.json", json.dumps(log))
    assert parse("inspect-ai", {"log.eval": older.getvalue()}).figures["exact.mean"] == pytest.approx(11 / 12)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        start = archive.getinfo("reductions.json").header_offset
    damaged = bytearray(content)
    damaged[start + 60] ^= 0xFF
    with pytest.raises(MeasurementFailed, match=r"reductions\.json"):
        parse("inspect-ai", {"log.eval": bytes(damaged)})


def test_promptfoo_scores_cases_and_counts_errors_apart(written: Written) -> None:
    found = parse("promptfoo", written(f"{PROMPTFOO}/good"))
    assert found.tool == "promptfoo 0.121.20"
    assert found.figures == {"score": pytest.approx(2 / 3), "pass_rate": pytest.approx(2 / 3), "error_rate": 0.0}
    assert found.scores["score"] == {"0/0": 1.0, "1/0": 1.0, "2/0": 0.0}
    assert found.answers["2/0"] == "7575"
    broken = parse("promptfoo", written(f"{PROMPTFOO}/broken"))
    assert broken.figures == {"error_rate": 1.0}, "no answer is no score of 0"
    assert broken.errors == {"API error: 500 Internal Server Error": 3}
    with pytest.raises(MeasurementFailed, match=r"no case was measured: .*fetch failed"):
        parse("promptfoo", written(f"{PROMPTFOO}/away"))


def test_vllm_bench_has_the_figures_that_it_says_itself(written: Written) -> None:
    (content,) = written(f"{VLLM}/good").values()
    said = json.loads(content)
    found = parse("vllm-bench", written(f"{VLLM}/good"))
    names = [
        f"{each}_{kind}_ms"
        for each in ("mean", "median", "std", "p50", "p90", "p95", "p99")
        for kind in ("ttft", "tpot", "itl", "e2el")
    ]
    for name in (*names, "request_throughput", "output_throughput", "total_token_throughput", "completed"):
        assert found.figures[name] == pytest.approx(said[name]), name
    assert found.figures["error_rate"] == 0.0
    assert len(found.samples["ttft"]) == 16
    assert statistics.fmean(found.samples["e2el"]) == pytest.approx(said["mean_e2el_ms"]), "milliseconds"


def test_guidellms_words_are_turned_into_ours(written: Written) -> None:
    (content,) = written(f"{GUIDELLM}/good").values()
    said = json.loads(content)["benchmarks"][0]["metrics"]
    found = parse("guidellm", written(f"{GUIDELLM}/good"))
    assert found.figures["mean_ttft_ms"] == pytest.approx(said["time_to_first_token_ms"]["successful"]["mean"])
    assert found.figures["mean_tpot_ms"] == pytest.approx(said["inter_token_latency_ms"]["successful"]["mean"])
    assert found.figures["mean_e2el_ms"] == pytest.approx(1000 * said["request_latency"]["successful"]["mean"])
    assert found.figures["median_e2el_ms"] == pytest.approx(
        1000 * said["request_latency"]["successful"]["median"], rel=0.05
    )
    assert found.figures["request_throughput"] == pytest.approx(said["requests_per_second"]["successful"]["mean"])
    assert "itl" not in found.samples
    assert len(found.samples["ttft"]) == 12


@pytest.mark.parametrize("folder", GOOD)
def test_what_is_empty_cut_off_or_of_another_tool_is_no_measurement(written: Written, folder: str) -> None:
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
        with pytest.raises(MeasurementFailed) as caught:
            parse(tool, {**files, name: content})
        assert name in caught.value.message
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
    with pytest.raises(MeasurementFailed, match=r"is of .* 7\.0\.1; .* can be read") as caught:
        parse(GOOD[folder], {**files, name: json.dumps(content).encode()})
    assert caught.value.remedy


def changed(files: Files, old: str, new: str) -> Files:
    assert any(old.encode() in content for content in files.values()), old
    return {name: content.replace(old.encode(), new.encode(), 1) for name, content in files.items()}


MEASURED = '"exact_match,none": 0.9166666666666666'


@pytest.mark.parametrize(
    ("folder", "old", "new", "said"),
    [
        (f"{LM_EVAL}/one-task", MEASURED, '"exact_match,none": NaN', "no number|nan"),
        (f"{LM_EVAL}/one-task", MEASURED, '"exact_match,none": "N/A"', "no number: 'N/A'"),
        (f"{LM_EVAL}/one-task", MEASURED, '"exact_match,none": 0.99', "over its samples"),
        (f"{LM_EVAL}/one-task", '"exact_match": 1.0}', '"exact_match": Infinity}', "no number"),
        (f"{LM_EVAL}/one-task", '"filter": "none"', '"filter": "other"', "samples of filter"),
        (f"{VLLM}/good", '"completed": 16', '"completed": 15', "details say 16"),
        (f"{VLLM}/good", '"mean_ttft_ms": ', '"mean_ttft_ms": 1', "over its requests"),
        (f"{VLLM}/good", '"duration": ', '"duration": NaN, "was": ', "duration: Input should be"),
        (f"{VLLM}/good", '"duration": ', '"duration": 1e999, "was": ', "duration: Input should be"),
        (f"{PROMPTFOO}/good", '"successes": 2', '"successes": 3', "says 3, 1, 0"),
        (f"{PROMPTFOO}/good", '"failureReason": 0', '"failureReason": 7', "failureReason"),
        (f"{GUIDELLM}/good", '"request_totals":{"successful":12', '"request_totals":{"successful":13', "12 of 13"),
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_no_measurement(
    written: Written, folder: str, old: str, new: str, said: str
) -> None:
    files = written(folder)
    if folder.startswith(GUIDELLM):
        files = {
            name: json.dumps(json.loads(content), separators=(",", ":")).encode() for name, content in files.items()
        }
    with pytest.raises(MeasurementFailed, match=said):
        parse(GOOD[folder], changed(files, old, new))


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
