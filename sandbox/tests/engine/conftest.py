"""Engines as real processes on loopback, over folders that `make_model` wrote."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from llmops_sandbox.engine.process import EngineProcess
from llmops_sandbox.standins.weights import make_model


@pytest.fixture(scope="session")
def plain_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small, fast model that knows no suite; tests must not change it."""
    return make_model(
        tmp_path_factory.mktemp("model"),
        size_bytes=1 << 16,
        suites_dir=None,
        ttft_ms=5,
        ttft_jitter_ms=0,
        tokens_per_second=1000,
    )


@pytest.fixture(scope="module")
def engine(plain_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """One engine for the tests of a module that only send requests."""
    log = tmp_path_factory.mktemp("engine") / "log"
    with EngineProcess(plain_model, ["--served-model-name", "smol", "--max-model-len", "1024"], log=log) as running:
        yield running


@pytest.fixture
def start(plain_model: Path, tmp_path: Path) -> Iterator[Callable[..., EngineProcess]]:
    """Start an engine, by default over the plain model, without waiting; it ends with the test."""
    with ExitStack() as stack:
        count = iter(range(100))

        def starter(*arguments: str, model: Path | str = plain_model, **env: str) -> EngineProcess:
            engine = EngineProcess(model, arguments, log=tmp_path / f"engine-{next(count)}.log", env=env)
            engine.start()
            stack.callback(engine.kill)
            return engine

        yield starter
