"""HTTP/1.1 answers and server-sent events, parsed without I/O from bytes as they come.

Small on purpose: what an engine answers to one POST, no more, so that a load client costs little of the CPU
that it measures with.
"""

from __future__ import annotations

from llmops.errors import LlmopsError

MAX_HEAD = 64 * 1024


class WireError(LlmopsError):
    """What came over the connection is not an HTTP/1.1 answer."""


class Answer:
    """One HTTP answer: head, then a body framed by chunks, by length, or by the end of the connection."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.complete = False
        self._buffer = bytearray()
        self._left = 0  # bytes of the chunk or body that are still to come; with chunks, its CRLF included
        self._framing = ""

    @property
    def started(self) -> bool:
        """Whether anything came at all."""
        return bool(self.status or self._buffer)

    @property
    def keep_alive(self) -> bool:
        """Whether the connection may carry another request."""
        return self.complete and self._framing != "close" and "close" not in self.headers.get("connection", "").lower()

    def feed(self, data: bytes) -> bytes:
        """Take bytes off the connection; return those of the body among them.

        Raises:
            WireError: They are no HTTP/1.1 answer.
        """
        self._buffer += data
        while not self._framing:
            if not self._head():
                return b""
        if self._framing == "chunked":
            return self._chunks()
        body = bytes(self._buffer)
        self._buffer.clear()
        if self._framing == "length":
            if len(body) > self._left:
                raise WireError(
                    f"the answer's body is longer than its Content-Length by {len(body) - self._left} bytes"
                )
            self._left -= len(body)
            self.complete = self._left == 0
        return body

    def close(self) -> None:
        """The other side closed: the end of an answer without a framing, a cut for any other."""
        self.complete = self.complete or self._framing == "close"

    def _head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > MAX_HEAD:
                raise WireError(f"the answer's head is longer than {MAX_HEAD} bytes")
            return False
        first, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        version, _, rest = first.partition(" ")
        if version not in ("HTTP/1.1", "HTTP/1.0") or not rest[:3].isdigit():
            raise WireError(f"the answer does not start as HTTP/1.1 does: {first[:80]!r}")
        status = int(rest[:3])
        if 100 <= status < 200:  # 100 Continue and its like: the answer comes after
            return True
        self.status = status
        self.headers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
        }
        self._frame()
        return True

    def _frame(self) -> None:
        length = self.headers.get("content-length")
        if "chunked" in self.headers.get("transfer-encoding", "").lower():
            self._framing = "chunked"
        elif self.status in (204, 304) or length is not None:
            self._framing = "length"
            if length is not None and not length.isdigit():
                raise WireError(f"the answer's Content-Length is {length!r}")
            self._left = int(length or 0)
            self.complete = self._left == 0
        else:
            self._framing = "close"

    def _chunks(self) -> bytes:
        buffer, position, size = self._buffer, 0, len(self._buffer)
        body: list[bytes] = []
        while position < size and not self.complete:
            if self._left == 0:
                end = buffer.find(b"\r\n", position)
                if end < 0:
                    break
                length = _chunk_size(buffer[position:end])
                if length == 0:
                    # The last chunk: trailers, if any, end with an empty line.
                    stop = buffer.find(b"\r\n\r\n", end)
                    if stop < 0:
                        break
                    self.complete = True
                    break
                self._left, position = length + 2, end + 2
            part = buffer[position : position + self._left]
            if len(part) == self._left:
                body.append(bytes(part[:-2]))
            elif len(part) == self._left - 1:
                break  # a CR without its LF: wait, so that the CR never counts as body
            else:
                body.append(bytes(part))
            position += len(part)
            self._left -= len(part)
        del buffer[:position]
        return b"".join(body)


def _chunk_size(line: bytearray) -> int:
    digits = bytes(line).partition(b";")[0].strip()
    # int() would take a sign and underscores too, and a negative size would never end.
    if not digits or digits.strip(b"0123456789abcdefABCDEF"):
        raise WireError(f"the answer's chunk size is {bytes(line[:40])!r}")
    return int(digits, 16)


class Events:
    """Server-sent events, of which only the data matters here. Lines end in LF or CRLF."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, body: bytes) -> list[bytes]:
        """Take bytes of a body; return the data of each event that they complete."""
        *lines, self._rest = (self._rest + body).split(b"\n")
        events: list[bytes] = []
        for ended in lines:
            line = ended.removesuffix(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                events.append(b"\n".join(self._data))
                self._data.clear()
        return events
