"""Programs of the whole serving stack, each installed by its own command. Run by `make e2e-stack`."""

from __future__ import annotations

import pytest
from llmops_sandbox.programs import litellm


@pytest.fixture(scope="session")
def lite_llm() -> litellm.LiteLlm:
    lite_llm = litellm.find()
    if lite_llm is None:
        pytest.fail(
            "LiteLLM is not installed. Install it with `python -m llmops_sandbox.programs.litellm` (750 MB from PyPI, "
            "a minute and a half), or run `make e2e-stack`, which does that first.",
            pytrace=False,
        )
    return lite_llm
