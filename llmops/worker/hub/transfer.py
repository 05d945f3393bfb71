"""One file from the hub, continued at any byte, hashed while the bytes are in memory.

`huggingface_hub` asks for the file (addresses, redirects, access, retries) and `http_get` of it, or the Xet client
under it, brings the bytes into a writer that hashes them. `hf_hub_download` itself would start from zero after a
kill, since it names its parts by chance.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import BinaryIO, cast

from huggingface_hub import get_hf_file_metadata, hf_hub_url, set_client_factory
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers
from huggingface_hub.utils._runtime import is_xet_available

from llmops.worker.files import size_of
from llmops.worker.hashing import Hash, feed, hasher
from llmops.worker.hub.errors import HUB_ERRORS, retry_after, told_apart
from llmops.worker.hub.stream import client
from llmops.worker.hub.xet import XetStreams
from llmops.worker.kernel import start_writing
from llmops.worker.pins import FilePin, Pins
from llmops.worker.report import Progress, WorkerError, emit

WAIT_LIMIT_SECONDS = 900.0  # In all, for a hub that says when to come back; a Job's retry comes after that.
WAIT_DEFAULT_SECONDS = 10.0
ATTEMPTS = 5  # Without one byte more in between.
HEAD_TIMEOUT_SECONDS = 30.0
WRITE_BEHIND = 32 << 20  # Bytes.


class Cancelled(Exception):
    """Another file failed: this transfer stops."""


class Hub:
    """The hub as one download sees it.

    Args:
        pins: Repository, commit and files.
        work: Folder for parts and the library's own files.
        token_file: File with the token, if one is needed.

    Raises:
        WorkerError: The token file cannot be read (kind `unauthorized`).
    """

    def __init__(self, pins: Pins, work: Path, token_file: Path | None) -> None:
        self._pins = pins
        self._parts = work / "parts"
        self._token: str | bool = _read_token(token_file) if token_file else False
        self._headers = build_hf_headers(token=self._token) | {"Accept-Encoding": "identity"}
        self._xet = XetStreams(self._headers)
        self._waited = 0.0
        self._lock = threading.Lock()

    def part(self, file: FilePin) -> Path:
        """Where the file's bytes gather."""
        return self._parts / f"{file.path}.part"

    def received(self, file: FilePin) -> int:
        """Bytes of the file that are there to continue from."""
        size = size_of(self.part(file)) or 0
        return size if size <= file.size else 0

    def receive(self, file: FilePin, progress: Progress, stop: threading.Event) -> str:
        """Bring the whole file into its part, continuing what is there; returns its digest as `FilePin.digest` has it.

        Raises:
            WorkerError: The hub refuses, or cannot for too long.
            Cancelled: `stop` was set.
            OSError: The volume cannot be written.
        """
        attempts = 0
        while True:
            before = self.received(file)
            try:
                return self._receive(file, progress, stop)
            except HUB_ERRORS as error:
                failure = told_apart(error, self._pins, file, with_token=bool(self._token))
                if failure is None:
                    raise
                if failure.kind == "rate_limited":
                    self._wait(failure, retry_after(error), stop)
                    continue
                if failure.kind != "hub_error":
                    raise failure from error
                attempts = 1 if self.received(file) > before else attempts + 1
                if attempts == ATTEMPTS:
                    raise failure from error
                emit("retry", path=file.path, attempt=attempts, reason=failure.message)
                if stop.wait(2.0 ** (attempts - 1)):
                    raise Cancelled from error

    def _receive(self, file: FilePin, progress: Progress, stop: threading.Event) -> str:
        url = hf_hub_url(self._pins.repo, file.path, revision=self._pins.commit)
        announced = get_hf_file_metadata(url, token=self._token, timeout=HEAD_TIMEOUT_SECONDS)
        if announced.size is not None and announced.size != file.size:
            raise WorkerError(
                "mismatch",
                f"{file.path} of {self._pins.repo}@{self._pins.commit}: the hub announces {announced.size} bytes, "
                f"pinned are {file.size}",
                remedy="Do not serve it. Check the endpoint and its proxies.",
            )
        part = self.part(file)
        part.parent.mkdir(parents=True, exist_ok=True)
        with _HashingPart(part, file, progress, stop) as writer:
            if announced.xet_file_data is not None and is_xet_available():
                if writer.tell() < file.size:
                    for block in self._xet.blocks(announced.xet_file_data, file.size, writer.tell()):
                        writer.write(block)
                if writer.tell() != file.size:
                    raise OSError(f"Xet: the stream ended after {writer.tell()} of {file.size} bytes")
            else:
                http_get(
                    url,
                    cast(BinaryIO, writer),
                    resume_size=writer.tell(),
                    headers=self._headers,
                    expected_size=file.size,
                    displayed_filename=file.path,
                )
            return writer.digest()

    def _wait(self, failure: WorkerError, seconds: float | None, stop: threading.Event) -> None:
        """Wait as the hub said, within the bound of this download."""
        seconds = WAIT_DEFAULT_SECONDS if seconds is None else seconds
        with self._lock:
            self._waited += seconds
            if self._waited > WAIT_LIMIT_SECONDS:
                raise failure
        emit("waiting", seconds=seconds, reason=failure.message)
        if stop.wait(seconds):
            raise Cancelled

    def served_other_bytes(self, file: FilePin, found: str) -> WorkerError:
        """The error for a file that came twice, whole, with another hash than its pin."""
        return WorkerError(
            "mismatch",
            f"{file.path} of {self._pins.repo}@{self._pins.commit}: expected {file.digest}, found {found}, twice: "
            "the hub (or something before it) served other bytes than those pinned",
            remedy="Do not serve it. Check the endpoint and its proxies; resolve the release anew if the hub is right.",
        )


