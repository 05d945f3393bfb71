"""Reads a weights folder as an engine does at its start; refuses missing, cut and mismatched files as vLLM does."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

INDEX = "model.safetensors.index.json"
_HEADER_LIMIT = 100_000_000
_QUANTIZATION_FILES = {
    "awq": ("quant_config.json", "quantize_config.json"),
    "awq_marlin": ("quant_config.json", "quantize_config.json"),
    "gptq": ("quantize_config.json",),
    "gptq_marlin": ("quantize_config.json",),
}


class LoadError(Exception):
    """The engine cannot start on this folder.

    Args:
        kind: Dotted name of the exception that vLLM raises, as its traceback shows it.
        message: Its text.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind
        self.message = message


@dataclass(frozen=True)
class Weights:
    """A folder that can be served."""

    folder: Path
    config: Mapping[str, Any]
    files: tuple[Path, ...]

    @property
    def size(self) -> int:
        """Bytes of the safetensors files."""
        return sum(file.stat().st_size for file in self.files)

    @property
    def context_length(self) -> int:
        """Tokens of context that the model was made for."""
        return _context_length(self.config)


def read_config(model: str, environ: Mapping[str, str]) -> tuple[Path, dict[str, Any]]:
    """Find the folder and read its config.json.

    Raises:
        LoadError: There is no such folder (engines run offline and load no repository id), or it has no valid config.
    """
    folder = Path(model)
    if not folder.is_dir():
        if model.startswith(("/", ".")) or model.count("/") > 1:
            raise LoadError(
                "huggingface_hub.errors.HFValidationError",
                f"Repo id must be in the form 'repo_name' or 'namespace/repo_name': '{model}'. "
                "Use `repo_type` argument if needed.",
            )
        if environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
            raise LoadError(
                "huggingface_hub.errors.LocalEntryNotFoundError",
                "Cannot find an appropriate cached snapshot folder for the specified revision on the local disk and "
                "outgoing traffic has been disabled. To enable repo look-ups and downloads online, pass "
                "'local_files_only=False' as input.",
            )
        raise LoadError("OSError", f"'{model}' is no local folder, and the simulated engine loads nothing else.")
    try:
        config = json.loads((folder / "config.json").read_text())
    except FileNotFoundError as error:
        raise LoadError("ValueError", f"No supported config format found in {folder}.") from error
    except ValueError as error:
        raise LoadError(
            "OSError",
            f"It looks like the config file at '{folder / 'config.json'}' is not a valid JSON file.",
        ) from error
    return folder, config


def check_options(folder: Path, config: Mapping[str, Any], quantization: str | None, max_model_len: int | None) -> None:
    """Refuse a quantization that the weights do not have, and a context longer than the model's.

    Raises:
        LoadError: In vLLM's words.
    """
    length = _context_length(config)
    if max_model_len and max_model_len > length:
        raise _invalid(
            "ModelConfig",
            f"User-specified max_model_len ({max_model_len}) is greater than the derived max_model_len "
            f"(max_position_embeddings={length} or model_max_length=None in model's config.json). To allow "
            "overriding this maximum, set the env var VLLM_ALLOW_LONG_MAX_MODEL_LEN=1.",
        )
    if quantization is None:
        return
    own = config.get("quantization_config")
    if own:
        method = str(own.get("quant_method", ""))
        if method.removesuffix("_marlin") != quantization.removesuffix("_marlin"):
            raise _invalid(
                "ModelConfig",
                f"Quantization method specified in the model config ({method}) does not match the quantization "
                f"method specified in the `quantization` argument ({quantization}).",
            )
        return
    wanted = _QUANTIZATION_FILES.get(quantization)
    if wanted and not any((folder / name).is_file() for name in wanted):
        raise _invalid("VllmConfig", f"Cannot find the config file for {quantization}")


def _invalid(model: str, message: str) -> LoadError:
    return LoadError(
        "pydantic_core._pydantic_core.ValidationError",
        f"1 validation error for {model}\n  Value error, {message} [type=value_error]",
    )


def _context_length(config: Mapping[str, Any]) -> int:
    return int(config.get("max_position_embeddings", 2048))


def check_weights(folder: Path, config: Mapping[str, Any]) -> Weights:
    """Check that every tensor is complete.

    Raises:
        LoadError: There are no safetensors, a file or tensor of the index is missing, or a file's length is wrong.
    """
    files = tuple(sorted(folder.glob("*.safetensors")))
    if not files:
        raise LoadError("RuntimeError", f"Cannot find any model weights with `{folder}`")
    index = folder / INDEX
    weight_map: dict[str, str] = json.loads(index.read_text())["weight_map"] if index.is_file() else {}
    absent = sorted({str(folder / name) for name in weight_map.values() if not (folder / name).is_file()})
    if absent:
        raise LoadError("FileNotFoundError", f"Weight files referenced in index but missing: {set(absent)}")
    stored = {name for file in files for name in _tensors(file)}
    if lost := sorted(set(weight_map) - stored):
        raise LoadError("ValueError", f"Following weights were not initialized from checkpoint: {set(lost)}")
    return Weights(folder, config, files)


def _tensors(file: Path) -> list[str]:
    size = file.stat().st_size
    with file.open("rb") as stream:
        prefix = stream.read(8)
        if len(prefix) < 8:
            raise _broken("header too small")
        (length,) = struct.unpack("<Q", prefix)
        if length > _HEADER_LIMIT:
            raise _broken("header too large")
        if length > size - 8:
            raise _broken("invalid header length")
        try:
            header = json.loads(stream.read(length))
            tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
            end = max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise _broken("invalid JSON in header") from error
    if 8 + length + end != size:
        raise _broken("incomplete metadata, file not fully covered")
    return list(tensors)


def _broken(reason: str) -> LoadError:
    return LoadError("safetensors._safetensors_rust.SafetensorError", f"Error while deserializing header: {reason}")


def read_through(weights: Weights) -> None:
    """Read every byte once, as loading to a GPU does, without keeping it."""
    for file in weights.files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            while os.read(descriptor, 1 << 20):
                pass
        finally:
            os.close(descriptor)
