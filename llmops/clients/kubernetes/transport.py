"""HTTP to the API server: configuration, credentials, time limits, and retries of temporary failures."""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import re
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import tenacity
import urllib3
from urllib3.exceptions import HTTPError

from llmops.clients.kubernetes.problems import Call, is_passing_conflict, parse_status, refusal
from llmops.clients.retries import parse_retry_after
from llmops.config.redaction import as_header
from llmops.config.settings import Settings
from llmops.config.steps import writing
from llmops.errors import BadInput, LlmopsError, Unavailable

PATIENCE_SECONDS = 60.0
"""How long a call retries while the API server does not answer: a restart takes 5 to 30 s."""

CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
LONGEST_PAUSE_SECONDS = 5.0
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

# After an even number of backslashes: after an odd number it is text, not an escape.
_SURROGATES = re.compile(r"((?<!\\)(?:\\\\)*)(\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2})")

_log = logging.getLogger(__name__)


class Passing(Exception):
    """A temporary failure: a retry a moment later may succeed."""

    def __init__(self, problem: LlmopsError) -> None:
        super().__init__(str(problem))
        self.problem = problem


class Transport:
    """One connection pool to one API server. May be used from several threads.

    Args:
        settings: Kubeconfig and context.
        patience: Seconds for which a call retries while the API server does not answer.

    Raises:
        BadInput: The kubeconfig or its context is not usable.
    """

    def __init__(self, settings: Settings, *, patience: float = PATIENCE_SECONDS) -> None:
        self.settings = settings
        self.patience = patience
        self.guard: Callable[[], None] | None = None
        """Called before every write; if it raises, the write is not sent."""
        self._lock = threading.Lock()
        self._client = _load(settings)

    @property
    def where(self) -> str:
        """Address of the API server and its source, for messages."""
        return f"{self._client.configuration.host} ({source(self.settings)})"

    def request(
        self,
        method: str,
        path: str,
        *,
        call: Call,
        query: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = "application/json",
    ) -> bytes:
        """Send a request and return the body of the answer.

        Retries connection errors, 429 (after its Retry-After), 5xx and conflicts that are none of the caller's, for the
        transport's `patience`.

        Raises:
            ClusterCannot, BadInput: The API server refused; see `problems.refusal`.
            Unavailable: The API server did not answer in time.
        """
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Passing),
            stop=tenacity.stop_before_delay(self.patience),
            wait=_pause,
            before_sleep=_log_retry,
            reraise=True,
        )
        try:
            return retrying(self._once, method, path, call, query, body, content_type)
        except Passing as last:
            raise last.problem from last

    def stream(
        self, path: str, *, call: Call, query: Mapping[str, str], read_timeout: float
    ) -> urllib3.BaseHTTPResponse:
        """Open a GET whose answer the caller streams. Tries once: the caller reconnects.

        Args:
            path: URL path.
            call: The call, for messages.
            query: Query parameters.
            read_timeout: Seconds without a byte after which the connection counts as dead.

        Raises:
            Passing: A retry a moment later may succeed.
            ClusterCannot, BadInput: The API server refused.
        """
        return self._send("GET", path, call, query, None, "application/json", stream=read_timeout)

    def _once(
        self, method: str, path: str, call: Call, query: Mapping[str, str] | None, body: object, content_type: str
    ) -> bytes:
        if self.guard is not None and method != "GET":
            self.guard()
        if method != "GET" and "dryRun" not in (query or {}):
            writing(call.verb, call.kind, call.name, body)
        return self._send(method, path, call, query, body, content_type, stream=None).data

    def _send(
        self,
        method: str,
        path: str,
        call: Call,
        query: Mapping[str, str] | None,
        body: object,
        content_type: str,
        *,
        stream: float | None,
    ) -> urllib3.BaseHTTPResponse:
        response = self._exchange(method, path, call, query, body, content_type, stream)
        if response.status == 401:
            # Credentials of exec plugins and client certificates expire, and the library renews only tokens.
            response.drain_conn()
            with self._lock:
                self._client = _load(self.settings)
            response = self._exchange(method, path, call, query, body, content_type, stream)
        if 200 <= response.status < 300:
            return response
        status = parse_status(response.data)
        retry_after = parse_retry_after(response.headers.get("Retry-After"))
        problem = refusal(response.status, response.reason or "", status, call, retry_after=retry_after)
        passing = isinstance(problem, Unavailable) or is_passing_conflict(problem, body)
        # A starting API server answers so until it has loaded the roles.
        starting = response.status == 403 and "RBAC: " in problem.message
        if passing or starting:
            raise Passing(problem)
        raise problem

    def _exchange(
        self,
        method: str,
        path: str,
        call: Call,
        query: Mapping[str, str] | None,
        body: object,
        content_type: str,
        stream: float | None,
    ) -> urllib3.BaseHTTPResponse:
        client = self._client
        headers: dict[str, str] = {"Accept": "application/json, */*", "User-Agent": "llmops"}
        client.update_params_for_auth(headers, [], ["BearerToken"])
        if authorization := headers.get("authorization"):
            headers["authorization"] = as_header(authorization, f"the token for {self.where}")
        if body is not None:
            headers["Content-Type"] = content_type
        url = client.configuration.host + path + (f"?{urlencode(query)}" if query else "")
        try:
            return client.rest_client.pool_manager.request(
                method,
                url,
                body=None if body is None else as_json(body),
                headers=headers,
                timeout=urllib3.Timeout(
                    connect=CONNECT_SECONDS, read=stream or min(READ_SECONDS, max(self.patience, 1.0))
                ),
                preload_content=stream is None,
                redirect=False,
            )
        except (HTTPError, OSError) as error:
            if _distrusts(error):
                raise BadInput(
                    f"{call}: the certificate of {self.where} is not trusted: {error}",
                    code="CertificateNotTrusted",
                    about=client.configuration.host,
                    remedy="Correct certificate-authority in the kubeconfig.",
                ) from error
            raise Passing(
                Unavailable(
                    f"{call}: {self.where} does not answer: {error}",
                    code="ApiServerUnreachable",
                    about=client.configuration.host,
                    remedy="Check that the cluster is up and that this kubeconfig context is the right one.",
                )
            ) from error


