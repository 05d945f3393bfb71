"""Reads small JSON files of a commit from the hub."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from llmops.clients.hub.client import DEFAULT_PATIENCE, TIMEOUT_SECONDS, ask
from llmops.clients.hub.files import HubFile
from llmops.clients.retries import Patience
from llmops.errors import BadRelease, Unavailable

if TYPE_CHECKING:
    from huggingface_hub import HfApi

LARGEST = 64 << 20
"""Bytes of the largest file that is read: the index of a model with a trillion parameters has about 20 MB."""

LONGEST_SECONDS = 120.0
"""Seconds that one file may take in all: a hub that sends a byte now and then would never end."""


def read_documents(
    repo: str,
    commit: str,
    files: Sequence[HubFile],
    *,
    endpoint: str,
    token: str | None = None,
    patience: Patience = DEFAULT_PATIENCE,
) -> Mapping[str, object]:
    """Content of JSON files of a commit, by path.

    Raises:
        BadRelease: A file is larger than `LARGEST`, larger than the hub says, or is not JSON.
        BadInput: The token has no access.
        Unavailable: The hub does not answer, or limits the rate.
    """
    documents: dict[str, object] = {}
    for file in files:
        where = f"{file.path} of {repo}@{commit[:12]}"
        if file.size > LARGEST:
            raise _malformed(where, f"has {file.size} bytes; llmops reads at most {LARGEST}")

        def question(api: HfApi, file: HubFile = file) -> bytes:
            return _read(api, repo, commit, file, endpoint)

        content = ask(question, f"{repo}@{commit[:12]}", endpoint, token, patience)
        if len(content) != file.size:
            raise _malformed(where, f"has other than the {file.size} bytes that the hub lists")
        try:
            documents[file.path] = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise _malformed(where, f"is not JSON: {type(error).__name__}: {error}") from error
    return documents


def _read(api: HfApi, repo: str, commit: str, file: HubFile, endpoint: str) -> bytes:
    """The file's bytes; one more than it should have, if it has more."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import get_session, hf_raise_for_status

    url = hf_hub_url(repo, file.path, revision=commit, endpoint=endpoint)
    headers = {"Authorization": f"Bearer {api.token}"} if api.token else {}
    content, deadline = bytearray(), time.monotonic() + LONGEST_SECONDS
    with get_session().stream("GET", url, headers=headers, timeout=TIMEOUT_SECONDS, follow_redirects=True) as answer:
        if answer.is_error:
            answer.read()
        hf_raise_for_status(answer)
        for block in answer.iter_bytes(1 << 16):
            content += block
            if len(content) > file.size:
                break
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"The hub sent {len(content)} of {file.size} bytes of {file.path} in {LONGEST_SECONDS:g} s.",
                    code="HubTooSlow",
                    about=repo,
                )
    return bytes(content[: file.size + 1])


def _malformed(where: str, problem: str) -> BadRelease:
    return BadRelease(f"{where} {problem}.", code="FileMalformed", about=where)
