"""The real vLLM on CPU, and the simulated engine. Run by `make e2e-vllm`."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from llmops_sandbox.engine.exchanges import CONTEXT, MODEL
from llmops_sandbox.engine.process import EngineProcess
from llmops_sandbox.programs import vllm
from llmops_sandbox.standins.weights import make_model

ARGUMENTS = ("--served-model-name", MODEL, "--max-model-len", str(CONTEXT), "--max-num-seqs", "4")
# Two minutes on a quiet machine with 2 cores, most of it imports.
READY_SECONDS = 400


@pytest.fixture(scope="session")
def installed() -> vllm.Vllm:
    installed_vllm = vllm.find()
    if installed_vllm is None:
        pytest.fail(
            f"vLLM {vllm.VERSION} is not installed in {vllm.folder()}. Install it with "
            "`python -m llmops_sandbox.programs.vllm` (6 GB from PyPI, 3 to 8 minutes), or run "
            "`make e2e-vllm`, which does that first.",
            pytrace=False,
        )
    return installed_vllm


@pytest.fixture(scope="session")
def launch_real(installed: vllm.Vllm, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., EngineProcess]:
    """Makes a real engine over a folder, by default the converted model, and does not start it."""

    def launch(*arguments: str, model: Path = installed.model, **env: str) -> EngineProcess:
        log = tmp_path_factory.mktemp("vllm") / "log"
        flags = (*vllm.FLAGS, *ARGUMENTS, *arguments)
        variables = {**vllm.ENVIRONMENT, **env}
        return EngineProcess(model, flags, log=log, program=installed.serve, env=variables, ready_seconds=READY_SECONDS)

    return launch


@pytest.fixture(scope="session")
def real(launch_real: Callable[..., EngineProcess]) -> Iterator[EngineProcess]:
    with launch_real() as running:
        yield running


@pytest.fixture(scope="session")
def launch_simulated(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., EngineProcess]:
    """Makes a simulated engine, by default over a plain model, and does not start it."""
    plain = make_model(tmp_path_factory.mktemp("model"), size_bytes=1 << 16, suites_dir=None, tokens_per_second=40)

    def launch(*arguments: str, model: Path = plain, **env: str) -> EngineProcess:
        return EngineProcess(model, (*ARGUMENTS, *arguments), log=tmp_path_factory.mktemp("simulated") / "log", env=env)

    return launch


@pytest.fixture(scope="session")
def simulated(launch_simulated: Callable[..., EngineProcess]) -> Iterator[EngineProcess]:
    with launch_simulated() as running:
        yield running
