"""Sends a file, with ranges: by the kernel, or altered as the request's fault says."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

from aiohttp import web

from llmops_sandbox.standins.standin import FAULT, Fault

_CHUNK = 256 * 1024


async def send_file(request: web.Request, path: Path, size: int, headers: Mapping[str, str]) -> web.StreamResponse:
    """Answer GET or HEAD of a file of `size` bytes with 200, 206 or 416; `headers` are added to the answer."""
    common = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream", **headers}
    try:
        start, stop = _bounds(request, size)
    except ValueError:
        return web.Response(status=416, headers={**common, "Content-Range": f"bytes */{size}"})
    response = web.StreamResponse(status=200, headers=common)
    if "Range" in request.headers:
        response.set_status(206)
        response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    response.content_length = stop - start
    await response.prepare(request)
    if request.method != "HEAD":
        # A client may leave in the middle, for example because it is killed.
        with path.open("rb") as stream, suppress(ConnectionError):
            if request[FAULT].shapes_body:
                await _send_shaped(request, response, stream, start, stop)
            else:
                await _send_fast(request, response, stream, start, stop)
    return response


def _bounds(request: web.Request, size: int) -> tuple[int, int]:
    if "Range" not in request.headers:
        return 0, size
    asked = request.http_range
    start, stop, _ = asked.indices(size)
    if start >= stop:
        raise ValueError("range not satisfiable")
    return start, stop


async def _send_fast(
    request: web.Request, response: web.StreamResponse, stream: IO[bytes], start: int, stop: int
) -> None:
    # aiohttp writes the headers with the first chunk; the kernel copies the rest.
    stream.seek(start)
    first = stream.read(min(_CHUNK, stop - start))
    await response.write(first)
    rest = stop - start - len(first)
    if rest and request.transport is not None and not request.transport.is_closing():
        await asyncio.get_running_loop().sendfile(request.transport, stream, start + len(first), rest)


async def _send_shaped(
    request: web.Request, response: web.StreamResponse, stream: IO[bytes], start: int, stop: int
) -> None:
    fault: Fault = request[FAULT]
    cut = stop if fault.cut_after is None else min(stop, start + fault.cut_after)
    stream.seek(start)
    position = start
    while position < cut:
        chunk = bytearray(stream.read(min(_CHUNK, cut - position)))
        if fault.flip_bit is not None and position <= fault.flip_bit // 8 < position + len(chunk):
            chunk[fault.flip_bit // 8 - position] ^= 1 << fault.flip_bit % 8
        await response.write(bytes(chunk))
        position += len(chunk)
        if fault.bytes_per_second is not None:
            await asyncio.sleep(len(chunk) / fault.bytes_per_second)
    if cut < stop and request.transport is not None:
        request.transport.close()
