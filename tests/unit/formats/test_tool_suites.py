"""Tool suites as files: refused mistakes, the content of the hash, and gates on figures of tools."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from llmops.config.catalog.spec import Evaluation
from llmops.errors import BadInput
from llmops.evaluation.formats import TOOLS
from llmops.evaluation.formats.reading import Files
from llmops.evaluation.gates.offline import decide
from llmops.evaluation.gates.verdict import GateResult
from llmops.evaluation.measurements import Measurements, together
from llmops.evaluation.runners.collect import collect
from llmops.evaluation.runners.tool_result import take
from llmops.evaluation.suites import AnySuite, ToolSuite, available, load_suites

ROOT = Path(__file__).parents[3]
GOOD = """kind: tool
tool: lm-eval
arguments: [--tasks=sums]
files: [lm-eval/sums.yaml]
"""


def write(folder: Path, text: str, **files: str) -> Path:
    (folder / "lm-eval").mkdir(exist_ok=True)
    (folder / "lm-eval" / "sums.yaml").write_text("task: sums\n")
    (folder / "harness.yaml").write_text(text)
    for name, content in files.items():
        (folder / name).write_text(content)
    return folder


def load(folder: Path) -> ToolSuite:
    (suite,) = load_suites(folder, ["harness"])
    assert isinstance(suite, ToolSuite)
    return suite


def test_a_suite_has_the_text_of_its_files(tmp_path: Path) -> None:
    suite = load(write(tmp_path, GOOD))
    assert [(file.path, file.content) for file in suite.files] == [("lm-eval/sums.yaml", "task: sums\n")]
    assert (suite.tool, suite.arguments, suite.score, suite.image) == ("lm-eval", ("--tasks=sums",), None, None)
    again = TypeAdapter[AnySuite](AnySuite).validate_json(suite.model_dump_json())
    assert again == suite, "it travels to its Job as JSON"
    assert again.sha256 == suite.sha256


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("tool: lm-eval", "tool: harness", "harness.yaml:2: tool: "),
        ("lm-eval/sums.yaml", "lm-eval/absent.yaml", "harness.yaml:4: files[0]: "),
        ("lm-eval/sums.yaml", "../harness.yaml", "harness.yaml:4: files[0]: "),
        ("lm-eval/sums.yaml", "harness.yaml", "harness.yaml:4: files[0]: "),
        ("[lm-eval/sums.yaml]", "[lm-eval/sums.yaml, lm-eval/sums.yaml]", "harness.yaml:1: files: "),
        ("[lm-eval/sums.yaml]", "[7]", "harness.yaml:4: files[0]: "),
        ("--tasks=sums", "--output_path=/x", "harness.yaml:1: arguments: "),
        ("--tasks=sums", "'--x={host}'", "harness.yaml:1: arguments: "),
        ("arguments: [--tasks=sums]", "arguments: --tasks=sums", "harness.yaml:3: arguments: "),
        ("arguments: [--tasks=sums]", "arguments: []", "harness.yaml:3: arguments: "),
        ("kind: tool\n", "kind: tool\nshell: true\n", "harness.yaml:2: shell: "),
        ("kind: tool\n", "kind: tool\nimage: evaluation\n", "harness.yaml:2: image: "),
        ("kind: tool\n", "kind: tool\ntimeout_seconds: 0\n", "harness.yaml:2: timeout_seconds: "),
        ("kind: tool\n", "kind: tool\nfigures: [Exact Match]\n", "harness.yaml:2: figures[0]: "),
    ],
)  # fmt: skip
def test_a_mistake_is_named_by_file_line_and_field(tmp_path: Path, old: str, new: str, place: str) -> None:
    with pytest.raises(BadInput) as raised:
        load(write(tmp_path, GOOD.replace(old, new)))
    assert place in raised.value.message


def test_files_that_are_no_text_or_too_large_are_refused(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    (tmp_path / "lm-eval" / "sums.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match=r"harness\.yaml:4: files\[0\]: "):
        load(tmp_path)
    (tmp_path / "lm-eval" / "sums.yaml").write_text("x" * (4 << 20) + "x")
    with pytest.raises(BadInput, match=r"harness\.yaml:4: files: .*4,194,305 bytes"):
        load(tmp_path)


def test_a_changed_task_is_a_changed_suite(tmp_path: Path) -> None:
    before = load(write(tmp_path, GOOD)).sha256
    (tmp_path / "lm-eval" / "sums.yaml").write_text("task: sums\nnum_fewshot: 1\n")
    changed = load(tmp_path).sha256
    more = load(write(tmp_path, GOOD.replace("--tasks=sums", "--tasks=sums,others"))).sha256
    described = load(write(tmp_path, GOOD + "description: better words\n")).sha256
    assert len({before, changed, more}) == 3
    assert described == before


@pytest.fixture
def measured(written: Callable[[str], Files], tmp_path: Path) -> Callable[..., Measurements]:
    """What a harness suite measured, with the answers to that many of its cases turned wrong."""
    suite = load(write(tmp_path, GOOD))
    reading = TOOLS["lm-eval"].parse(written("lm-eval-0.4.13/one-task"))

    def measure(wrong: int = 0, cases: int = 1) -> Measurements:
        # The same cases many times over: twelve alone can decide nothing.
        scores = {
            f"{case}/{copy}": score for case, score in reading.scores["exact_match"].items() for copy in range(cases)
        }
        right = [case for case, score in scores.items() if score == 1]
        scores |= dict.fromkeys(right[:wrong], 0.0)
        changed = reading.model_copy(update={"scores": {"exact_match": scores}, "cases": len(scores)})
        return collect([take(suite, changed)])

    return measure


def judged(gate: dict[str, Any], canary: Measurements, stable: Measurements | None = None) -> tuple[str, GateResult]:
    """The verdict, and the result of the gate."""
    evaluation = Evaluation.model_validate({"suites": ["harness"], "gates": [{"metric": "harness/score", **gate}]})
    verdict = decide(evaluation, canary, stable)
    return verdict.value, verdict.gates[0]


def test_gates_judge_a_tools_score(measured: Callable[..., Measurements]) -> None:
    assert judged({"min": 0.9}, measured())[0] == "Passed"
    assert judged({"min": 0.95}, measured())[0] == "Failed"
    assert judged({"metric": "harness/exact_match", "min": 0.9}, measured())[0] == "Passed"
    value, result = judged({"metric": "harness/acc_norm", "min": 0.9}, measured())
    assert (value, result.metric, result.code) == ("Inconclusive", "harness/acc_norm", "NotMeasured")


def test_gates_compare_a_tools_score_case_by_case(measured: Callable[..., Measurements]) -> None:
    stable = measured(cases=40)
    assert judged({"max_drop": 0.03}, measured(cases=40), stable)[0] == "Passed"
    value, result = judged({"max_drop": 0.03}, measured(cases=40, wrong=60), stable)
    assert (value, result.code) == ("Failed", "BeyondLimit")
    assert result.change == pytest.approx(60 / 480)
    assert judged({"max_drop": 0.03}, measured(wrong=1), measured())[0] == "Inconclusive", "twelve cases decide nothing"


def test_measurements_of_several_places_are_one(measured: Callable[..., Measurements]) -> None:
    harness = measured()
    other = harness.model_copy(
        update={
            "suites": {"own": "1" * 64},
            "figures": {"own/score": 0.0, "all/score": 0.0},
            "cases": {"own": 12},
            "scores": {"own": dict.fromkeys(map(str, range(12)), 0.0)},
        }
    )
    merged = together([other, harness])
    assert merged.figures["all/score"] == pytest.approx(11 / 24)
    assert merged.figures["harness/score"] == pytest.approx(11 / 12)
    assert merged.answered("all") == (24, 24)


def test_every_suite_in_the_documentation_is_one(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "evals", tmp_path / "evals")
    text = (ROOT / "docs" / "guides" / "suites.md").read_text()
    blocks = re.findall(r"^`evals/([\w./-]+)`:\n\n```\w+\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    names = [Path(path).stem for path, _ in blocks if "/" not in path and path.endswith(".yaml")]
    assert len(names) == len(re.findall(r"^kind: \w+$", text, re.MULTILINE)) == 10
    for path, content in blocks:
        target = tmp_path / "evals" / path
        target.parent.mkdir(exist_ok=True)
        target.write_text(content)
    suites = load_suites(tmp_path / "evals", names)
    assert {suite.tool for suite in suites if isinstance(suite, ToolSuite)} == set(TOOLS)
    assert {suite.kind for suite in suites} == {"quality", "fidelity", "protocol", "load", "tool"}
    evaluations = re.findall(r"^```yaml\n(evaluation:.*?)^```$", text, re.DOTALL | re.MULTILINE)
    from ruamel.yaml import YAML

    assert evaluations
    for content in evaluations:
        Evaluation.model_validate(YAML(typ="safe").load(content)["evaluation"])


def test_shipped_tool_suites_are_valid() -> None:
    suites = load_suites(ROOT / "evals", available(ROOT / "evals"))
    assert any(isinstance(suite, ToolSuite) for suite in suites)
