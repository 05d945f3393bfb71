"""Questions to a container registry, in the OCI distribution API.

A digest is asked for by HEAD, which registries do not count as a pull.
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


@dataclass(frozen=True)
class TagsPage:
    """One page of a repository's tags.

    Args:
        path: Where it was read, below the registry's base URL; it may be asked again there.
        tags: Names of tags.
        etag: What the registry marks this state of the page with, if it does.
        next: Path of the page after it.
    """

    path: str
    tags: tuple[str, ...]
    etag: str | None
    next: str | None


class RegistryClient:
    """Asks registries about images. Safe between threads; close it, or use it in a `with`.

    Args:
        mirrors: Registry host -> base URL to ask instead.
        credentials: Registry host -> who asks. Without, tokens for anonymous users are asked for.
        patience: How long to try while a registry is away.
        timeout: Seconds after which a request that is not answered is given up.
    """

    def __init__(
        self,
        mirrors: Mapping[str, str],
        credentials: Mapping[str, Credentials] | None = None,
        patience: Patience = DEFAULT_PATIENCE,
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        # Imported here: it takes time that loading the definitions must not take.
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
            BadRelease: There is no such image.
            BadInput: The registry wants other credentials.
            Unavailable: It does not answer, or asks to come back later.
        """
        return [tag for page in self.pages(image) for tag in page.tags]

    def pages(self, image: ImageName) -> list[TagsPage]:
        """All pages of an image's tags.

        Raises:
            BadRelease, BadInput, Unavailable: As `tags` does.
        """
        found: list[TagsPage] = []
        path: str | None = f"/v2/{image.repository}/tags/list?n={_PAGE}"
        while path:
            page = self.page(image, path)
            if page is None:
                raise Unavailable(f"{image.registry} says that {image} has not changed, without being asked that.")
            found.append(page)
            path = page.next
            if path in {each.path for each in found}:
                raise Unavailable(f"{image.registry} lists the tags of {image} in pages that lead to {path}.")
        return found

    def page(self, image: ImageName, path: str, *, etag: str | None = None) -> TagsPage | None:
        """One page of an image's tags.

        Args:
            image: The image.
            path: Of the page, from an earlier answer.
            etag: Of the state that is known.

        Returns:
            The page; None if it is still as `etag` says.

        Raises:
            BadRelease, BadInput, Unavailable: As `tags` does.
        """
        base = self._base(image)
        headers = {"If-None-Match": etag} if etag else {}
        response = self._ask("GET", f"{base}{path}", image, str(image), headers)
        if response.status_code == 304:
            return None
        if response.status_code == 404:
            raise _no_image(image)
        following = None
        if "next" in response.links:
            url = urljoin(f"{base}{path}", response.links["next"]["url"])
            if not url.startswith(f"{base}/"):
                raise Unavailable(f"{image.registry} lists the tags of {image} in pages that lead to {url}.")
            following = url.removeprefix(base)
        return TagsPage(path, tuple(self._tags_of(response, image)), response.headers.get("ETag"), following)

    def take_pause(self, image: ImageName) -> float | None:
        """Seconds for which the registry asked, since this was last called, not to be asked about the image."""
        return self._pauses.pop(str(image), None)

    def find(self, image: ImageName, tag: str) -> str | None:
        """The digest that a tag is at now, `sha256:...`; None if the image or the tag is not there.

        Raises:
            BadInput: The registry wants other credentials.
            Unavailable: It does not answer, or asks to come back later.
        """
        url = f"{self._base(image)}/v2/{image.repository}/manifests/{tag}"
        response = self._ask("HEAD", url, image, f"{image}:{tag}")
        if response.status_code == 404:
            return None
        digest = response.headers.get("Docker-Content-Digest", "")
        if not digest.startswith("sha256:"):
            raise Unavailable(
                f"{image.registry} answered for {image}:{tag} without a digest.",
                remedy="Check registry_mirrors in the settings: this seems to be no registry.",
            )
        return digest

    def digest(self, image: ImageName, tag: str) -> str:
        """The digest that a tag is at now, `sha256:...`.

        Raises:
            BadRelease: There is no such image or tag.
            BadInput: The registry wants other credentials.
            Unavailable: It does not answer, or asks to come back later.
        """
        found = self.find(image, tag)
        if found is None:
            raise BadRelease(
                f"{image.registry} knows no image {image}:{tag}.",
                remedy="Correct engine.image or engine.version.",
            )
        return found

    def architectures(self, image: ImageName, digest: str) -> frozenset[str]:
        """What an image is there for, as OCI and Kubernetes name it: amd64, arm64.

        Raises:
            BadRelease: There is no such image.
            BadInput: The registry wants other credentials.
            Unavailable: It does not answer, or not in its own format.
        """
        manifest = self._json(image, f"manifests/{digest}")
        try:
            if "manifests" in manifest:
                # Attestations stand in an index, too, for a platform that is called unknown.
                named = {str(each["platform"]["architecture"]) for each in manifest["manifests"] if "platform" in each}
                return frozenset(named - {"unknown"})
            config = self._json(image, f"blobs/{manifest['config']['digest']}")
            return frozenset({str(config["architecture"])})
        except (KeyError, TypeError) as error:
            raise _not_oci(image, digest) from error

    def _json(self, image: ImageName, path: str) -> dict[str, Any]:
        target, accept = f"{image}@{path.rpartition('/')[2]}", {"Accept": ", ".join(MANIFEST_TYPES)}
        headers = accept if path.startswith("manifests/") else None
        response = self._ask("GET", f"{self._base(image)}/v2/{image.repository}/{path}", image, target, headers)
        if response.status_code == 404:
            raise BadRelease(f"{image.registry} knows no {target}.", remedy="Correct engine.image or engine.version.")
        try:
            return response.json()
        except ValueError as error:
            raise _not_oci(image, path.rpartition("/")[2]) from error

    def _base(self, image: ImageName) -> str:
        if mirror := self._mirrors.get(image.registry):
            return mirror.rstrip("/")
        if image.registry == DOCKER_HUB:
            return f"https://{_DOCKER_HUB_HOST}"
        # As container runtimes do: plain HTTP for a registry on this machine, TLS for every other.
        local = image.registry.partition(":")[0] in ("localhost", "127.0.0.1")
        return f"{'http' if local else 'https'}://{image.registry}"

    def _tags_of(self, response: httpx2.Response, image: ImageName) -> list[str]:
        try:
            # A repository whose last tag was deleted has null here.
            return [str(tag) for tag in response.json()["tags"] or ()]
        except (ValueError, KeyError, TypeError) as error:
            raise Unavailable(
                f"{image.registry} answered about the tags of {image} in a form that is not the registry API's.",
                remedy="Check registry_mirrors in the settings: this seems to be no registry.",
            ) from error

    def _ask(
        self, method: str, url: str, image: ImageName, target: str, headers: Mapping[str, str] | None = None
    ) -> httpx2.Response:
        """A good answer, 304 or 404; everything else is raised."""
        return self._patience.call(lambda: self._attempt(method, url, image, target, headers or {}))

    def _attempt(
        self, method: str, url: str, image: ImageName, target: str, further: Mapping[str, str]
    ) -> httpx2.Response:
        headers = {"Accept": ", ".join(MANIFEST_TYPES) if method == "HEAD" else "application/json", **further}
        if known := self._tokens.get(image):
            headers["Authorization"] = known
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
        told = without_password(url)
        try:
            return self._http.request(method, url, headers=headers, params=params, data=form)
        except self._no_url:
            # Without their text, in which a part of a password may be.
            raise BadInput(f"{told!r}, where {target} is to be asked for, is no URL of http or https") from None
        except self._no_answer as error:
            raise Unavailable(
                f"The registry gave no answer about {target} at {told}: {type(error).__name__}: {error}.",
                remedy="Check registry_mirrors in the settings, and the network between here and there.",
            ) from error

    def _authorize(self, response: httpx2.Response, image: ImageName, target: str) -> str:
        """The Authorization header for an image, after the handshake that a 401 asks for."""
        challenge = Challenge.parse(response.headers.get("WWW-Authenticate", ""))
        credentials = self._credentials.get(image.registry)
        if challenge.scheme == "basic" and credentials and not credentials.identity:
            return credentials.header()
        if challenge.scheme != "bearer" or not challenge.realm:
            raise self._refusal(response, image, target)
        if credentials and challenge.exposes_password(str(response.url)):
            raise BadInput(
                f"{image.registry} asks for the password in plain text, at {challenge.realm}; it was not sent."
            )
        asked = {"service": challenge.service, "scope": challenge.scope or f"repository:{image.repository}:pull"}
        if credentials and credentials.identity:
            given = {"grant_type": "refresh_token", "refresh_token": credentials.password, "client_id": _CLIENT_ID}
            answer = self._send("POST", challenge.realm, target, {}, form={**asked, **given})
        else:
            header = {"Authorization": credentials.header()} if credentials else {}
            answer = self._send("GET", challenge.realm, target, header, asked)
        if not answer.is_success:
            raise self._refusal(answer, image, target)
        return self._keep(answer, image)

    def _keep(self, answer: httpx2.Response, image: ImageName) -> str:
        try:
            content: dict[str, Any] = answer.json()
            token = as_header(content.get("token") or content["access_token"], "the token")
            seconds = float(content.get("expires_in") or DEFAULT_SECONDS)
        except (BadInput, ValueError, KeyError, TypeError, AttributeError) as error:
            raise Unavailable(f"The token service of {image.registry} answered without a token for {image}.") from error
        header = f"Bearer {token}"
        self._tokens.put(image, header, seconds)
        return header

    def _refusal(self, response: httpx2.Response, image: ImageName, target: str) -> LlmopsError:
        status = response.status_code
        said = f"{response.url.host} answered {status}{_reason(response)}"
        if status in (401, 403, 404):
            if image.registry in self._credentials:
                return BadInput(
                    f"The credentials for {image.registry} are not accepted for {target}: {said}.",
                    remedy="Correct the credentials, or give their account access to the image.",
                )
            return BadInput(
                f"{target} may not be read without credentials: it is private or does not exist; {said}.",
                remedy=f"Correct engine.image, or give credentials for {image.registry}.",
            )
        wait = pause_asked(response.headers)
        if status == 429:
            when = "later" if wait is None else f"in {wait:g} s"
            return Unavailable(f"Too many requests about {target}: {said}, to come back {when}.", retry_after=wait)
        if status >= 500 or status == 408:
            return Unavailable(f"The registry failed on {target}: {said}.", retry_after=wait)
        return BadInput(f"The registry refuses to answer about {target}: {said}.")


def _not_oci(image: ImageName, digest: str) -> Unavailable:
    return Unavailable(
        f"{image.registry} answered about {image}@{digest} in a form that is not the registry API's.",
        remedy="Check registry_mirrors in the settings: this seems to be no registry.",
    )


def _no_image(image: ImageName) -> BadRelease:
    return BadRelease(f"{image.registry} knows no image {image}.", remedy="Correct engine.image.")


def _reason(response: httpx2.Response) -> str:
    """Code and message of an error body; empty where there is none, as with HEAD."""
    try:
        errors: list[dict[str, str]] = response.json()["errors"]
        text = "; ".join(f"{item.get('code', '')} {item.get('message', '')}".strip() for item in errors)
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""
    return f" ({text})" if text else ""
