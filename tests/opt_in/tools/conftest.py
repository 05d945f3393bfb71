"""A sandbox whose Jobs run the real tools. Run by `make e2e-tools`."""

from __future__ import annotations

import pytest
from llmops_sandbox.programs import tools


@pytest.fixture(scope="session")
def installed() -> tools.Tools:
    installed_tools = tools.find()
    if installed_tools is None:
        pytest.fail(
            "The evaluation tools are not installed. Install them with `python -m llmops_sandbox.programs.tools` "
            "(600 MB from PyPI, a minute), or run `make e2e-tools`, which does that first.",
            pytrace=False,
        )
    return installed_tools
