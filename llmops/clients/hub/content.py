"""Reads one file of a commit, or a part of it, from the hub."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmops.clients.hub.client import TIMEOUT_SECONDS, ask
from llmops.clients.retries import Patience, Unbounded
from llmops.errors import BadRelease

if TYPE_CHECKING:
    from huggingface_hub import HfApi


def read_content(
    repo: str,
    commit: str,
    path: str,
    longest: int,
    *,
    endpoint: str,
    token: str | None,
    patience: Patience,
    part: tuple[int, int] | None = None,
) -> bytes:
    """A file of a commit, or the bytes from the first to the last of `part`.

    Args:
        repo: OWNER/NAME.
        commit: 40 hex digits.
        path: Name of the file.
        longest: Bytes of the answer, at most: of the whole file where the hub does not send parts.
        endpoint: Base URL of the hub.
        token: Hub token; None asks anonymously.
        patience: How long to retry while the hub is away.
        part: The first and the last byte; None for the whole file.

    Raises:
        BadRelease: The file does not exist, or has more bytes than `longest`.
        BadInput: The token has no access.
        Unavailable: The hub does not answer in time, or limits the rate.
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
        raise bad_file(path, repo, commit, f"cannot be read: it is longer than {longest:,} bytes") from error


def bad_file(path: str, repo: str, commit: str, problem: str) -> BadRelease:
    """The error for a file of a commit that is not what its name says."""
    where = f"{path} of {repo}@{commit[:12]}"
    return BadRelease(f"{where} {problem}", code="FileMalformed", about=where)
