"""Questions to the hub, through `huggingface_hub`.

The library is imported on the first question: it takes a second that loading the definitions must not take.
"""

from __future__ import annotations

from collections.abc import Callable
from json import JSONDecodeError
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
    """The commit, 40 hex digits, that a branch, tag or commit of a repository is at now.

    Args:
        repo: OWNER/NAME.
        revision: Branch, tag or commit.
        endpoint: Base URL of the hub.
        token: Hub token; None asks as nobody.
        patience: How long to try while the hub is away.
        timeout: Seconds after which a request that is not answered is given up.

    Raises:
        BadInput: The repository or revision does not exist, or may not be read with this token.
        Unavailable: The hub does not answer, or asks to come back later.
    """

    def question(api: HfApi) -> str:
        # Without the list of files, which is all there is to most answers.
        sha = api.model_info(repo, revision=revision, timeout=timeout, expand=["sha"]).sha
        if not sha:
            raise Unavailable(f"The hub at {endpoint} answered for {repo}@{revision} without a commit.")
        return sha

    return ask(question, f"{repo}@{revision}", endpoint, token, patience)


def list_files(
    repo: str, commit: str, *, endpoint: str, token: str | None = None, patience: Patience = DEFAULT_PATIENCE
) -> tuple[HubFile, ...]:
    """All files of a commit with size and hash, sorted by path.

    Raises:
        BadInput: The repository or commit does not exist, or may not be read with this token.
        Unavailable: The hub does not answer, or asks to come back later.
    """

    def question(api: HfApi) -> tuple[HubFile, ...]:
        info = api.model_info(repo, revision=commit, files_metadata=True, timeout=TIMEOUT_SECONDS)
        return tuple(sorted(_hub_file(item, f"{repo}@{commit}", endpoint) for item in info.siblings or ()))

    return ask(question, f"{repo}@{commit}", endpoint, token, patience)


def check_access(repo: str, *, endpoint: str, token: str | None = None, patience: Patience = DEFAULT_PATIENCE) -> None:
    """Check that files may be downloaded: a gated repository lists its files to everyone, and serves them to few.

    Raises:
        BadInput: The repository is gated, private or not there; the message says how to get access.
        Unavailable: The hub does not answer, or asks to come back later.
    """
    ask(lambda api: api.auth_check(repo), repo, endpoint, token, patience)


def whoami(*, endpoint: str, token: str, patience: Patience = DEFAULT_PATIENCE) -> str:
    """Whose account a token is of.

    Raises:
        BadInput: The hub does not know the token.
        Unavailable: The hub does not answer, or asks to come back later.
    """

    def question(api: HfApi) -> str:
        return str(api.whoami()["name"])

    return ask(question, "the token", endpoint, token, patience)


def ask(
    question: Callable[[HfApi], ResultT], target: str, endpoint: str, token: str | None, patience: Patience
) -> ResultT:
    """Ask the hub, as long as patience lasts, and tell a refusal from a hub that is away.

    Raises:
        BadInput: The hub refuses, or the token is none.
        Unavailable: It does not answer, or asks to come back later.
    """
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    from llmops.clients.hub.failures import no_answer, refusal

    # False, because None would take a token from the environment or the home folder of whoever runs this.
    api = HfApi(endpoint=endpoint, token=as_header(token, "the hub token") if token else False)
    told = without_password(endpoint)

    def attempt() -> ResultT:
        try:
            return question(api)
        except HfHubHTTPError as error:
            raise refusal(error, target, told, has_token=token is not None) from error
        except OfflineModeIsEnabled as error:
            raise BadInput(
                f"The hub cannot be asked about {target}: HF_HUB_OFFLINE is set in this process.",
                remedy="Unset HF_HUB_OFFLINE where the pipeline runs; engines set it for themselves.",
            ) from error
        except HFValidationError as error:
            raise BadInput(f"{target} is no repository of the hub: {error}") from error
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol):
            # Without their text, in which a part of a password may be.
            raise BadInput(f"hub_endpoint {told!r} in the settings is no URL of http or https") from None
        except (httpx2.HTTPError, JSONDecodeError, UnicodeDecodeError, KeyError) as error:
            raise no_answer(error, target, told) from error

    return patience.call(attempt)


def _hub_file(item: RepoSibling, target: str, endpoint: str) -> HubFile:
    if item.size is None or not (item.lfs or item.blob_id):
        raise Unavailable(f"The hub at {endpoint} lists {item.rfilename} of {target} without size and hash.")
    if item.lfs:
        return HubFile(item.rfilename, item.lfs.size, sha256=item.lfs.sha256)
    return HubFile(item.rfilename, item.size, git_sha1=item.blob_id)
