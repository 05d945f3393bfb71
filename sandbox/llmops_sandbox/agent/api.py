"""A small asynchronous client of the Kubernetes API: requests, and watches that keep a copy of a collection."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import aiohttp
from ruamel.yaml import YAML

from llmops.errors import LlmopsError, Unavailable

Object = dict[str, Any]
T = TypeVar("T")
EventType = Literal["ADDED", "MODIFIED", "DELETED"]

STRATEGIC_MERGE = "application/strategic-merge-patch+json"
MERGE = "application/merge-patch+json"
WATCH_SECONDS = 300
FIRST_RETRY_SECONDS = 0.1
LONGEST_RETRY_SECONDS = 2.0

log = logging.getLogger(__name__)


class ApiError(LlmopsError):
    """The API server refused a request.

    Args:
        status: HTTP status.
        reason: The `reason` of its Status object, for example `NotFound`; the error's code.
        message: Request and answer.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message, code=reason)
        self.status = status


class Api:
    """Requests to one API server, over kept connections.

    Args:
        server: Base URL.
        tls: The authority of the server, and the certificate of this client.
    """

    def __init__(self, server: str, tls: ssl.SSLContext) -> None:
        self.server = server
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls, limit=0),
            timeout=aiohttp.ClientTimeout(total=30, sock_connect=5),
        )

    @classmethod
    def from_kubeconfig(cls, path: Path) -> Api:
        """A client for the current context of a kubeconfig that names files of certificates."""
        content = YAML(typ="safe").load(path)
        context = _named(content["contexts"], content["current-context"])["context"]
        cluster = _named(content["clusters"], context["cluster"])["cluster"]
        user = _named(content["users"], context["user"])["user"]
        tls = ssl.create_default_context(cafile=cluster["certificate-authority"])
        tls.load_cert_chain(user["client-certificate"], user["client-key"])
        return cls(cluster["server"], tls)

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> Object:
        """An object or a list.

        Raises:
            ApiError: The server refused.
            Unavailable: ApiServerUnreachable.
        """
        return await self.request("GET", path, params=params)

    async def find(self, path: str) -> Object | None:
        """An object, or None if it does not exist; raises as `get` does."""
        try:
            return await self.get(path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def create(self, path: str, content: Object) -> Object:
        """Create an object in a collection; raises as `get` does."""
        return await self.request("POST", path, content=content)

    async def patch(self, path: str, content: Object, kind: str = STRATEGIC_MERGE) -> Object:
        """Change parts of an object; raises as `get` does."""
        return await self.request("PATCH", path, content=content, content_type=kind)

    async def delete(self, path: str, options: Object | None = None) -> None:
        """Delete an object, if it exists; raises as `get` does."""
        try:
            await self.request("DELETE", path, content=options or {})
        except ApiError as error:
            if error.status != 404:
                raise

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        content: Object | None = None,
        content_type: str = "application/json",
    ) -> Object:
        """Any request; raises as `get` does."""
        body = None if content is None else json.dumps(content).encode()
        try:
            async with self._session.request(
                method, self.server + path, params=params, data=body, headers={"Content-Type": content_type}
            ) as response:
                answer = await response.read()
                if response.status >= 400:
                    raise _error(response.status, f"{method} {path}", answer)
                return json.loads(answer)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._unreachable(f"{method} {path}", error) from error

    async def watch(self, path: str, params: Mapping[str, str]) -> AsyncIterator[tuple[str, Object]]:
        """Changes of a collection from `params["resourceVersion"]` on, until the server ends the watch.

        Raises:
            ApiError: The server refused, or ends the stream with an error; 410 asks for a new list.
            Unavailable: The connection broke.
        """
        query = {
            **params,
            "watch": "1",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=WATCH_SECONDS + 30)
        try:
            async with self._session.get(self.server + path, params=query, timeout=timeout) as response:
                if response.status >= 400:
                    raise _error(response.status, f"watch {path}", await response.read())
                rest = b""
                async for chunk in response.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        event = json.loads(line)
                        if event["type"] == "ERROR":
                            status = event["object"]
                            raise ApiError(
                                int(status.get("code", 500)),
                                status.get("reason", ""),
                                status.get("message", ""),
                            )
                        yield event["type"], event["object"]
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._unreachable(f"watch {path}", error) from error

    def _unreachable(self, request: str, error: Exception) -> Unavailable:
        message = f"API server at {self.server}: {request}: {error!r}"
        return Unavailable(message, code="ApiServerUnreachable", about=self.server)


