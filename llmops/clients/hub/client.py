"""Requests to the hub, through `huggingface_hub`.

The first request imports the library, because the import takes a second, which loading the definitions must not take.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from llmops.clients.hub.files import HubFile
from llmops.clients.retries import Patience
from llmops.config.redaction import as_header, without_password
from llmops.errors import BadInput, Unavailable

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoSibling

ResultT = TypeVar("ResultT")
TIMEOUT_SECONDS = 20.0
DEFAULT_PATIENCE = Patience()


def resolve(
    repo: str,
    revision: str,
    *,
    endpoint: str,
    token: str | None = None,
    patience: Patience = DEFAULT_PATIENCE,
    timeout: float = TIMEOUT_SECONDS,
) -> str:
    """The commit, 40 hex digits, that a branch, tag or commit of a repository points to now.

    Args:
        repo: OWNER/NAME.
        revision: Branch, tag or commit.
        endpoint: Base URL of the hub.
        token: Hub token; None asks anonymously.
        patience: How long to retry while the hub is away.
        timeout: Seconds to wait for an answer.

    Raises:
        BadInput: The repository or revision does not exist, or the token has no access.
        Unavailable: The hub does not answer, or limits the rate.
    """

    def question(api: HfApi) -> str:
        # `expand` leaves out the list of files, the largest part of the answer.
        sha = api.model_info(repo, revision=revision, timeout=timeout, expand=["sha"]).sha
        if not _matches(_SHA1, sha):
            raise Unavailable(
                f"The hub at {endpoint} answered for {repo}@{revision} without a commit.",
                code="MalformedAnswer",
                about=repo,
                remedy=_REMEDY,
            )
        return str(sha)

    return ask(question, f"{repo}@{revision}", endpoint, token, patience)


def list_files(
    repo: str, commit: str, *, endpoint: str, token: str | None = None, patience: Patience = DEFAULT_PATIENCE
) -> tuple[HubFile, ...]:
    """All files of a commit with size and hash, sorted by path.

    Raises:
        BadInput: The repository or commit does not exist, or the token has no access.
        Unavailable: The hub does not answer, or limits the rate.
    """

    def question(api: HfApi) -> tuple[HubFile, ...]:
        info = api.model_info(repo, revision=commit, files_metadata=True, timeout=TIMEOUT_SECONDS)
        return tuple(sorted(_hub_file(item, f"{repo}@{commit}", endpoint) for item in info.siblings or ()))

    return ask(question, f"{repo}@{commit}", endpoint, token, patience)


def check_access(repo: str, *, endpoint: str, token: str | None = None, patience: Patience = DEFAULT_PATIENCE) -> None:
    """Check that the token may download files: a gated repository lists its files to everyone, and serves them to few.

    Raises:
        BadInput: The repository is gated, private or missing; the remedy says how to get access.
        Unavailable: The hub does not answer, or limits the rate.
    """
    ask(lambda api: api.auth_check(repo), repo, endpoint, token, patience)


def whoami(*, endpoint: str, token: str, patience: Patience = DEFAULT_PATIENCE) -> str:
    """Name of the account of a token.

    Raises:
        BadInput: The hub does not know the token.
        Unavailable: The hub does not answer, or limits the rate.
    """

    def question(api: HfApi) -> str:
        return str(api.whoami()["name"])

    return ask(question, "the token", endpoint, token, patience)


def ask(
    question: Callable[[HfApi], ResultT], target: str, endpoint: str, token: str | None, patience: Patience
) -> ResultT:
    """Ask the hub, and retry for the patience while it is away.

    Args:
        question: The request, through the library's client.
        target: REPO or REPO@REVISION, for messages.
        endpoint: Base URL of the hub.
        token: Hub token; None asks anonymously.
        patience: How long to retry.

    Raises:
        BadInput: The hub refuses, or the token is not fit for a header.
        Unavailable: The hub does not answer within bounds, or limits the rate.
    """
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    from llmops.clients.bounded import BeyondBounds
    from llmops.clients.hub import session
    from llmops.clients.hub.failures import no_answer, refusal

    session.install()
    # False, because None takes a token from the environment or the home folder of this process's user.
    api = HfApi(endpoint=endpoint, token=as_header(token, "the hub token") if token else False)
    shown = without_password(endpoint)

    def attempt() -> ResultT:
        try:
            return question(api)
        except HfHubHTTPError as error:
            raise refusal(error, target, shown, has_token=token is not None) from error
        except OfflineModeIsEnabled as error:
            raise BadInput(
                f"Cannot ask the hub about {target}: HF_HUB_OFFLINE is set in this process.",
                code="HubOffline",
                about=target,
                remedy="Unset HF_HUB_OFFLINE where the pipeline runs; engines set it for themselves.",
            ) from error
        except HFValidationError as error:
            raise BadInput(
                f"{target} is not a repository name of the hub: {error}", code="InvalidRepositoryName", about=target
            ) from error
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol):
            # The text of the error may have a part of a password.
            raise BadInput(
                f"hub_endpoint {shown!r} in the settings is not a URL of http or https",
                code="InvalidUrl",
                about="hub_endpoint",
            ) from None
        except BeyondBounds as error:
            raise error.told(f"the hub at {shown}", target) from error
        except (httpx2.HTTPError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            # Apart from the first: the library takes the form of an answer for granted.
            raise no_answer(error, target, shown) from error

    return patience.call(attempt)


def _hub_file(item: RepoSibling, target: str, endpoint: str) -> HubFile:
    lfs = item.lfs
    path, size, digest = item.rfilename, lfs.size if lfs else item.size, lfs.sha256 if lfs else item.blob_id
    known = _matches(_PATH, path) and _matches(_SHA256 if lfs else _SHA1, digest)
    if not known or type(size) is not int or size < 0:
        raise Unavailable(
            f"The hub at {endpoint} lists {str(path)[:_PATH_SHOWN]!r} of {target} without path, size and hash.",
            code="MalformedAnswer",
            about=target,
            remedy=_REMEDY,
        )
    return HubFile(path, size, sha256=digest) if lfs else HubFile(path, size, git_sha1=digest)


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


_SHA1 = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# As git has them: relative, without `.` and `..`, and without NUL.
_PATH = re.compile(r"(?!/)(?:(?!\.{1,2}(?:/|\Z))[^/\0]+/)*(?!\.{1,2}\Z)[^/\0]+", re.DOTALL)
_PATH_SHOWN = 200
_REMEDY = "Check hub_endpoint in the settings: this server seems not to be a hub."
