"""Results of lm-evaluation-harness: `results_DATE.json`, and `samples_TASK_DATE.jsonl` of each task beside it.

The harness ends with an error if a request fails for good, so a complete file has an error rate of 0.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Annotated, Any

from pydantic import Field

from llmops.evaluation.formats.reading import (
    Count,
    Files,
    Part,
    Reading,
    check_version,
    figure_name,
    mean,
    number,
    put,
    read,
    refuse,
    same,
)
from llmops.evaluation.formats.tool import RESULTS_PLACE, Tool

NAME = "lm-eval"
RESULTS = "results_*.json"
SAMPLES = "samples_*.jsonl"
DATE = r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:\.\d+)?"


class _Samples(Part):
    original: Count
    effective: Count


class _Config(Part):
    limit: float | None


class _Results(Part):
    lm_eval_version: str
    results: dict[str, dict[str, Any]] = Field(min_length=1)
    groups: dict[str, dict[str, Any]] = Field(default_factory=dict[str, dict[str, Any]])
    higher_is_better: dict[str, dict[str, bool | None]]
    samples: Annotated[dict[str, _Samples], Field(alias="n-samples", min_length=1)]
    config: _Config


class _Sample(Part, extra="allow"):
    """One case under one filter; each metric is a field of its name."""

    doc_id: int
    filter: str
    metrics: tuple[str, ...]
    filtered_resps: Any

    def value(self, where: str, metric: str) -> float | None:
        """The value of a metric; None for a metric without a number by case, such as BLEU."""
        value = (self.model_extra or {}).get(metric)
        if isinstance(value, list | dict):
            return None
        # A metric may be true or false by case.
        return number(where, f"{metric} of case {self.doc_id}", int(value) if isinstance(value, bool) else value)


def parse(files: Files) -> Reading:
    """Read the results of one run, and its samples.

    A figure of one task is METRIC, or METRIC.FILTER if the filter has a name. Figures of several tasks are TASK.METRIC
    and, if every task has the metric case by case, METRIC over all cases.

    Raises:
        MeasurementFailed: They are incomplete, or not the harness's.
    """
    names = [name for name in files if re.fullmatch(rf"results_{DATE}\.json", name)]
    if len(names) != 1:
        why = f"one file is expected, there are {len(names)} among: {', '.join(sorted(files)) or 'none'}"
        refuse(RESULTS, "ResultsAmbiguous" if names else "ResultsMissing", why)
    (name,) = names
    results = read(_Results, name, files[name], "results file of lm-evaluation-harness")
    check_version(name, NAME, results.lm_eval_version, "0.4.")
    return _Reader(name, results, files).reading()


class _Reader:
    def __init__(self, name: str, results: _Results, files: Files) -> None:
        self._name, self._results, self._files = name, results, files
        self._figures: dict[str, float] = {}
        self._scores: dict[str, dict[str, dict[str, float]]] = defaultdict(dict)
        self._answers: dict[str, str] = {}

    def reading(self) -> Reading:
        tasks = sorted(self._results.samples)
        for task in tasks:
            self._task(task, single=len(tasks) == 1)
        for group in sorted(self._results.results.keys() - set(tasks)):
            self._group(group, self._results.results[group])
        for group in sorted(self._results.groups.keys() - self._results.results.keys()):
            self._group(group, self._results.groups[group])
        scores = self._over_all(tasks)
        cases = sum(self._results.samples[task].effective for task in tasks)
        put(self._figures, self._name, "error_rate", 0.0)
        return Reading(
            tool=f"{NAME} {self._results.lm_eval_version}",
            figures=self._figures,
            scores=scores,
            answers=self._answers,
            cases=cases,
        )

    def _task(self, task: str, *, single: bool) -> None:
        count = self._results.samples[task]
        if count.effective == 0:
            refuse(self._name, "NothingMeasured", f"task {task} asked no case")
        if count.effective != count.original and self._results.config.limit is None:
            why = f"task {task} asked {count.effective} of {count.original} cases only"
            refuse(self._name, "RunIncomplete", why)
        if task not in self._results.results:
            refuse(self._name, "RunIncomplete", f"task {task} has no results")
        samples = self._read_samples(task, count.effective)
        values = _metrics(self._name, task, self._results.results[task])
        if not values:
            refuse(self._name, "NothingMeasured", f"task {task} has no metric")
        for (metric, filter_name), value in values.items():
            figure = figure_name(metric, "" if filter_name == "none" else filter_name)
            put(self._figures, self._name, figure if single else figure_name(task, figure), value)
            if filter_name not in samples:
                why = f"{metric} of task {task} has filter {filter_name}, and no sample has"
                refuse(self._name, "ResultsInconsistent", why)
            if scores := self._case_scores(task, metric, value, samples[filter_name]):
                self._scores[figure][task] = scores

    def _case_scores(self, task: str, metric: str, value: float, samples: list[_Sample]) -> dict[str, float]:
        """Case -> score, of a metric that is a mean of shares and better when higher; empty for others."""
        if self._results.higher_is_better.get(task, {}).get(metric) is not True:
            return {}
        by_case = {str(sample.doc_id): sample.value(self._name, metric) for sample in samples}
        scores = {case: score for case, score in by_case.items() if score is not None and 0 <= score <= 1}
        if len(scores) < len(by_case):
            return {}
        if not same(mean(scores.values()), value):
            why = f"{metric} of task {task} is {value}, and {mean(scores.values())} over its samples"
            refuse(self._name, "ResultsInconsistent", why)
        return scores

    def _group(self, group: str, results: dict[str, Any]) -> None:
        for (metric, filter_name), value in _metrics(self._name, group, results).items():
            put(
                self._figures,
                self._name,
                figure_name(group, metric, "" if filter_name == "none" else filter_name),
                value,
            )

    def _over_all(self, tasks: list[str]) -> dict[str, dict[str, float]]:
        scores: dict[str, dict[str, float]] = {}
        for figure, by_task in self._scores.items():
            if len(by_task) < len(tasks):
                continue
            scores[figure] = {f"{task}/{case}": score for task in tasks for case, score in by_task[task].items()}
            if len(tasks) > 1:
                put(self._figures, self._name, figure, mean(scores[figure].values()))
        return scores

    def _read_samples(self, task: str, cases: int) -> dict[str, list[_Sample]]:
        """The samples of a task by filter, each with every case."""
        names = [name for name in self._files if re.fullmatch(rf"samples_{re.escape(task)}_{DATE}\.jsonl", name)]
        if len(names) != 1:
            code = "ResultsAmbiguous" if names else "ResultsMissing"
            refuse(f"samples_{task}_*.jsonl", code, f"one file is expected, there are {len(names)}")
        (name,) = names
        by_filter: dict[str, list[_Sample]] = defaultdict(list)
        for place, line in enumerate(self._files[name].splitlines(), start=1):
            sample = read(_Sample, f"{name}:{place}", line, "sample of lm-evaluation-harness")
            by_filter[sample.filter].append(sample)
            self._answers.setdefault(f"{task}/{sample.doc_id}", _text(sample.filtered_resps))
        if not by_filter:
            refuse(name, "ResultsUnreadable", "is empty")
        for filter_name, samples in by_filter.items():
            if len({sample.doc_id for sample in samples}) != cases or len(samples) != cases:
                why = f"has {len(samples)} samples of filter {filter_name}, and {cases} cases were asked"
                refuse(name, "ResultsInconsistent", why)
        return by_filter


def _metrics(name: str, task: str, results: dict[str, Any]) -> dict[tuple[str, str], float]:
    """Metric and filter -> value, without standard errors: gates compute their own from the cases."""
    values: dict[tuple[str, str], float] = {}
    for key, value in results.items():
        metric, comma, filter_name = key.partition(",")
        if not comma or metric.endswith("_stderr"):
            continue
        values[metric, filter_name] = number(name, f"{key} of {task}", value)
    return values


def _text(responses: Any) -> str:
    """The answer; of a multiple choice, its log-probabilities."""
    first: Any = responses[0] if isinstance(responses, list) and responses else responses
    return first if isinstance(first, str) else str(responses)


TOOL = Tool(
    name=NAME,
    program=("lm-eval", "run"),
    saving=("--output_path", RESULTS_PLACE, "--log_samples"),
    reserved=("--output_path", "-o", "--log_samples", "-s", "--config", "-C", "--hf_hub_log_args", "--wandb_args"),
    patterns=(RESULTS, SAMPLES),
    parse=parse,
)