class Watcher:
    """Keeps a copy of a collection, and reports each change.

    It lists, then watches from the list's version. It resumes after a cut connection, and lists anew when the server no
    longer has its version; it reports objects that vanished meanwhile as DELETED.

    Args:
        api: The client.
        path: The collection, for example `/api/v1/pods`.
        on_change: Called, in order, with each change; must not raise.
        params: Selectors.
    """

    def __init__(
        self,
        api: Api,
        path: str,
        on_change: Callable[[EventType, Object], None],
        params: Mapping[str, str] | None = None,
    ) -> None:
        self.objects: dict[str, Object] = {}
        self.synced = asyncio.Event()
        self._api = api
        self._path = path
        self._on_change = on_change
        self._params = dict(params or {})

    async def run(self) -> None:
        """List and watch until cancelled."""
        delay, version = FIRST_RETRY_SECONDS, ""
        while True:
            try:
                if not version:
                    version = await self._list()
                    self.synced.set()
                async for kind, changed in self._api.watch(self._path, {**self._params, "resourceVersion": version}):
                    version = changed["metadata"]["resourceVersion"]
                    self._take(kind, changed)
                    delay = FIRST_RETRY_SECONDS
            except (ApiError, Unavailable) as error:
                gone = isinstance(error, ApiError)
                log.log(logging.DEBUG if gone else logging.WARNING, "%s: %s", self._path, error)
                # After a refusal of any kind, a new list gives a known state.
                version = "" if gone else version
                await asyncio.sleep(delay)
                delay = min(delay * 2, LONGEST_RETRY_SECONDS)

    async def _list(self) -> str:
        answer = await self._api.get(self._path, self._params)
        listed = {item["metadata"]["uid"]: item for item in answer["items"]}
        for uid in self.objects.keys() - listed.keys():
            self._take("DELETED", self.objects[uid])
        for uid, item in listed.items():
            known = self.objects.get(uid)
            if known is None or known["metadata"]["resourceVersion"] != item["metadata"]["resourceVersion"]:
                self._take("ADDED" if known is None else "MODIFIED", item)
        return answer["metadata"]["resourceVersion"]

    def _take(self, kind: str, changed: Object) -> None:
        uid = changed["metadata"].get("uid", "")
        if kind == "DELETED":
            self.objects.pop(uid, None)
            self._on_change("DELETED", changed)
        elif kind in ("ADDED", "MODIFIED"):
            self.objects[uid] = changed
            self._on_change("ADDED" if kind == "ADDED" else "MODIFIED", changed)


async def until_answered(action: Callable[[], Awaitable[T]]) -> T:
    """Retry `action()` while the API server is unreachable or overloaded.

    Raises:
        ApiError: The server refused, and not because of its load.
    """
    delay = FIRST_RETRY_SECONDS
    while True:
        try:
            return await action()
        except Unavailable as error:
            log.warning("%s; trying again", error)
        except ApiError as error:
            if error.status not in (429, 500, 503, 504):
                raise
            log.warning("%s; trying again", error)
        await asyncio.sleep(delay)
        delay = min(delay * 2, LONGEST_RETRY_SECONDS)


def _named(items: list[Object], name: str) -> Object:
    return next(item for item in items if item["name"] == name)


def _error(status: int, request: str, answer: bytes) -> ApiError:
    try:
        content = json.loads(answer)
        return ApiError(status, content.get("reason", ""), f"{request}: {content.get('message', '')}")
    except ValueError:
        return ApiError(status, "", f"{request}: {status} {answer[:200].decode(errors='replace')}")