def as_json(body: object) -> bytes:
    """The body of a request as JSON that is also YAML, since the API server parses an applied object as YAML.

    YAML has no surrogate pairs, so characters beyond 16 bits are written as they are and not escaped.
    """
    return _SURROGATES.sub(_unescaped, json.dumps(body)).encode()


def _unescaped(pair: re.Match[str]) -> str:
    character: str = json.loads(f'"{pair[2]}"')
    return pair[1] + character


def source(settings: Settings) -> str:
    """Source of the cluster's address: a context of a kubeconfig, or the pod's service account."""
    if settings.kubeconfig is None and in_pod():
        return "the pod's service account"
    return f"context {settings.context or 'current'} of {settings.kubeconfig or 'the default kubeconfig'}"


def in_pod() -> bool:
    """Whether this process runs in a pod with a service account."""
    return "KUBERNETES_SERVICE_HOST" in os.environ and (SERVICE_ACCOUNT / "token").is_file()


def _load(settings: Settings) -> Any:
    """Read the configuration and build the client. Imports here, because the import takes a second."""
    import yaml
    from kubernetes import client, config
    from kubernetes.config.config_exception import ConfigException

    configuration: Any = client.Configuration()
    try:
        if settings.kubeconfig is None and in_pod():
            config.load_incluster_config(client_configuration=configuration)
        else:
            config.load_kube_config(
                config_file=settings.kubeconfig,
                context=settings.context,
                client_configuration=configuration,
                persist_config=False,
            )
    except (ConfigException, OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise BadInput(
            f"{source(settings)} cannot be used: {error}",
            code="KubeconfigUnusable",
            about=source(settings),
            remedy="Name an existing kubeconfig and context in the settings.",
        ) from error
    configuration.retries = False
    configuration.socket_options = [
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        *_keepalive(),
    ]
    if _is_loopback(configuration.host):
        configuration.proxy = None
    return client.ApiClient(configuration)


def _keepalive() -> list[tuple[int, int, int]]:
    """TCP options that detect a silent peer after 30 s; macOS names the first option differently."""
    idle = getattr(socket, "TCP_KEEPIDLE", None) or getattr(socket, "TCP_KEEPALIVE", None)
    options = [(idle, 15), (getattr(socket, "TCP_KEEPINTVL", None), 5), (getattr(socket, "TCP_KEEPCNT", None), 3)]
    return [(socket.IPPROTO_TCP, option, value) for option, value in options if option is not None]


def _is_loopback(url: str) -> bool:
    """Whether a URL points to this machine, which a proxy cannot reach."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _distrusts(error: BaseException | None) -> bool:
    """Whether a failed certificate check is the cause of an error: no retry helps."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = next((arg for arg in error.args if isinstance(arg, BaseException)), error.__cause__)
    return False


_backoff = tenacity.wait_exponential_jitter(multiplier=0.2, max=LONGEST_PAUSE_SECONDS, jitter=0.2)


def _pause(state: tenacity.RetryCallState) -> float:
    """Seconds of the Retry-After header, or exponential backoff."""
    error = state.outcome.exception() if state.outcome else None
    problem = error.problem if isinstance(error, Passing) else None
    if isinstance(problem, Unavailable) and problem.retry_after is not None:
        return problem.retry_after
    return _backoff(state)


def _log_retry(state: tenacity.RetryCallState) -> None:
    """Log a warning at the first retry, so that a person at a terminal knows the reason for the wait."""
    error = state.outcome.exception() if state.outcome else None
    level = logging.WARNING if state.attempt_number == 1 else logging.DEBUG
    _log.log(level, "Retrying: %s", error)
