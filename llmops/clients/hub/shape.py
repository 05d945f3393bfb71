"""The configuration and the tensors of a model, read from the hub without its weights."""

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
    repo: str, commit: str, *, endpoint: str, token: str | None = None, patience: Patience = DEFAULT_PATIENCE
) -> Mapping[str, Any]:
    """Content of a commit's `config.json`.

    Raises:
        BadRelease: There is none, or it is not JSON.
        BadInput: It may not be read with this token.
        Unavailable: The hub does not answer, or asks to come back later.
    """

    def question(api: HfApi) -> bytes:
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import get_session, hf_raise_for_status

        url = hf_hub_url(repo, "config.json", revision=commit, endpoint=endpoint)
        headers = {"Authorization": f"Bearer {api.token}"} if api.token else {}
        answer = get_session().get(url, headers=headers, timeout=TIMEOUT_SECONDS, follow_redirects=True)
        hf_raise_for_status(answer)
        return answer.content

    text = ask(question, f"{repo}@{commit[:12]}", endpoint, token, patience)
    try:
        found = json.loads(text)
    except ValueError as error:
        raise BadRelease(f"config.json of {repo}@{commit[:12]} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise BadRelease(f"config.json of {repo}@{commit[:12]} is not an object")
    return found


def count_parameters(
    repo: str,
    commit: str,
    files: Iterable[str],
    *,
    endpoint: str,
    token: str | None = None,
    patience: Patience = DEFAULT_PATIENCE,
) -> Mapping[str, int]:
    """Numbers in safetensors files by format (`BF16`, `F8_E4M3`, ...), from their headers: 100 kB of each is read.

    Raises:
        BadRelease: A file has no header of the format.
        BadInput, Unavailable: As in `read_config`.
    """
    from huggingface_hub.errors import SafetensorsParsingError

    found: Counter[str] = Counter()
    for path in files:

        def question(api: HfApi, path: str = path) -> Mapping[str, int]:
            header = api.parse_safetensors_file_metadata(repo, path, revision=commit, timeout=TIMEOUT_SECONDS)
            return {str(kind): count for kind, count in header.parameter_count.items()}

        try:
            found.update(ask(question, f"{repo}@{commit[:12]}", endpoint, token, patience))
        except SafetensorsParsingError as error:
            raise BadRelease(f"{path} of {repo}@{commit[:12]} is not a safetensors file: {error}") from error
    return dict(found)
