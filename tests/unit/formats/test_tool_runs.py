"""Tools as processes: their arguments and environment, their results, and runs without results."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmops.errors import MeasurementFailed
from llmops.evaluation.endpoint import Endpoint
from llmops.evaluation.evaluate import compare, measure
from llmops.evaluation.runners.tools import run_tool
from llmops.evaluation.suites import ToolSuite
from tests.unit.formats.conftest import DATA

Program = Callable[[str, str], None]
ONE_TASK = DATA / "lm-eval-0.4.13" / "one-task"
COPY = f"""
place = Path(sys.argv[sys.argv.index("--output_path") + 1])
shutil.copytree({str(ONE_TASK)!r}, place / "tiny")
"""


def suite(**fields: Any) -> ToolSuite:
    given = {"name": "harness", "kind": "tool", "tool": "lm-eval", "arguments": ["--tasks=sums"], "timeout_seconds": 20}
    return ToolSuite.model_validate({**given, **fields})


def test_a_tool_is_given_what_it_needs_and_no_secret_but_the_engines_key(
    program: Program, engine_endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMOPS_OTHER_API_KEY", "key-of-another")
    monkeypatch.setenv("HF_TOKEN", "token-of-the-hub")
    monkeypatch.setenv("https_proxy", "http://proxy.example.com")
    seen = tmp_path / "seen.json"
    program(
        "lm-eval",
        f"""
import json
task = Path("lm-eval/task.yaml").read_text()
started = {{"arguments": sys.argv[1:], "environment": dict(os.environ), "task": task, "files": sorted(os.listdir("."))}}
Path({str(seen)!r}).write_text(json.dumps(started))
{COPY}""",
    )
    files = [{"path": "lm-eval/task.yaml", "content": "task: sums\n"}, {"path": "sums.jsonl", "content": "{}\n"}]
    arguments = ["--model_args=base_url={url}/v1/chat/completions,model={model}", '--metadata={"a": 1}']
    run_tool(engine_endpoint, suite(files=files, arguments=arguments))
    started = json.loads(seen.read_text())
    assert started["arguments"][:3] == [
        "run",
        "--model_args=base_url=http://127.0.0.1:1/v1/chat/completions,model=tiny",
        '--metadata={"a": 1}',
    ]
    assert "--log_samples" in started["arguments"]
    assert started["task"] == "task: sums\n"
    assert started["files"] == ["lm-eval", "sums.jsonl"]
    environment = started["environment"]
    assert environment["OPENAI_API_KEY"] == "key-of-the-engine"
    assert (environment["LLMOPS_URL"], environment["LLMOPS_MODEL"]) == ("http://127.0.0.1:1", "tiny")
    assert environment["HF_HUB_OFFLINE"] == environment["HF_DATASETS_OFFLINE"] == "1"
    assert not {"LLMOPS_OTHER_API_KEY", "HF_TOKEN", "https_proxy"} & environment.keys()
    assert not Path(environment["HOME"]).exists(), "its folder is gone"


def test_results_files_become_a_suites_figures_and_scores(program: Program, engine_endpoint: Endpoint) -> None:
    program("lm-eval", COPY)
    harness = suite()
    measured = measure(engine_endpoint, [harness], 1)
    assert measured.suites == {"harness": harness.sha256}
    assert measured.figures["harness/score"] == measured.figures["harness/exact_match"] == pytest.approx(11 / 12)
    assert measured.figures["harness/error_rate"] == 0
    assert measured.answered("harness") == (12, 12)
    assert measured.answered("all") == (12, 12)
    assert measured.figures["all/score"] == pytest.approx(11 / 12)
    assert list(measured.wrong["harness"]) == ["sums/8"]
    ours, theirs = compare(engine_endpoint, engine_endpoint, [harness], 1)
    assert len(ours.paired(theirs, "harness")[0]) == 12


@pytest.mark.parametrize(
    ("body", "code", "shown"),
    [
        ("print('Traceback: no such task'); sys.exit(3)", "ToolFailed", r"exit code 3.*\nTraceback: no such task"),
        ("sys.exit(1)", "ToolFailed", "exit code 1"),
        ("print('Could not save results aggregated')", "ResultsMissing", r"results_\*\.json.*\nCould not save"),
        (
            COPY + "(place / 'tiny').rename(place / 'one'); shutil.copytree(place / 'one', place / 'two')",
            "ResultsAmbiguous",
            "lm-eval",
        ),
        (COPY + "next((place / 'tiny').glob('results_*')).write_text('')", "ResultsUnreadable", "results_"),
        (COPY + "next((place / 'tiny').glob('samples_*')).unlink()", "ResultsMissing", "samples_sums_"),
        ("os.kill(os.getpid(), 9)", "ToolFailed", "exit code -9"),
    ],
    ids=[
        "fails",
        "fails-silently",
        "writes-nothing",
        "writes-twice",
        "writes-nothing-in-it",
        "no-samples",
        "is-killed",
    ],
)
def test_a_tool_that_brings_no_results_is_no_measurement(
    program: Program, engine_endpoint: Endpoint, body: str, code: str, shown: str
) -> None:
    program("lm-eval", body)
    with pytest.raises(MeasurementFailed, match=shown) as raised:
        run_tool(engine_endpoint, suite())
    assert raised.value.code == code
    assert raised.value.message.startswith("harness: ")


def test_a_tool_that_hangs_is_ended_with_its_children(
    program: Program, engine_endpoint: Endpoint, tmp_path: Path
) -> None:
    mark = tmp_path / "child"
    program(
        "lm-eval",
        f"""
import subprocess
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
Path({str(mark)!r}).write_text(str(child.pid))
print("asking", flush=True)
time.sleep(3600)""",
    )
    with pytest.raises(MeasurementFailed, match=r" 2 s:\nasking") as raised:
        run_tool(engine_endpoint, suite(timeout_seconds=2))
    assert raised.value.code == "ToolTimedOut"
    child, deadline = int(mark.read_text()), time.monotonic() + 5
    while _lives(child):
        assert time.monotonic() < deadline, "the tool's child goes on"
        time.sleep(0.05)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_tool_that_is_not_installed_is_named(engine_endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MeasurementFailed) as raised:
        run_tool(engine_endpoint, suite(tool="promptfoo"))
    assert (raised.value.code, raised.value.about) == ("ToolNotInstalled", "promptfoo")
    assert "evaluation_image" in raised.value.remedy


def test_a_suite_takes_the_figures_that_it_names_and_no_measurement_lacks_one(
    program: Program, engine_endpoint: Endpoint
) -> None:
    program("lm-eval", COPY)
    taken = run_tool(engine_endpoint, suite(figures=["score"])).figures
    assert set(taken) == {"score", "error_rate", "cases", "answered", "unmeasured"}
    with pytest.raises(MeasurementFailed, match=r"acc_norm.*exact_match") as raised:
        run_tool(engine_endpoint, suite(figures=["acc_norm"]))
    assert (raised.value.code, raised.value.about) == ("NoSuchFigure", "suite harness")


def test_the_score_is_one_that_has_cases(program: Program, engine_endpoint: Endpoint) -> None:
    program("lm-eval", COPY)
    assert run_tool(engine_endpoint, suite(score="exact_match")).figures["score"] == pytest.approx(11 / 12)
    with pytest.raises(MeasurementFailed, match=r"no acc .*exact_match") as raised:
        run_tool(engine_endpoint, suite(score="acc"))
    assert (raised.value.code, raised.value.about) == ("NoSuchScore", "suite harness")
