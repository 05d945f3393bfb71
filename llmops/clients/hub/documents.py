"""Reads small JSON files of a commit from the hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llmops.clients.hub.client import DEFAULT_PATIENCE
from llmops.clients.hub.content import bad_file, read_content
from llmops.clients.hub.files import HubFile
from llmops.clients.retries import Patience
from llmops.worker.foreign import BadBytes, parse_json

LARGEST = 64 << 20
"""Bytes of the largest file that is read: the index of a model with a trillion parameters has about 20 MB."""
_LONGEST_REFUSAL = 1 << 20
"""Bytes for the hub's refusal of a short file."""


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
        BadRelease: A file is larger than `LARGEST`, has other than the bytes that the hub lists, or is not JSON.
        BadInput: The token has no access.
        Unavailable: The hub does not answer in time, or limits the rate.
    """
    documents: dict[str, object] = {}
    for file in files:
        if file.size > LARGEST:
            problem = f"has {file.size:,} bytes; llmops reads at most {LARGEST:,}"
            raise bad_file(file.path, repo, commit, problem)
        longest = max(file.size, _LONGEST_REFUSAL)
        content = read_content(repo, commit, file.path, longest, endpoint=endpoint, token=token, patience=patience)
        if len(content) != file.size:
            problem = f"has other than the {file.size:,} bytes that the hub lists"
            raise bad_file(file.path, repo, commit, problem)
        try:
            documents[file.path] = parse_json(content, longest=LARGEST)
        except BadBytes as error:
            raise bad_file(file.path, repo, commit, f"cannot be read: {error}") from error
    return documents