class _HashingPart:
    """A part that hashes what is written to it, and what was there before.

    Speaks as much of a file's interface as `http_get` uses: it writes at the end, and starts again from zero (seek,
    truncate) where a server does not continue.
    """

    def __init__(self, path: Path, file: FilePin, progress: Progress, stop: threading.Event) -> None:
        self._pin = file
        self._progress = progress
        self._stop = stop
        self._hash = self._new_hash()
        if path.is_file() and path.stat().st_size > file.size:
            path.unlink()
        self._at = feed(path, [self._hash]) if path.is_file() else 0
        self._written = self._at
        self._file = path.open("ab", buffering=0)

    def __enter__(self) -> _HashingPart:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, chunk: bytes) -> int:
        """Append bytes and hash them."""
        if self._stop.is_set():
            raise Cancelled
        rest = memoryview(chunk)
        while rest:
            rest = rest[self._file.write(rest) :]
        self._hash.update(chunk)
        self._at += len(chunk)
        self._progress.add(len(chunk))
        if self._at - self._written >= WRITE_BEHIND:
            # The disk works while the network does, so that the sync at the end finds little left.
            start_writing(self._file.fileno(), self._written, self._at - self._written)
            self._written = self._at
        return len(chunk)

    def tell(self) -> int:
        """Bytes that are there."""
        return self._at

    def seek(self, position: int) -> int:
        """Go back to the start, the only place that a transfer goes back to."""
        if position != 0:
            raise ValueError(f"a part can start again at 0 only, not at {position}")
        self._progress.add(-self._at)
        self._at = self._written = 0
        self._hash = self._new_hash()
        return 0

    def truncate(self) -> int:
        """Drop what lies behind the position."""
        self._file.truncate(self._at)
        return self._at

    def digest(self) -> str:
        """The hash of the part, as `FilePin.digest` has it."""
        return f"{'sha256' if self._pin.sha256 else 'git-sha1'}:{self._hash.hexdigest()}"

    def _new_hash(self) -> Hash:
        return hasher("sha256" if self._pin.sha256 else "git_sha1", self._pin.size)


def _read_token(path: Path) -> str:
    try:
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise WorkerError(
            "unauthorized", f"the hub token in {path} cannot be read: {error}", remedy="Check the secret."
        ) from error
    if not token:
        raise WorkerError("unauthorized", f"the hub token in {path} is empty", remedy="Check the secret.")
    if not (token.isascii() and token.isprintable()):
        # The errors of HTTP clients show a value that they refuse.
        raise WorkerError(
            "unauthorized",
            f"the hub token in {path} has characters that no HTTP header takes",
            remedy="Put the token alone into the secret of weights.token, on one line.",
        )
    return token


set_client_factory(client)
