"""Whether two releases must be the same model, or declare that they may differ."""

from __future__ import annotations

from llmops.config.vllm.arguments import texts
from llmops.releases.release import FilePin, Release, WeightsPin

DECLARING = (
    "--chat-template",
    "--chat-template-content-format",
    "--default-chat-template-kwargs",
    "--dtype",
    "--enable-lora",
    "--enable-mamba-cache-stochastic-rounding",
    "--generation-config",
    "--hf-config-path",
    "--hf-overrides",
    "--kv-cache-dtype",
    "--kv-cache-dtype-skip-layers",
    "--load-format",
    "--logits-processors",
    "--logprobs-mode",
    "--lora-dtype",
    "--lora-modules",
    "--mamba-cache-dtype",
    "--mamba-ssm-cache-dtype",
    "--model-class-overrides",
    "--model-impl",
    "--override-generation-config",
    "--quantization",
    "--quantization-config",
    "--tokenizer",
    "--tokenizer-mode",
    "--tokenizer-revision",
    "--trust-remote-code",
)
"""Arguments of vLLM that change what a model reads, what it calculates with, or what it writes. Others change how fast
and how much it serves, and must not change the model."""


def declared_changes(old: Release, new: Release) -> list[str]:
    """What a release declares to change about the model; empty if it must be the same model.

    Args:
        old: The release that serves now.
        new: The release under trial.
    """
    changed: list[str] = []
    if _files(old.weights) != _files(new.weights):
        changed.append("the files of the weights")
    if old.engine.chat_template != new.engine.chat_template:
        changed.append("engine.chat_template")
    before, after = (texts(release.engine.args) for release in (old, new))
    changed += [flag for flag in DECLARING if before.get(flag) != after.get(flag)]
    return changed


def _files(weights: WeightsPin) -> dict[str, FilePin]:
    return {file.path: file for file in weights.files}
