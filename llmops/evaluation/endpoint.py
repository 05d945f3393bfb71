"""An engine's address, the name of its model, and its API key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

Progress = Callable[[str, int, int], None]
"""Called during a measurement with the suite's name, the requests done and their total."""


@dataclass(frozen=True)
class Endpoint:
    """An engine that speaks the OpenAI API over HTTP.

    Args:
        base_url: The server's root, such as `http://127.0.0.1:8000`; a trailing `/v1` is allowed and ignored.
        model: The served model's name, which is the llmops model's name.
        api_key: The engine's API key, if it asks for one; never printed.
    """

    base_url: str
    model: str
    api_key: str | None = field(default=None, repr=False)

    @property
    def root(self) -> str:
        """The base URL without `/v1` and without a trailing slash."""
        return self.base_url.rstrip("/").removesuffix("/v1").rstrip("/")

    @property
    def address(self) -> tuple[str, int, bool]:
        """Host, port and whether TLS is spoken.

        Raises:
            ValueError: The base URL is not http or https, or has no host.
        """
        parts = urlsplit(self.root)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{self.base_url!r} is not an http(s) URL with a host")
        tls = parts.scheme == "https"
        return parts.hostname, parts.port or (443 if tls else 80), tls
