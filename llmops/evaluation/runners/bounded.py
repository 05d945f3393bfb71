"""Bounds the bytes of each answer that openai's client reads whole into memory.

It imports httpx2: import it on the first request.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2

LONGEST_ANSWER = 8 << 20
"""Bytes of an answer. Each character of a text may take six of them in JSON."""


class AnswerRefused(httpx2.TransportError):
    """The answer is longer than the bound, or packed, so that its length is unknown."""


class BoundedTransport(httpx2.AsyncHTTPTransport):
    """Connections to an engine whose answers have at most `LONGEST_ANSWER` bytes, and are not packed."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request.

        Raises:
            AnswerRefused: Reading the answer raises it, too.
        """
        request.headers["Accept-Encoding"] = "identity"
        response = await super().handle_async_request(request)
        if (packed := response.headers.get("content-encoding", "identity")) != "identity":
            await response.aclose()
            raise AnswerRefused(f"the answer is packed ({packed[:40]}), and was asked for as it is")
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        return httpx2.Response(
            response.status_code,
            headers=response.headers,
            stream=_Counted(response.stream),
            extensions=response.extensions,
        )


class _Counted(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        length = 0
        async for part in self._stream:
            length += len(part)
            if length > LONGEST_ANSWER:
                raise AnswerRefused(f"the answer is longer than {LONGEST_ANSWER:,} bytes")
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()
