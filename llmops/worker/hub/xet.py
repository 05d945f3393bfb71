"""Files in Xet as an ordered stream of bytes from any position.

In `hf_hub_download` the native client writes the file: it starts from zero after a kill, and the worker would have to
read the file back to hash it. The same client also streams from any position, so Xet files are resumed and hashed in
memory like all others.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Mapping
from typing import Any, Protocol

from huggingface_hub.utils import XetFileData


class _Stream(Protocol):
    def __next__(self) -> bytes: ...

    def cancel(self) -> None: ...


class _Group(Protocol):
    def download_stream(self, file_info: Any, start: int | None = None, end: int | None = None) -> _Stream: ...


class XetStreams:
    """Streams of a repository, which share the connections of the native client.

    Args:
        headers: Headers for the hub. The authorization goes to the hub alone, which returns a token for the storage.
    """

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = dict(headers)
        self._lock = threading.Lock()
        self._groups: dict[str, _Group] = {}

    def blocks(self, data: XetFileData, size: int, start: int) -> Generator[bytes]:
        """The file's bytes from `start`, in order.

        Raises:
            OSError: The storage or the hub's token service refuses or does not answer. It has no errno, unlike errors
                of the volume.
        """
        from hf_xet import XetFileInfo  # pyright: ignore[reportAttributeAccessIssue] - native, without stubs

        try:
            stream = self._group(data.refresh_route).download_stream(XetFileInfo(data.file_hash, size), start=start)
        except (OSError, RuntimeError, ValueError) as error:
            raise OSError(f"Xet: {error}") from error
        try:
            while True:
                try:
                    block = next(stream)
                except StopIteration:
                    return
                except (OSError, RuntimeError, ValueError) as error:
                    raise OSError(f"Xet: {error}") from error
                yield block
        finally:
            stream.cancel()

    def _group(self, refresh_route: str) -> _Group:
        with self._lock:
            if refresh_route not in self._groups:
                # Native code, which files in git do not need.
                from hf_xet import XetSession  # pyright: ignore[reportAttributeAccessIssue] - without stubs

                public = {name: value for name, value in self._headers.items() if name.lower() != "authorization"}
                self._groups[refresh_route] = XetSession().new_download_stream_group(
                    token_refresh_url=refresh_route, token_refresh_headers=self._headers, custom_headers=public
                )
            return self._groups[refresh_route]
