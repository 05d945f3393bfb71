"""Fidelity on the real vLLM: the equal release passes each time, and each planted fault has its own reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from llmops_sandbox.engine.exchanges import MODEL
from llmops_sandbox.engine.process import EngineProcess
from llmops_sandbox.programs.vllm import Vllm

from llmops.config.catalog.spec import Evaluation
from llmops.evaluation.endpoint import Endpoint
from llmops.evaluation.evaluate import compare
from llmops.evaluation.fidelity.distances import Distances
from llmops.evaluation.gates.offline import asking, decide
from llmops.evaluation.gates.verdict import GateResult
from llmops.evaluation.suites import load_suites
from tests.opt_in.vllm.planted import change_json, change_weights, copied, quantized, swapped

EVALS = Path(__file__).parents[3] / "evals"
SUITES = load_suites(EVALS, ("arithmetic", "extraction", "instructions", "json", "reasoning", "fidelity"))
RULES = asking(Evaluation(suites=tuple(suite.name for suite in SUITES)), SUITES, same=True)
EQUAL_RUNS = 10
LAYER = "layers.14"
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

Launch = Callable[..., EngineProcess]


def judged(canary: EngineProcess, stable: EngineProcess) -> tuple[GateResult, Distances]:
    ours, theirs = compare(Endpoint(canary.url, MODEL), Endpoint(stable.url, MODEL), SUITES, 4, rules=RULES)
    verdict = decide(RULES, ours, theirs)
    return next(gate for gate in verdict.gates if gate.rule == "max_divergence"), ours.distances["fidelity"]


@pytest.fixture
def plant(installed: Vllm, launch_real: Launch, tmp_path: Path) -> Callable[[Callable[[Path], None]], EngineProcess]:
    """Makes an engine over a copy of the model with a fault, and does not start it."""

    def planted(fault: Callable[[Path], None]) -> EngineProcess:
        folder = copied(installed.model, tmp_path / "model")
        fault(folder)
        return launch_real(model=folder)

    return planted


@pytest.mark.timeout(3600)
def test_the_equal_release_passes_each_time(real: EngineProcess, launch_real: Launch) -> None:
    with launch_real("--max-num-seqs", "8") as canary:
        for _ in range(EQUAL_RUNS):
            gate, found = judged(canary, real)
            assert (gate.outcome, gate.code) == ("Passed", "WithinLimit"), gate.note
            assert found.changed == 0


def weights(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: change_weights(folder, {f"{name}.weight": change for name, change in changes.items()})


def times(factor: float) -> Callable[[Path], None]:
    return lambda folder: change_weights(folder, {f"{LAYER}.mlp.down_proj.weight": lambda values: values * factor})


def rope(folder: Path) -> None:
    change_json(folder, "config.json", lambda config: config["rope_parameters"].update(rope_theta=110_000.0))


def norm(folder: Path) -> None:
    change_json(folder, "config.json", lambda config: config.update(rms_norm_eps=1e-4))


def template(folder: Path) -> None:
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text().replace("<|im_start|>assistant", "<|im_start|>bot"))


def merges(folder: Path) -> None:
    def cut(tokenizer: Any) -> None:
        del tokenizer["model"]["merges"][2000:]

    change_json(folder, "tokenizer.json", cut)


def sampling(folder: Path) -> None:
    change_json(folder, "generation_config.json", lambda config: config.update(repetition_penalty=1.3))


FAULTS: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "weights rounded to 4 bits": (weights(**dict.fromkeys(PROJECTIONS, quantized(4))), "BeyondLimit", "another model"),
    "one tensor times 1.05": (times(1.05), "BeyondLimit", "another model"),
    "two rows of a projection swapped": (
        lambda folder: change_weights(folder, {f"{LAYER}.self_attn.q_proj.weight": swapped(3, 200)}),
        "BeyondLimit",
        "another model",
    ),
    "RoPE theta times 1.1": (rope, "BeyondLimit", "another model"),
    "wrong chat template": (template, "PromptsDiffer", "the chat template or the tokenizer differs"),
    "truncated merges": (merges, "PromptsDiffer", "the chat template or the tokenizer differs"),
    "sampling defaults changed": (sampling, "BeyondLimit", "it writes otherwise than it reads"),
}


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_rejected_for_its_own_reason(
    real: EngineProcess, plant: Callable[[Callable[[Path], None]], EngineProcess], fault: str
) -> None:
    change, code, why = FAULTS[fault]
    with plant(change) as canary:
        gate, found = judged(canary, real)
    assert (gate.outcome, gate.code) == ("Failed", code), (gate.note, found.figures())
    assert why in gate.note


@pytest.mark.timeout(1800)
def test_another_norm_epsilon_is_below_the_margin_and_reported(
    real: EngineProcess, plant: Callable[[Callable[[Path], None]], EngineProcess]
) -> None:
    with plant(norm) as canary:
        gate, found = judged(canary, real)
    assert gate.outcome == "Passed", gate.note
    assert 0.0005 < found.figures()["divergence"] < 0.004
