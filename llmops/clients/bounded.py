"""The one HTTP client for foreign services: each answer is bounded in bytes, seconds and redirects.

It imports httpx2, which takes time that loading the definitions must not take: import it on the first request.
"""

from __future__ import annotations

import socket
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from types import TracebackType
from typing import Any, Literal

import httpx2

from llmops.clients.retries import Unbounded
from llmops.errors import Unavailable
from llmops.worker.foreign import BadBytes, inflate

LONGEST = "llmops.longest"
"""Extension of a request: bytes of its answer, instead of the client's."""
NETWORK = "llmops.network"
"""Extension of an answer: the network of the server. Of a request: the network that it comes from; see `Network`."""
SAME_ORIGIN = "llmops.same_origin"
"""Extension of a request: follow redirects within its origin alone. For requests for secrets."""

Network = Literal["link-local", "loopback", "private", "public"]
"""Where an address is. From a server in one network, an answer leads into the same network or to a public address."""

REDIRECTS = 10
_NAT64 = IPv6Network("64:ff9b::/96")
# Azure's services of the node have a public address.
_AZURE = IPv4Address("168.63.129.16")


class BeyondBounds(httpx2.HTTPError):
    """An answer exceeds a bound.

    Args:
        code: AnswerTooLarge, AnswerTooSlow, AnswerUnreadable or RedirectRefused.
        why: What exceeds which bound.
    """

    def __init__(self, code: str, why: str) -> None:
        super().__init__(why)
        self.code = code

    def told(self, service: str, about: str) -> Unavailable:
        """The error for the callers of a service.

        Args:
            service: The service and its address, for people.
            about: The object of the request.
        """
        if self.code == "AnswerTooSlow":
            # It may be faster the next time; the others end the same way.
            return Unavailable(
                f"{service[0].upper()}{service[1:]} gave no answer about {about} in time: {self}.",
                code=self.code,
                about=about,
                remedy="Try again later, or see what slows it down.",
            )
        return Unbounded(
            f"The answer of {service} about {about} was refused: {self}.",
            code=self.code,
            about=about,
            remedy="See what answers at that address: a proxy, or a server of another kind.",
        )


class BoundedClient(httpx2.Client):
    """A client that reads whole answers, within bounds. Thread-safe.

    Credentials stay with their origin: httpx2 drops them where a redirect leaves it. No redirect leads from https to
    http, or from a public address into a network of one's own (RFC 1918, loopback, the metadata service of a cloud).

    Args:
        longest: Bytes of an answer after decompression, at most.
        seconds: From the start of a request to the last byte of its answer, with all redirects, at most.
        hooks: Event hooks, as of `httpx2.Client`.
    """

    def __init__(self, longest: int, seconds: float, hooks: Mapping[str, list[Any]] | None = None) -> None:
        self._longest = longest
        self._seconds = seconds
        # The watch finds a connection when it opens, so each request opens its own.
        limits = httpx2.Limits(max_keepalive_connections=0)
        super().__init__(timeout=seconds, follow_redirects=True, limits=limits, event_hooks=hooks)

    def send(self, request: httpx2.Request, *, stream: bool = False, **options: Any) -> httpx2.Response:
        """Send a request, and read its answer; `stream` and the other options as of `httpx2.Client.send`.

        Raises:
            BeyondBounds: The answer exceeds a bound.
            httpx2.HTTPError: There is no answer.
        """
        asked = options.pop("follow_redirects", None)
        follow = asked if isinstance(asked, bool) else self.follow_redirects
        longest = request.extensions.get(LONGEST, self._longest)
        history: list[httpx2.Response] = []
        with _Watch(self._seconds, request.extensions.get(NETWORK)) as watch:
            while True:
                request.headers["Accept-Encoding"] = "gzip"
                request.extensions["trace"] = watch.trace
                watch.expect(request.url)
                response = super().send(request, stream=True, follow_redirects=False, **options)
                with closing(response):
                    answer = _whole(response, longest, history, watch)
                if not follow or response.next_request is None:
                    return answer
                history.append(answer)
                if len(history) > REDIRECTS:
                    raise BeyondBounds("RedirectRefused", f"it leads through more than {REDIRECTS} redirects")
                _check_redirect(request, response.next_request)
                request = response.next_request


