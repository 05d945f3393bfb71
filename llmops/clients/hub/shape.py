"""Reads the configuration and the tensor shapes of a model from the hub, without its weights."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from llmops.clients.hub.client import DEFAULT_PATIENCE, TIMEOUT_SECONDS, ask
from llmops.clients.retries import Patience
from llmops.errors import BadRelease

if TYPE_CHECKING:
    from huggingface_hub import HfApi


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

    def question(api: HfApi) -> bytes:
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import get_session, hf_raise_for_status

        url = hf_hub_url(repo, path, revision=commit, endpoint=endpoint)
        headers = {"Authorization": f"Bearer {api.token}"} if api.token else {}
        answer = get_session().get(url, headers=headers, timeout=TIMEOUT_SECONDS, follow_redirects=True)
        hf_raise_for_status(answer)
        return answer.content

    text = ask(question, f"{repo}@{commit[:12]}", endpoint, token, patience)
    try:
        content = json.loads(text)
    except ValueError as error:
        raise _bad_file(path, repo, commit, f"is not JSON: {error}") from error
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
    from huggingface_hub.errors import SafetensorsParsingError

    total: Counter[str] = Counter()
    for path in files:

        def question(api: HfApi, path: str = path) -> Mapping[str, int]:
            header = api.parse_safetensors_file_metadata(repo, path, revision=commit, timeout=TIMEOUT_SECONDS)
            return {str(kind): count for kind, count in header.parameter_count.items()}

        try:
            total.update(ask(question, f"{repo}@{commit[:12]}", endpoint, token, patience))
        except SafetensorsParsingError as error:
            raise _bad_file(path, repo, commit, f"is not a safetensors file: {error}") from error
    return dict(total)


def _bad_file(path: str, repo: str, commit: str, problem: str) -> BadRelease:
    where = f"{path} of {repo}@{commit[:12]}"
    return BadRelease(f"{where} {problem}", code="FileMalformed", about=where)
