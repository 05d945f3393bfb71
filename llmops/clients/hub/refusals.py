"""Says what a repository is that has no weights for the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from llmops.clients.hub import loading as rules
from llmops.config.redaction import printable
from llmops.errors import BadRelease

NAMES_SHOWN = 5
_LONGEST_NAME = 120
# Formats of weights that vLLM 0.31 and 0.32 do not load, by suffix. vLLM's own loader of GGUF went before them.
_OTHER_FORMATS = {
    ".gguf": "GGUF",
    ".ggml": "GGML",
    ".onnx": "ONNX",
    ".nemo": "NeMo",
    ".pth": "PyTorch checkpoints (.pth)",
    ".ckpt": "PyTorch checkpoints (.ckpt)",
    ".distcp": "distributed PyTorch checkpoints",
    ".h5": "TensorFlow",
    ".tflite": "TensorFlow Lite",
    ".msgpack": "Flax",
    ".npz": "NumPy",
    ".engine": "TensorRT",
}


def no_weights(
    present: Sequence[str],
    matched: Sequence[str],
    include: Sequence[str],
    exclude: Sequence[str],
    allow_pickle: bool,
    documents: Mapping[str, object],
) -> BadRelease:
    """The error for a commit of which no weights are taken, which names what there is instead.

    Args:
        present: Paths of all files.
        matched: Paths that the patterns select.
        include: The patterns.
        exclude: Patterns of files to leave out.
        allow_pickle: Whether formats that can run code are allowed.
        documents: Content of `adapter_config.json`, if it is known.
    """
    weights = [path for path in present if rules.is_weights(path)]
    top = [path for path in weights if "/" not in path]
    models = [path for path in top if not rules.is_adapter(path)]
    if not models and (adapter := _adapter(top, present, documents)):
        return adapter
    patterns = f"weights.include {list(include)} without weights.exclude {list(exclude)}"
    safe = [path for path in models if path.endswith(rules.SAFE_SUFFIX)]
    if safe:
        return BadRelease(
            f"{patterns} selects no safetensors file that the engine loads; the repository has {some(safe)}.",
            code="WeightsNotSelected",
            about="weights.include",
            remedy="Correct weights.include and weights.exclude, and --load-format if engine.args sets it.",
        )
    if models and allow_pickle:
        return BadRelease(
            f"{patterns} selects no weights; the repository has {some(models)}.",
            code="WeightsNotSelected",
            about="weights.include",
            remedy="Add a pattern for them, such as '*.bin', to weights.include.",
        )
    if models:
        return BadRelease(
            f"The repository has no safetensors, only formats that can run code when loaded: {some(models)}.",
            code="OnlyUnsafeWeights",
            about=shown(models[0]),
            remedy="Use a repository or a revision with safetensors; or, if you trust its authors, set "
            "weights.allow_pickle: true and add a pattern for these files to weights.include.",
        )
    if below := [path for path in weights if path.endswith(rules.SAFE_SUFFIX)]:
        return BadRelease(
            f"The repository has weights only below its top folder, where the engine does not look: {some(below)}.",
            code="WeightsBelowTop",
            about=shown(below[0]),
            remedy="Take a repository that has the model in its top folder: its checkpoint as one of its own.",
        )
    return _other_format(present) or BadRelease(
        f"The repository has no weights at all: it has {some(matched or present) if present else 'no files'}.",
        code="NoWeights",
        remedy="Correct weights.repo or weights.revision.",
    )


def some(paths: Sequence[str]) -> str:
    """The first names of a list, and how many more there are."""
    names = ", ".join(map(shown, paths[:NAMES_SHOWN]))
    more = len(paths) - NAMES_SHOWN
    return f"{names} and {more} more" if more > 0 else names


def shown(name: str) -> str:
    """A foreign name for a message: what can be printed of it, and no more than a line."""
    text = printable(name.encode(errors="backslashreplace").decode())
    return text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}..."


def _adapter(top: Sequence[str], present: Sequence[str], documents: Mapping[str, object]) -> BadRelease | None:
    if rules.ADAPTER_CONFIG not in present and not top:
        return None
    content = documents.get(rules.ADAPTER_CONFIG)
    named = cast("Mapping[str, object]", content).get("base_model_name_or_path") if isinstance(content, Mapping) else ""
    base = shown(named) if isinstance(named, str) and named else ""
    return BadRelease(
        f"The repository is an adapter{f' of {base}' if base else ''} and no model: it has "
        f"{some(top or [rules.ADAPTER_CONFIG])} and no weights to apply it to.",
        code="AdapterAlone",
        about=shown((top or [rules.ADAPTER_CONFIG])[0]),
        remedy=f"Merge the adapter into {base or 'its base model'} (merge_and_unload of the library peft), and name "
        "the repository with the merged weights in weights.repo.",
    )


def _other_format(present: Sequence[str]) -> BadRelease | None:
    for suffix, name in _OTHER_FORMATS.items():
        if files := [path for path in present if path.lower().endswith(suffix)]:
            return BadRelease(
                f"The repository has weights as {name} only, which vLLM does not load: {some(files)}.",
                code="OtherFormat",
                about=shown(files[0]),
                remedy="Use a repository of the same model with safetensors: the one that these files were made from, "
                "or a quantized one (AWQ, GPTQ or FP8).",
            )
    return None