def _whole(response: httpx2.Response, longest: int, history: list[httpx2.Response], watch: _Watch) -> httpx2.Response:
    content = bytearray()
    try:
        for block in _unpacked(response):
            content += block
            if len(content) > longest:
                raise BeyondBounds("AnswerTooLarge", f"it is longer than {longest:,} bytes")
    except BadBytes as error:
        raise BeyondBounds("AnswerUnreadable", str(error)) from error
    headers = response.headers.copy()
    if headers.pop("Content-Encoding", ""):
        headers.pop("Content-Length", "")
    whole = httpx2.Response(
        response.status_code,
        headers=headers,
        content=bytes(content),
        request=response.request,
        extensions={NETWORK: watch.network},
        history=list(history),
    )
    whole.next_request = response.next_request
    return whole


def _unpacked(response: httpx2.Response) -> Iterator[bytes]:
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    blocks = response.iter_raw()
    if encoding in ("", "identity") or response.request.method == "HEAD":
        return blocks
    if encoding in ("gzip", "x-gzip", "deflate"):
        return inflate(blocks)
    raise BeyondBounds("AnswerUnreadable", f"it is packed by {encoding!r}, which was not asked for")


def _check_redirect(request: httpx2.Request, following: httpx2.Request) -> None:
    left = request.url.origin != following.url.origin
    if request.url.scheme == "https" and following.url.scheme != "https":
        why = f"it leads from https to {following.url.scheme} at {following.url.host}"
    elif left and following.extensions.get(SAME_ORIGIN):
        why = f"it leads to another server, {following.url.host}"
    elif left and following.method not in ("GET", "HEAD"):
        why = f"it leads a request with a body to another server, {following.url.host}"
    else:
        return
    raise BeyondBounds("RedirectRefused", why)


def network_of(address: str) -> Network:
    """The network of an IP address. What is neither public nor this machine nor a link is private."""
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address):
        ip = IPv4Address(ip.packed[-4:]) if ip in _NAT64 else ip.ipv4_mapped or ip.sixtofour or ip
    if ip.is_loopback or ip.is_unspecified:
        return "loopback"
    if ip.is_link_local or ip == _AZURE:
        return "link-local"
    return "public" if ip.is_global else "private"


def _proxied(url: httpx2.URL) -> bool:
    proxies = urllib.request.getproxies()
    return bool({url.scheme, "all"} & proxies.keys()) and not urllib.request.proxy_bypass(url.host)


class _Watch:
    """Ends the connections of one request when its time is over, and knows the networks that they lead to.

    The timeouts of httpx2 bound each read: a byte now and then, and an answer never ends.
    """

    def __init__(self, seconds: float, network: Network | None) -> None:
        self.network = network
        self._proxied = False
        self._seconds = seconds
        self._expired = False
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def __enter__(self) -> _Watch:
        self._timer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._timer.cancel()
        with self._lock:
            sockets, self._sockets = self._sockets, []
        for connection in sockets:
            connection.close()
        # A body without a length looks complete when its connection is ended.
        if self._expired and (error is None or isinstance(error, Exception)):
            raise BeyondBounds("AnswerTooSlow", f"it took longer than {self._seconds:g} s") from error

    def expect(self, url: httpx2.URL) -> None:
        """Check the URL of the next request, as far as it tells the network; the connection tells the rest."""
        self._proxied = _proxied(url)
        try:
            network_of(url.host)
        except ValueError:
            return
        self._check(url.host)

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """The `trace` extension of httpcore: sees each connection as soon as it is open."""
        if not event.endswith(".connect_tcp.complete"):
            return
        connection: socket.socket = info["return_value"].get_extra_info("socket")
        try:
            address = connection.getpeername()[0]
            with self._lock:
                # A duplicate, because TLS takes over the descriptor.
                self._sockets.append(connection.dup())
        except OSError as error:
            raise httpx2.ConnectError(str(error)) from error
        if not self._proxied:
            self._check(address)
        if self._expired:
            raise httpx2.ReadTimeout("expired")

    def _check(self, address: str) -> None:
        network = network_of(address)
        if self.network is None:
            self.network = network
        elif network not in ("public", self.network):
            raise BeyondBounds("RedirectRefused", f"it leads into another network, to the {network} address {address}")

    def _end(self) -> None:
        with self._lock:
            self._expired = True
            for connection in self._sockets:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
