"""Evaluation tools of the field: a suite names a tool, and the tool's results file has the figures.

One module per tool says how to start the tool, and reads its files; they share `tool` and `reading`. A new tool is a
new module and a line in `TOOLS`.

A file that is missing, cut off, of another tool or version, inconsistent, or of an unfinished run is a
`MeasurementFailed`: never a score of 0, and never half of the figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from llmops.evaluation.formats import guidellm, inspect_ai, lm_eval, promptfoo, vllm_bench
from llmops.evaluation.formats.tool import Tool

TOOLS: Mapping[str, Tool] = {
    tool.name: tool
    for tool in (
        lm_eval.TOOL,
        inspect_ai.TOOL,
        promptfoo.TOOL,
        vllm_bench.TOOL,
        guidellm.TOOL,
    )
}


def _check_known(name: str) -> str:
    if name not in TOOLS:
        *others, last = (repr(tool) for tool in TOOLS)
        raise PydanticCustomError("unknown_tool", "must be {known}", {"known": f"{', '.join(others)} or {last}"})
    return name


ToolName = Annotated[str, AfterValidator(_check_known)]
