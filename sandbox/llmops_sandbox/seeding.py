"""What the sandbox's hub and registry offer: a good release of a model, and a worse one after it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Literal

from llmops.config.catalog.load import load_model
from llmops_sandbox.sandbox import ENGINE_PROGRAM, Sandbox
from llmops_sandbox.standins.weights import make_model

Engine = Literal["simulated", "vllm"]

ENGINE_IMAGE = "vllm/vllm-openai"
ENGINE_TAG = "v0.32.0"
GOOD, WORSE = 0.95, 0.70
SIZE, STEP = 64 << 20, 1 << 20


def seed(sandbox: Sandbox, model: str, engine: Engine) -> None:
    """Put the model on the hub and the engine in the registry."""
    if engine == "vllm":
        from llmops_sandbox.programs import vllm

        installed = vllm.install()
        sandbox.images.add(ENGINE_IMAGE, ENGINE_TAG, installed.program, vllm.ENVIRONMENT)
        sandbox.hub_store.commit(_repo(sandbox, model), installed.model)
        return
    sandbox.images.add(ENGINE_IMAGE, ENGINE_TAG, ENGINE_PROGRAM)
    commit_simulated(sandbox, _repo(sandbox, model), quality=GOOD)


def seed_worse(sandbox: Sandbox, model: str, engine: Engine) -> None:
    """Commit a worse model to the same branch of the hub."""
    if engine == "vllm":
        from llmops_sandbox.programs import vllm

        sandbox.hub_store.commit(_repo(sandbox, model), vllm.install().worse_model)
        return
    commit_simulated(sandbox, _repo(sandbox, model), quality=WORSE)


def commit_simulated(sandbox: Sandbox, repo: str, *, quality: float, version: int = 0) -> str:
    """Commit simulated weights that answer this share of the suites' cases right; return the commit's id.

    Versions of the same quality differ in their bytes and give the same answers.
    """
    with tempfile.TemporaryDirectory(dir=sandbox.folder) as folder:
        path = Path(folder) / "model"
        make_model(path, size_bytes=SIZE + version * STEP, quality=quality, suites_dir=sandbox.project / "evals")
        return sandbox.hub_store.commit(repo, path)


def _repo(sandbox: Sandbox, model: str) -> str:
    return load_model(sandbox.project / "models" / f"{model}.yaml").weights.repo
