"""Requests to registries: bounded answers, challenges answered, and errors of llmops for what is refused."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from llmops.clients.registry.answers import read_error
from llmops.clients.registry.auth import (
    DEFAULT_SECONDS,
    Challenge,
    Credentials,
    TokenCache,
    challenges,
    is_token_service,
)
from llmops.clients.registry.limits import pause_asked
from llmops.clients.registry.names import DOCKER_HUB, ImageName
from llmops.clients.retries import Patience
from llmops.config.redaction import as_header, printable, without_password
from llmops.errors import BadInput, LlmopsError, Unavailable
from llmops.worker.foreign import parse_json

if TYPE_CHECKING:
    import httpx2

    from llmops.clients.bounded import Network

MANIFEST_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
ACCEPT_MANIFESTS: Mapping[str, str] = {"Accept": ", ".join(MANIFEST_TYPES)}
LONGEST = 8 << 20
"""Bytes of an answer. Registries take manifests of 4 MiB, by the specification; 1,000 tags are 0.1 MiB."""
_LONGEST_TOKEN = 64 << 10
_DOCKER_HUB_HOST = "registry-1.docker.io"
_CLIENT_ID = "llmops"


class Asker:
    """Asks registries. Thread-safe; see `RegistryClient` for the arguments."""

    def __init__(
        self,
        mirrors: Mapping[str, str],
        credentials: Mapping[str, Credentials],
        token_services: Mapping[str, Collection[str]],
        patience: Patience,
        timeout: float,
    ) -> None:
        # Imported here, because the import takes time that loading the definitions must not take.
        import httpx2

        from llmops.clients import bounded

        self._mirrors = dict(mirrors)
        self._credentials = dict(credentials)
        self._token_services = dict(token_services)
        self._patience = patience
        self._tokens = TokenCache()
        self._http = bounded.BoundedClient(LONGEST, timeout)
        self._pauses: dict[str, float] = {}
        self._bounded = bounded
        self._httpx2 = httpx2

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def take_pause(self, image: ImageName) -> float | None:
        """See `RegistryClient.take_pause`."""
        return self._pauses.pop(str(image), None)

    def base(self, image: ImageName) -> str:
        """Base URL at which an image's registry is asked, without a slash at its end."""
        if mirror := self._mirrors.get(image.registry):
            return mirror.rstrip("/")
        if image.registry == DOCKER_HUB:
            return f"https://{_DOCKER_HUB_HOST}"
        # As container runtimes do: plain HTTP for a registry on this machine, TLS for all others.
        local = image.registry.partition(":")[0] in ("localhost", "127.0.0.1")
        return f"{'http' if local else 'https'}://{image.registry}"

    def ask(
        self,
        method: str,
        path: str,
        image: ImageName,
        target: str,
        headers: Mapping[str, str],
        tolerated: Collection[int] = (304, 404),
    ) -> httpx2.Response:
        """A success, or a tolerated status.

        Args:
            method: GET or HEAD.
            path: Path and query below the registry's base URL.
            image: The image.
            target: What is asked for, for messages.
            headers: Headers of the request.
            tolerated: Further statuses that the caller understands.

        Raises:
            BadInput: The registry refuses the credentials, or asks for them where they must not go.
            Unavailable: The registry does not answer within bounds, or limits the rate.
        """
        url = f"{self.base(image)}{path}"
        return self._patience.call(lambda: self._attempt(method, url, image, target, dict(headers), tolerated))

    def _attempt(
        self,
        method: str,
        url: str,
        image: ImageName,
        target: str,
        headers: dict[str, str],
        tolerated: Collection[int],
    ) -> httpx2.Response:
        if header := self._tokens.get(image):
            headers["Authorization"] = header
        response = self._send(method, url, target, headers)
        if response.status_code == 401 and self._is_at_home(response, url):
            headers["Authorization"] = self._authorize(response, image, target)
            response = self._send(method, url, target, headers)
        if response.status_code in tolerated or response.is_success:
            if (pause := pause_asked(response.headers)) is not None:
                self._pauses[str(image)] = pause
            return response
        raise self._refusal(response, image, target)

    def _is_at_home(self, response: httpx2.Response, url: str) -> bool:
        """Whether an answer is the registry's own: a server to which it redirects gets no credentials."""
        return response.url.origin == self._httpx2.URL(url).origin

    def _send(
        self,
        method: str,
        url: str,
        target: str,
        headers: Mapping[str, str],
        form: Mapping[str, str] | None = None,
        extensions: Mapping[str, Any] | None = None,
    ) -> httpx2.Response:
        shown = without_password(url)
        try:
            return self._http.request(method, url, headers=headers, data=form, extensions=dict(extensions or {}))
        except self._bounded.BeyondBounds as error:
            raise error.told(f"the registry at {shown}", target) from error
        except (self._httpx2.InvalidURL, self._httpx2.UnsupportedProtocol):
            # The text of the error may have a part of a password.
            raise BadInput(
                f"Cannot ask for {target} at {shown!r}: not a URL of http or https",
                code="InvalidUrl",
                about=target,
                remedy="Correct registry_mirrors in the settings.",
            ) from None
        except self._httpx2.HTTPError as error:
            raise Unavailable(
                f"The registry gave no answer about {target} at {shown}: {type(error).__name__}: {error}.",
                code="RegistryUnreachable",
                about=target,
                remedy="Check registry_mirrors in the settings, and the network between the pipeline and the registry.",
            ) from error

    def _authorize(self, response: httpx2.Response, image: ImageName, target: str) -> str:
        """Answer the challenges of a 401; returns the Authorization header for the image."""
        asked = challenges(response.headers.get_list("WWW-Authenticate"))
        credentials = self._credentials.get(image.registry)
        bearers = [challenge for challenge in asked if challenge.scheme == "bearer" and challenge.realm]
        usable = next((bearer for bearer in bearers if self._may_ask(bearer, image)), None)
        if usable is not None:
            return self._ask_for_token(usable, response, image, target)
        if any(challenge.scheme == "basic" for challenge in asked) and credentials and not credentials.identity:
            return credentials.header()
        if bearers:
            raise _foreign_realm(bearers[0], image, target)
        raise self._refusal(response, image, target)

    def _may_ask(self, challenge: Challenge, image: ImageName) -> bool:
        host = challenge.host()
        try:
            # The parser of the client that will connect has to agree.
            agreed = host is not None and self._httpx2.URL(challenge.realm).host == host
        except self._httpx2.InvalidURL:
            return False
        if host is None or not agreed:
            return False
        own = {image.registry, urlsplit(self.base(image)).hostname or ""}
        return is_token_service(host, own, self._token_services.get(image.registry, ()))

    def _ask_for_token(self, challenge: Challenge, response: httpx2.Response, image: ImageName, target: str) -> str:
        credentials = self._credentials.get(image.registry)
        if credentials and challenge.exposes_password(str(response.url)):
            raise BadInput(
                f"{image.registry} asks for the password in plain text, at {challenge.realm}: it was not sent.",
                code="PasswordExposed",
                about=target,
                remedy="Ask the operator of the registry for a token service with TLS.",
            )
        asked = {"scope": challenge.scope or f"repository:{image.repository}:pull"}
        if challenge.service:
            asked["service"] = challenge.service
        network: Network | None = response.extensions.get(self._bounded.NETWORK)
        extensions = {
            self._bounded.NETWORK: network,
            self._bounded.SAME_ORIGIN: True,
            self._bounded.LONGEST: _LONGEST_TOKEN,
        }
        if credentials and credentials.identity:
            given = {"grant_type": "refresh_token", "refresh_token": credentials.password, "client_id": _CLIENT_ID}
            answer = self._send("POST", challenge.realm, target, {}, {**asked, **given}, extensions)
        else:
            header = {"Authorization": credentials.header()} if credentials else {}
            answer = self._send("GET", challenge.url(asked), target, header, None, extensions)
        if not answer.is_success:
            raise self._refusal(answer, image, target)
        return self._keep(answer, image)

    def _keep(self, answer: httpx2.Response, image: ImageName) -> str:
        try:
            content = cast("dict[str, Any]", parse_json(answer.content, longest=_LONGEST_TOKEN))
            token = as_header(content.get("token") or content["access_token"], "the token")
            seconds = float(content.get("expires_in") or DEFAULT_SECONDS)
        except (BadInput, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise Unavailable(
                f"The token service of {image.registry} answered without a token for {image}.",
                code="MalformedAnswer",
                about=str(image),
                remedy="See what answers at the address of the token service.",
            ) from error
        header = f"Bearer {token}"
        self._tokens.put(image, header, seconds)
        return header

    def _refusal(self, response: httpx2.Response, image: ImageName, target: str) -> LlmopsError:
        status = response.status_code
        reason = printable(read_error(response.content))
        said = f"{response.url.host} answered {status}{f' ({reason})' if reason else ''}"
        if status in (401, 403, 404):
            if not self._is_at_home(response, self.base(image)) and response.history:
                return Unavailable(
                    f"The server to which {image.registry} redirects refuses {target}: {said}.",
                    code="StorageRefused",
                    about=target,
                    remedy="Ask the operator of the registry: its storage refuses, and gets no credentials.",
                )
            if image.registry in self._credentials:
                return BadInput(
                    f"The credentials for {image.registry} are not accepted for {target}: {said}.",
                    code="CredentialsRefused",
                    about=target,
                    remedy="Correct the credentials, or give their account access to the image.",
                )
            return BadInput(
                f"{target} may not be read without credentials: it is private or does not exist; {said}.",
                code="CredentialsMissing",
                about=target,
                remedy=f"Correct engine.image, or give credentials for {image.registry}.",
            )
        wait = pause_asked(response.headers)
        if status == 429:
            when = "later" if wait is None else f"in {wait:g} s"
            message = f"Too many requests about {target}: {said}, to come back {when}."
            return Unavailable(message, code="RateLimited", about=target, retry_after=wait)
        if status >= 500 or status == 408:
            message = f"The registry failed on {target}: {said}."
            return Unavailable(message, code="RegistryFailed", about=target, retry_after=wait)
        return BadInput(f"The registry refuses to answer about {target}: {said}.", code="RegistryRefused", about=target)


def _foreign_realm(challenge: Challenge, image: ImageName, target: str) -> BadInput:
    shown = without_password(challenge.realm)
    return BadInput(
        f"{image.registry} asks for a login at {shown!r}, which is not known as its token service: it was not asked.",
        code="TokenServiceUnknown",
        about=target,
        remedy=f"If it is, add its host to registry_token_services in the settings, under {image.registry!r}.",
    )
