"""Client of container registries, by the OCI distribution API.

It gets a digest by HEAD, which registries do not count as a pull.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from llmops.clients.registry.auth import DEFAULT_SECONDS, Challenge, Credentials, TokenCache
from llmops.clients.registry.limits import pause_asked
from llmops.clients.registry.names import DOCKER_HUB, ImageName
from llmops.clients.retries import Patience
from llmops.config.redaction import as_header, without_password
from llmops.errors import BadInput, BadRelease, LlmopsError, Unavailable

if TYPE_CHECKING:
    import httpx2

MANIFEST_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
DEFAULT_PATIENCE = Patience()
TIMEOUT_SECONDS = 20.0
_PAGE = 1000
_DOCKER_HUB_HOST = "registry-1.docker.io"
_CLIENT_ID = "llmops"
_ANOTHER_FORMAT = "another format than the registry API's"


@dataclass(frozen=True)
class TagsPage:
    """One page of a repository's tags.

    Args:
        path: Path of the page below the registry's base URL.
        tags: Names of tags.
        etag: ETag of this state of the page, if the registry sends one.
        next: Path of the next page.
    """

    path: str
    tags: tuple[str, ...]
    etag: str | None
    next: str | None


class RegistryClient:
    """Client of registries. Thread-safe; close it, or use it in a `with`.

    Args:
        mirrors: Registry host -> base URL to ask instead.
        credentials: Registry host -> credentials. The client asks other registries anonymously.
        patience: How long to retry while a registry is away.
        timeout: Seconds to wait for an answer.
    """

    def __init__(
        self,
        mirrors: Mapping[str, str],
        credentials: Mapping[str, Credentials] | None = None,
        patience: Patience = DEFAULT_PATIENCE,
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        # Imported here, because the import takes time that loading the definitions must not take.
        import httpx2

        self._mirrors = dict(mirrors)
        self._credentials = dict(credentials or {})
        self._patience = patience
        self._tokens = TokenCache()
        self._http = httpx2.Client(timeout=timeout, follow_redirects=True)
        self._pauses: dict[str, float] = {}
        self._no_url = (httpx2.InvalidURL, httpx2.UnsupportedProtocol)
        self._no_answer = httpx2.HTTPError

    def __enter__(self) -> RegistryClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def tags(self, image: ImageName) -> list[str]:
        """All tags of an image, in the registry's order (lexical, by the specification).

        Raises:
            BadRelease: The image does not exist.
            BadInput: The registry refuses the credentials.
            Unavailable: The registry does not answer, or limits the rate.
        """
        return [tag for page in self.pages(image) for tag in page.tags]

    def pages(self, image: ImageName) -> list[TagsPage]:
        """All pages of an image's tags.

        Raises:
            BadRelease, BadInput, Unavailable: As `tags` does.
        """
        pages: list[TagsPage] = []
        path: str | None = f"/v2/{image.repository}/tags/list?n={_PAGE}"
        while path:
            page = self.page(image, path)
            if page is None:
                raise _malformed(image, f"answered 304 for the tags of {image} to a request without an ETag")
            pages.append(page)
            path = page.next
            if path in {earlier.path for earlier in pages}:
                raise _malformed(image, f"lists the tags of {image} in pages that lead in a circle to {path}")
        return pages

    def page(self, image: ImageName, path: str, *, etag: str | None = None) -> TagsPage | None:
        """One page of an image's tags.

        Args:
            image: The image.
            path: Path of the page, from an earlier answer.
            etag: ETag of the known state.

        Returns:
            The page; None if it has not changed since `etag`.

        Raises:
            BadRelease, BadInput, Unavailable: As `tags` does.
        """
        base = self._base(image)
        headers = {"If-None-Match": etag} if etag else {}
        response = self._ask("GET", f"{base}{path}", image, str(image), headers)
        if response.status_code == 304:
            return None
        if response.status_code == 404:
            raise _image_not_found(image, str(image))
        following = None
        if "next" in response.links:
            url = urljoin(f"{base}{path}", response.links["next"]["url"])
            if not url.startswith(f"{base}/"):
                raise _malformed(image, f"lists the tags of {image} in pages that lead away to {url}")
            following = url.removeprefix(base)
        return TagsPage(path, tuple(self._tags_of(response, image)), response.headers.get("ETag"), following)

    def take_pause(self, image: ImageName) -> float | None:
        """Seconds of pause that the registry has asked for in its answers since the last call; None if it did not."""
        return self._pauses.pop(str(image), None)

    def find(self, image: ImageName, tag: str) -> str | None:
        """The digest that a tag points to now, `sha256:...`; None if the image or the tag does not exist.

        Raises:
            BadInput: The registry refuses the credentials.
            Unavailable: The registry does not answer, or limits the rate.
        """
        url = f"{self._base(image)}/v2/{image.repository}/manifests/{tag}"
        response = self._ask("HEAD", url, image, f"{image}:{tag}")
        if response.status_code == 404:
            return None
        digest = response.headers.get("Docker-Content-Digest", "")
        if not digest.startswith("sha256:"):
            raise _malformed(image, f"answered for {image}:{tag} without a digest")
        return digest

    def digest(self, image: ImageName, tag: str) -> str:
        """The digest that a tag points to now, `sha256:...`.

        Raises:
            BadRelease: The image or the tag does not exist.
            BadInput: The registry refuses the credentials.
            Unavailable: The registry does not answer, or limits the rate.
        """
        digest = self.find(image, tag)
        if digest is None:
            raise _image_not_found(image, f"{image}:{tag}", "engine.image or engine.version")
        return digest

    def architectures(self, image: ImageName, digest: str) -> frozenset[str]:
        """Architectures of an image, as OCI and Kubernetes name them: amd64, arm64.

        Raises:
            BadRelease: The image does not exist.
            BadInput: The registry refuses the credentials.
            Unavailable: The registry does not answer, or answers in another format.
        """
        manifest = self._json(image, f"manifests/{digest}")
        try:
            if "manifests" in manifest:
                platforms = [item["platform"] for item in manifest["manifests"] if "platform" in item]
                # An index also lists attestations, with the platform `unknown`.
                return frozenset({str(platform["architecture"]) for platform in platforms} - {"unknown"})
            config = self._json(image, f"blobs/{manifest['config']['digest']}")
            return frozenset({str(config["architecture"])})
        except (KeyError, TypeError) as error:
            raise _malformed(image, f"answered about {image}@{digest} in {_ANOTHER_FORMAT}") from error

    def _json(self, image: ImageName, path: str) -> dict[str, Any]:
        target, accept = f"{image}@{path.rpartition('/')[2]}", {"Accept": ", ".join(MANIFEST_TYPES)}
        headers = accept if path.startswith("manifests/") else None
        response = self._ask("GET", f"{self._base(image)}/v2/{image.repository}/{path}", image, target, headers)
        if response.status_code == 404:
            raise _image_not_found(image, target, "engine.image or engine.version")
        try:
            return response.json()
        except ValueError as error:
            raise _malformed(image, f"answered about {target} in {_ANOTHER_FORMAT}") from error

    def _base(self, image: ImageName) -> str:
        if mirror := self._mirrors.get(image.registry):
            return mirror.rstrip("/")
        if image.registry == DOCKER_HUB:
            return f"https://{_DOCKER_HUB_HOST}"
        # As container runtimes do: plain HTTP for a registry on this machine, TLS for all others.
        local = image.registry.partition(":")[0] in ("localhost", "127.0.0.1")
        return f"{'http' if local else 'https'}://{image.registry}"

    def _tags_of(self, response: httpx2.Response, image: ImageName) -> list[str]:
        try:
            # A repository without tags has null here.
            return [str(tag) for tag in response.json()["tags"] or ()]
        except (ValueError, KeyError, TypeError) as error:
            raise _malformed(image, f"answered about the tags of {image} in {_ANOTHER_FORMAT}") from error

    def _ask(
        self, method: str, url: str, image: ImageName, target: str, headers: Mapping[str, str] | None = None
    ) -> httpx2.Response:
        """A success, 304 or 404; raises an error for any other answer."""
        return self._patience.call(lambda: self._attempt(method, url, image, target, headers or {}))

    def _attempt(
        self, method: str, url: str, image: ImageName, target: str, further: Mapping[str, str]
    ) -> httpx2.Response:
        headers = {"Accept": ", ".join(MANIFEST_TYPES) if method == "HEAD" else "application/json", **further}
        if header := self._tokens.get(image):
            headers["Authorization"] = header
        response = self._send(method, url, target, headers)
        if response.status_code == 401:
            headers["Authorization"] = self._authorize(response, image, target)
            response = self._send(method, url, target, headers)
        if response.status_code in (304, 404) or response.is_success:
            if (pause := pause_asked(response.headers)) is not None:
                self._pauses[str(image)] = pause
            return response
        raise self._refusal(response, image, target)

    def _send(
        self,
        method: str,
        url: str,
        target: str,
        headers: Mapping[str, str],
        params: Mapping[str, str] | None = None,
        form: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        shown = without_password(url)
        try:
            return self._http.request(method, url, headers=headers, params=params, data=form)
        except self._no_url:
            # The text of the error may have a part of a password.
            raise BadInput(
                f"Cannot ask for {target} at {shown!r}: not a URL of http or https",
                code="InvalidUrl",
                about=target,
                remedy="Correct registry_mirrors in the settings.",
            ) from None
        except self._no_answer as error:
            raise Unavailable(
                f"The registry gave no answer about {target} at {shown}: {type(error).__name__}: {error}.",
                code="RegistryUnreachable",
                about=target,
                remedy="Check registry_mirrors in the settings, and the network between the pipeline and the registry.",
            ) from error

    def _authorize(self, response: httpx2.Response, image: ImageName, target: str) -> str:
        """Answer the challenge of a 401; returns the Authorization header for the image."""
        challenge = Challenge.parse(response.headers.get("WWW-Authenticate", ""))
        credentials = self._credentials.get(image.registry)
        if challenge.scheme == "basic" and credentials and not credentials.identity:
            return credentials.header()
        if challenge.scheme != "bearer" or not challenge.realm:
            raise self._refusal(response, image, target)
        if credentials and challenge.exposes_password(str(response.url)):
            raise BadInput(
                f"{image.registry} asks for the password in plain text, at {challenge.realm}: it was not sent.",
                code="PasswordExposed",
                about=target,
                remedy="Ask the operator of the registry for a token service with TLS.",
            )
        parameters = {"service": challenge.service, "scope": challenge.scope or f"repository:{image.repository}:pull"}
        if credentials and credentials.identity:
            grant = {"grant_type": "refresh_token", "refresh_token": credentials.password, "client_id": _CLIENT_ID}
            answer = self._send("POST", challenge.realm, target, {}, form={**parameters, **grant})
        else:
            header = {"Authorization": credentials.header()} if credentials else {}
            answer = self._send("GET", challenge.realm, target, header, parameters)
        if not answer.is_success:
            raise self._refusal(answer, image, target)
        return self._keep(answer, image)

    def _keep(self, answer: httpx2.Response, image: ImageName) -> str:
        try:
            content: dict[str, Any] = answer.json()
            token = as_header(content.get("token") or content["access_token"], "the token")
            seconds = float(content.get("expires_in") or DEFAULT_SECONDS)
        except (BadInput, ValueError, KeyError, TypeError, AttributeError) as error:
            raise Unavailable(
                f"The token service of {image.registry} answered without a token for {image}.",
                code="MalformedAnswer",
                about=str(image),
            ) from error
        header = f"Bearer {token}"
        self._tokens.put(image, header, seconds)
        return header

    def _refusal(self, response: httpx2.Response, image: ImageName, target: str) -> LlmopsError:
        status = response.status_code
        answer = f"{response.url.host} answered {status}{_reason(response)}"
        if status in (401, 403, 404):
            if image.registry in self._credentials:
                return BadInput(
                    f"The credentials for {image.registry} are not accepted for {target}: {answer}.",
                    code="CredentialsRefused",
                    about=target,
                    remedy="Correct the credentials, or give their account access to the image.",
                )
            return BadInput(
                f"{target} may not be read without credentials: it is private or does not exist; {answer}.",
                code="CredentialsMissing",
                about=target,
                remedy=f"Correct engine.image, or give credentials for {image.registry}.",
            )
        wait = pause_asked(response.headers)
        if status == 429:
            when = "later" if wait is None else f"in {wait:g} s"
            message = f"Too many requests about {target}: {answer}, to come back {when}."
            return Unavailable(message, code="RateLimited", about=target, retry_after=wait)
        if status >= 500 or status == 408:
            message = f"The registry failed on {target}: {answer}."
            return Unavailable(message, code="RegistryFailed", about=target, retry_after=wait)
        return BadInput(
            f"The registry refuses to answer about {target}: {answer}.", code="RegistryRefused", about=target
        )


def _malformed(image: ImageName, what: str) -> Unavailable:
    return Unavailable(
        f"{image.registry} {what}.",
        code="MalformedAnswer",
        about=str(image),
        remedy="Check registry_mirrors in the settings: this server seems not to be a registry.",
    )


def _image_not_found(image: ImageName, target: str, fields: str = "engine.image") -> BadRelease:
    return BadRelease(
        f"{image.registry} knows no image {target}.", code="ImageNotFound", about=target, remedy=f"Correct {fields}."
    )


def _reason(response: httpx2.Response) -> str:
    """Code and message of an error body; empty where there is none, as with HEAD."""
    try:
        errors: list[dict[str, str]] = response.json()["errors"]
        text = "; ".join(f"{item.get('code', '')} {item.get('message', '')}".strip() for item in errors)
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""
    return f" ({text})" if text else ""
