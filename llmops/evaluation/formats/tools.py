"""The tools that a suite can name: how each is started, where it writes, and who reads its files. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from llmops.evaluation.formats import guidellm, inspect_ai, lm_eval, promptfoo, vllm_bench
from llmops.evaluation.formats.reading import Files, Reading

ToolName = Literal["lm-eval", "inspect-ai", "promptfoo", "vllm-bench", "guidellm"]

KEY_VARIABLE = "OPENAI_API_KEY"
RESULTS_PLACE = "{results}"


@dataclass(frozen=True)
class Tool:
    """One tool.

    Args:
        program: What is started, as its image has it on the path; a suite's arguments follow.
        saving: Arguments that make it write its results; `{results}` is the folder for them.
        reserved: Flags that a suite may not give, as `saving` does.
        patterns: Names of the files that it writes and that are read, below that folder.
        parse: Reads them.
        environment: Variables that it runs with, besides those of every tool.
    """

    program: tuple[str, ...]
    saving: tuple[str, ...]
    reserved: tuple[str, ...]
    patterns: tuple[str, ...]
    parse: Callable[[Files], Reading]
    environment: Mapping[str, str] = field(default_factory=dict[str, str])


OFFLINE: Mapping[str, str] = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}
"""Of every tool: what it needs is in its image or in the suite, and nothing is sent anywhere but to the engine."""

TOOLS: Mapping[ToolName, Tool] = {
    "lm-eval": Tool(
        program=("lm-eval", "run"),
        saving=("--output_path", RESULTS_PLACE, "--log_samples"),
        reserved=("--output_path", "-o", "--log_samples", "-s", "--config", "-C", "--hf_hub_log_args", "--wandb_args"),
        patterns=(lm_eval.RESULTS, lm_eval.SAMPLES),
        parse=lm_eval.parse,
    ),
    "inspect-ai": Tool(
        program=("inspect", "eval"),
        saving=("--log-dir", RESULTS_PLACE, "--log-format", "eval", "--display", "plain"),
        reserved=("--log-dir", "--log-format", "--display"),
        patterns=(inspect_ai.RESULTS,),
        parse=inspect_ai.parse,
    ),
    "promptfoo": Tool(
        program=("promptfoo", "eval"),
        saving=(
            *("--output", f"{RESULTS_PLACE}/{promptfoo.RESULTS}"),
            *("--no-cache", "--no-progress-bar", "--no-table", "--no-share"),
        ),
        reserved=("--output", "-o", "--share", "--watch", "-w", "--repeat"),
        patterns=(promptfoo.RESULTS,),
        parse=promptfoo.parse,
        environment={
            "PROMPTFOO_DISABLE_TELEMETRY": "1",
            "PROMPTFOO_DISABLE_UPDATE": "1",
            "PROMPTFOO_DISABLE_REMOTE_GENERATION": "1",
            # A case that fails is a result, and no failure of the run.
            "PROMPTFOO_FAILED_TEST_EXIT_CODE": "0",
        },
    ),
    "vllm-bench": Tool(
        program=("vllm", "bench", "serve"),
        saving=(
            *("--save-result", "--save-detailed", "--percentile-metrics", "ttft,tpot,itl,e2el"),
            *("--result-dir", RESULTS_PLACE, "--result-filename", vllm_bench.RESULTS),
        ),
        reserved=(
            *("--save-result", "--save-detailed", "--append-result", "--result-dir", "--result-filename"),
            "--percentile-metrics",
        ),
        patterns=(vllm_bench.RESULTS,),
        parse=vllm_bench.parse,
        environment={"VLLM_NO_USAGE_STATS": "1"},
    ),
    "guidellm": Tool(
        program=("guidellm", "run"),
        saving=("--output", f"kind=json,path={RESULTS_PLACE}/{guidellm.RESULTS}", "--disable-console"),
        reserved=("--output", "--disable-console"),
        patterns=(guidellm.RESULTS,),
        parse=guidellm.parse,
    ),
}
