"""Reads the configuration and the tensor shapes of a model from the hub, without its weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from math import prod
from typing import TYPE_CHECKING, Any

from llmops.clients.hub.client import DEFAULT_PATIENCE, TIMEOUT_SECONDS, ask
from llmops.clients.retries import Patience, Unbounded
from llmops.errors import BadRelease
from llmops.worker.foreign import (
    LONGEST_HEADER,
    SAFETENSORS_PREFIX,
    BadBytes,
    header_length,
    parse_json,
    parse_tensors,
)

if TYPE_CHECKING:
    from huggingface_hub import HfApi


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

    text = _read(repo, commit, path, LONGEST_CONFIG, endpoint, token, patience)
    try:
        content = parse_json(text)
    except BadBytes as error:
        raise _bad_file(path, repo, commit, f"cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise _bad_file(path, repo, commit, "is not an object")
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
            raise _bad_file(path, repo, commit, f"is not a safetensors file: {error}") from error
    return dict(total)


def _header(repo: str, commit: str, path: str, endpoint: str, token: str | None, patience: Patience) -> bytes:
    """The header of a safetensors file: by one request if it is short, else by two."""
    first = _read(repo, commit, path, LONGEST_HEADER, endpoint, token, patience, (0, _FIRST_BYTES))
    length = header_length(first)
    if SAFETENSORS_PREFIX + length <= len(first):
        return first[SAFETENSORS_PREFIX : SAFETENSORS_PREFIX + length]
    rest = (SAFETENSORS_PREFIX, SAFETENSORS_PREFIX + length - 1)
    return _read(repo, commit, path, LONGEST_HEADER, endpoint, token, patience, rest)


def _read(
    repo: str,
    commit: str,
    path: str,
    longest: int,
    endpoint: str,
    token: str | None,
    patience: Patience,
    part: tuple[int, int] | None = None,
) -> bytes:
    """A file of a commit, or the bytes from the first to the last of `part`.

    Raises:
        BadRelease: The file does not exist, or has more bytes than `longest`.
        BadInput, Unavailable: As in `read_config`.
    """

    def question(api: HfApi) -> bytes:
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import get_session, hf_raise_for_status

        from llmops.clients.bounded import LONGEST

        url = hf_hub_url(repo, path, revision=commit, endpoint=endpoint)
        headers = {"Authorization": f"Bearer {api.token}"} if api.token else {}
        if part is not None:
            headers["Range"] = f"bytes={part[0]}-{part[1]}"
        answer = get_session().get(
            url, headers=headers, timeout=TIMEOUT_SECONDS, follow_redirects=True, extensions={LONGEST: longest}
        )
        hf_raise_for_status(answer)
        return answer.content

    try:
        return ask(question, f"{repo}@{commit[:12]}", endpoint, token, patience)
    except Unbounded as error:
        if error.code != "AnswerTooLarge":
            raise
        raise _bad_file(path, repo, commit, f"cannot be read: it is longer than {longest:,} bytes") from error


def _bad_file(path: str, repo: str, commit: str, problem: str) -> BadRelease:
    where = f"{path} of {repo}@{commit[:12]}"
    return BadRelease(f"{where} {problem}", code="FileMalformed", about=where)
