"""Reads the configuration and the tensor shapes of a model from the hub, without its weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial
from math import prod
from typing import Any

from llmops.clients.hub.client import DEFAULT_PATIENCE
from llmops.clients.hub.content import bad_file, read_content
from llmops.clients.retries import Patience
from llmops.worker.foreign import (
    LONGEST_HEADER,
    SAFETENSORS_PREFIX,
    BadBytes,
    header_length,
    parse_json,
    parse_tensors,
)

LONGEST_CONFIG = 8 << 20
"""Bytes of a config.json. Those of quantized models with a list of their layers have up to 1 MiB."""
_FIRST_BYTES = 100_000
"""As `huggingface_hub` reads at first: most headers are shorter."""


def read_config(
    repo: str,
    commit: str,
    path: str = "config.json",
    *,
    endpoint: str,
    token: str | None = None,
    patience: Patience = DEFAULT_PATIENCE,
) -> Mapping[str, Any]:
    """Content of a commit's `config.json`, or of another JSON file beside it.

    Raises:
        BadRelease: The file does not exist, or is not a JSON object.
        BadInput: The token has no access.
        Unavailable: The hub does not answer, or limits the rate.
    """

    text = read_content(repo, commit, path, LONGEST_CONFIG, endpoint=endpoint, token=token, patience=patience)
    try:
        content = parse_json(text)
    except BadBytes as error:
        raise bad_file(path, repo, commit, f"cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise bad_file(path, repo, commit, "is not an object")
    return content


def count_parameters(
    repo: str,
    commit: str,
    files: Iterable[str],
    *,
    endpoint: str,
    token: str | None = None,
    patience: Patience = DEFAULT_PATIENCE,
) -> Mapping[str, int]:
    """Parameters in safetensors files by format (`BF16`, `F8_E4M3`, ...). Reads the header, 100 kB, of each file.

    Raises:
        BadRelease: A file has no safetensors header.
        BadInput, Unavailable: As in `read_config`.
    """
    total: Counter[str] = Counter()
    for path in files:
        try:
            for tensor in parse_tensors(_header(repo, commit, path, endpoint, token, patience)).values():
                total[tensor.dtype] += prod(tensor.shape)
        except BadBytes as error:
            raise bad_file(path, repo, commit, f"is not a safetensors file: {error}") from error
    return dict(total)


def _header(repo: str, commit: str, path: str, endpoint: str, token: str | None, patience: Patience) -> bytes:
    """The header of a safetensors file: by one request if it is short, else by two."""
    read = partial(read_content, repo, commit, path, LONGEST_HEADER, endpoint=endpoint, token=token, patience=patience)
    first = read(part=(0, _FIRST_BYTES))
    length = header_length(first)
    if SAFETENSORS_PREFIX + length <= len(first):
        return first[SAFETENSORS_PREFIX : SAFETENSORS_PREFIX + length]
    return read(part=(SAFETENSORS_PREFIX, SAFETENSORS_PREFIX + length - 1))
