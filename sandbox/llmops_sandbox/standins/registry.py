"""A stand-in for a container registry: the OCI distribution API over the sandbox's image store.

One server answers for every registry host in the store: clients reach it through their mirrors, which name the
repository without its host.

Run as `python -m llmops_sandbox.standins.registry --images FILE --ready-file FILE`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import secrets
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from aiohttp import web

from llmops_sandbox.standins.images import CONFIG_TYPE, MANIFEST_TYPE, Image, ImageStore, config_bytes, manifest_bytes
from llmops_sandbox.standins.standin import StandIn, parser, run_process

SERVICE = "llmops-sandbox"
_API_VERSION = {"Docker-Distribution-Api-Version": "registry/2.0"}
# Docker Hub sends its limits with manifests.
RATE_LIMITS = {"RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": "99;w=21600"}


class RegistryServer(StandIn):
    """The stand-in registry.

    Args:
        images: The images that it serves.
        host: Address to listen on.
        port: 0 takes a free one.
        credentials: Users and their passwords; they may read every repository.
        private: Repositories, without host, that only these users may read.
        page_size: Tags on one page, at most.
        token_seconds: Lifetime of a token.
        etags: Whether pages of tags carry an ETag, which saves sending a page that has not changed.
    """

    def __init__(
        self,
        images: ImageStore,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        credentials: Mapping[str, str] | None = None,
        private: Collection[str] = (),
        page_size: int = 1000,
        token_seconds: int = 300,
        etags: bool = True,
    ) -> None:
        super().__init__(host, port)
        self._images = images
        self._credentials = dict(credentials or {})
        self._private = frozenset(private)
        self._page_size = page_size
        self._token_seconds = token_seconds
        self._tokens: dict[str, tuple[str, float]] = {}
        self._etags = etags
        self._known: tuple[tuple[int, int], dict[str, list[Image]]] = ((0, 0), {})
        self.rate_limits = dict(RATE_LIMITS)

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """The reading half of the distribution API."""
        return [
            web.get("/token", self._token),
            web.post("/token", self._refresh),
            web.get("/v2/", self._version),
            web.get("/v2/{name:.+}/tags/list", self._tags),
            web.get("/v2/{name:.+}/manifests/{reference}", self._manifest),
            web.get("/v2/{name:.+}/blobs/{digest}", self._blob),
        ]

    def error(self, status: int, code: str, message: str) -> web.Response:
        """An error body as the specification has it."""
        return web.json_response(
            {"errors": [{"code": code or "UNKNOWN", "message": message, "detail": None}]},
            status=status,
            headers=_API_VERSION,
        )

    def forget_tokens(self) -> None:
        """Refuse every token given so far, as a restarted registry does."""
        self._tokens = {}

    # The handshake

    async def _token(self, request: web.Request) -> web.Response:
        return self._give_token(request.query, self._user(request))

    async def _refresh(self, request: web.Request) -> web.Response:
        """A token for an identity token, which is a user's password here."""
        form = {key: str(value) for key, value in (await request.post()).items()}
        identity = form.get("refresh_token", "")
        user = next((name for name, known in self._credentials.items() if known == identity), "")
        return self._give_token(form, user if form.get("grant_type") == "refresh_token" else "")

    def _give_token(self, asked: Mapping[str, str], user: str | None) -> web.Response:
        scope = asked.get("scope", "")
        name = scope.split(":")[1] if scope.count(":") == 2 else ""
        if user == "" or asked.get("service") != SERVICE:
            return self.error(401, "UNAUTHORIZED", "incorrect username or password")
        # Docker Hub always gives a token, which opens only what its holder may read.
        opens = "" if name in self._private and user is None else name
        token = secrets.token_urlsafe(24)
        self._tokens[token] = (opens, time.monotonic() + self._token_seconds)
        return web.json_response({"token": token, "access_token": token, "expires_in": self._token_seconds})

    def _user(self, request: web.Request) -> str | None:
        """The user of the request: None without credentials, empty for wrong ones."""
        scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
        if not scheme:
            return None
        try:
            user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return ""
        known = self._credentials.get(user)
        right = scheme.lower() == "basic" and known is not None and secrets.compare_digest(known, password)
        return user if right else ""

    def _challenge(self, request: web.Request, name: str) -> web.Response | None:
        """The answer 401 if the request's token does not open `name`, else None."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        opens, expires = self._tokens.get(token, ("", 0.0))
        valid = scheme.lower() == "bearer" and time.monotonic() < expires
        if valid and (opens == name or not name):
            return None
        response = self.error(401, "UNAUTHORIZED", "authentication required")
        realm = request.url.origin().with_path("/token")
        scope = f',scope="repository:{name}:pull"' if name else ""
        reason = ',error="insufficient_scope"' if valid else ""
        response.headers["WWW-Authenticate"] = f'Bearer realm="{realm}",service="{SERVICE}"{scope}{reason}'
        return response

    # The answers

    async def _version(self, request: web.Request) -> web.Response:
        return self._challenge(request, "") or web.json_response({}, headers=_API_VERSION)

    async def _tags(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if refused := self._challenge(request, name):
            return refused
        tags = sorted(image.tag for image in self._of(name))
        if not tags:
            return self.error(404, "NAME_UNKNOWN", f"repository name not known to registry: {name}")
        limit = min(max(int(request.query.get("n", self._page_size)), 1), self._page_size)
        rest = [tag for tag in tags if tag > request.query.get("last", "")]
        page = rest[:limit]
        etag = f'"{hashlib.sha256(json.dumps([page, len(rest) > limit]).encode()).hexdigest()}"'
        marks = {"ETag": etag} if self._etags else {}
        if self._etags and request.headers.get("If-None-Match") == etag:
            return web.Response(status=304, headers=marks)
        response = web.json_response({"name": name, "tags": page}, headers={**_API_VERSION, **marks})
        if len(rest) > limit:
            following = request.rel_url.with_query(n=str(limit), last=page[-1])
            response.headers["Link"] = f'<{following}>; rel="next"'
        return response

    async def _manifest(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if refused := self._challenge(request, name):
            return refused
        reference = request.match_info["reference"]
        known = self._of(name)
        if not known:
            return self.error(404, "NAME_UNKNOWN", f"repository name not known to registry: {name}")
        if ":" in reference:
            image = self._images.resolve(f"{known[0].repository}@{reference}")
        else:
            image = next((candidate for candidate in known if candidate.tag == reference), None)
        if image is None:
            return self.error(404, "MANIFEST_UNKNOWN", f"manifest unknown: {name} has no {reference}")
        accepted = request.headers.get("Accept", "*/*")
        if MANIFEST_TYPE not in accepted and "*/*" not in accepted:
            message = "OCI manifest found, but accept header does not support OCI manifests"
            return self.error(404, "MANIFEST_UNKNOWN", message)
        return web.Response(
            body=manifest_bytes(image),
            headers={
                **_API_VERSION,
                **self.rate_limits,
                "Content-Type": MANIFEST_TYPE,
                "Docker-Content-Digest": image.digest,
                "ETag": f'"{image.digest}"',
            },
        )

    async def _blob(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if refused := self._challenge(request, name):
            return refused
        digest = request.match_info["digest"]
        for image in self._of(name):
            content = config_bytes(image)
            if f"sha256:{hashlib.sha256(content).hexdigest()}" == digest:
                headers = {**_API_VERSION, "Content-Type": CONFIG_TYPE, "Docker-Content-Digest": digest}
                return web.Response(body=content, headers=headers)
        return self.error(404, "BLOB_UNKNOWN", f"blob unknown to registry: {digest}")

    def _of(self, name: str) -> list[Image]:
        """Images of a repository; reads the file again when it has changed."""
        try:
            stat = self._images.path.stat()
        except FileNotFoundError:
            return []
        version = (stat.st_mtime_ns, stat.st_ino)
        if version != self._known[0]:
            by_name: dict[str, list[Image]] = {}
            for image in self._images.all():
                by_name.setdefault(image.repository.partition("/")[2], []).append(image)
            self._known = (version, by_name)
        return self._known[1].get(name, [])


def main() -> None:
    """Parse the arguments and serve until SIGTERM."""
    arguments = parser(__doc__)
    arguments.add_argument("--images", type=Path, required=True, help="file of the image store")
    given = arguments.parse_args()
    run_process(RegistryServer(ImageStore(given.images), given.host, given.port), given.ready_file)


if __name__ == "__main__":
    main()
