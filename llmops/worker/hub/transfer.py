"""Downloads one file from the hub: resumed at any byte, hashed in memory.

`huggingface_hub` requests the file (addresses, redirects, access, retries). Its `http_get`, or its Xet client, writes
the bytes to a writer that hashes them. `hf_hub_download` is not an option: its partial files have random names, so it
starts from zero after a kill.
"""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import BinaryIO, cast

from huggingface_hub import get_hf_file_metadata, hf_hub_url, set_client_factory
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers
from huggingface_hub.utils._runtime import is_xet_available

from llmops.worker.files import size_of
from llmops.worker.hashing import Hash, feed, hasher
from llmops.worker.hub.errors import HUB_ERRORS, as_worker_error, is_outside_file, retry_after
from llmops.worker.hub.stream import client
from llmops.worker.hub.xet import XetStreams
from llmops.worker.kernel import start_writing
from llmops.worker.pins import FilePin, Pins
from llmops.worker.report import Progress, WorkerError, emit

WAIT_LIMIT_SECONDS = 900.0  # Sum of the waits that a rate limit asks for; after it, the Job retries.
WAIT_DEFAULT_SECONDS = 10.0
WAIT_LEAST_SECONDS = 1.0  # A hub that asks for 0 s would be asked without pause, and for ever.
ATTEMPTS = 5  # In a row without a new byte.
HEAD_TIMEOUT_SECONDS = 30.0
WRITE_BEHIND = 32 << 20  # Bytes.


class Cancelled(Exception):
    """This transfer stops, because another file has failed."""


class Hub:
    """The hub, for one download.

    Args:
        pins: Repository, commit and files.
        work: Folder for parts and for files of the library.
        token_file: File with the token, if there is one.

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
        """Path of the partial file: of one length, and of its own, whatever the file's name is."""
        return self._parts / f"{hashlib.sha256(file.path.encode()).hexdigest()[:32]}.part"

    def received(self, file: FilePin) -> int:
        """Bytes of the partial file, to resume from."""
        size = size_of(self.part(file)) or 0
        return size if size <= file.size else 0

    def receive(self, file: FilePin, progress: Progress, stop: threading.Event) -> str:
        """Download the file to its part, resuming it; returns its digest in the form of `FilePin.digest`.

        Raises:
            WorkerError: The hub refuses, or fails for too long.
            Cancelled: `stop` is set.
            OSError: The volume cannot be written.
        """
        attempts = 0
        while True:
            before = self.received(file)
            try:
                return self._receive(file, progress, stop)
            except HUB_ERRORS as error:
                failure = as_worker_error(error, self._pins, file, with_token=bool(self._token))
                if failure is None:
                    raise
                if failure.kind == "rate_limited":
                    self._wait(failure, retry_after(error), stop)
                    continue
                if failure.kind != "hub_error":
                    raise failure from error
                useless = is_outside_file(error)
                attempts = 1 if self.received(file) > before and not useless else attempts + 1
                if useless:
                    # No later attempt could go on from there.
                    progress.add(-self.received(file))
                    self.part(file).unlink(missing_ok=True)
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
                f"the pin has {file.size}",
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
        """Wait as long as the hub asks, within the limit of this download."""
        seconds = WAIT_DEFAULT_SECONDS if seconds is None else max(seconds, WAIT_LEAST_SECONDS)
        with self._lock:
            self._waited += seconds
            if self._waited > WAIT_LIMIT_SECONDS:
                raise failure
        emit("waiting", seconds=seconds, reason=failure.message)
        if stop.wait(seconds):
            raise Cancelled

    def served_other_bytes(self, file: FilePin, digest: str) -> WorkerError:
        """The error for a file whose hash differed from its pin in two complete transfers."""
        return WorkerError(
            "mismatch",
            f"{file.path} of {self._pins.repo}@{self._pins.commit}: expected {file.digest}, found {digest}, twice: "
            "the hub (or a proxy) serves other bytes than those pinned",
            remedy="Do not serve it. Check the endpoint and its proxies; if the hub is right, resolve the release.",
        )


class _HashingPart:
    """A partial file that hashes its old bytes and each write.

    It has the methods of a file that `http_get` uses: it writes at the end, and restarts from zero (seek, truncate) if
    the server does not resume.
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
        """Append bytes and hash them.

        Raises:
            OSError: They are more than the pinned ones. It has no errno, unlike errors of the volume.
        """
        if self._stop.is_set():
            raise Cancelled
        if self._at + len(chunk) > self._pin.size:
            # The volume has room for the pinned bytes, and serves others.
            raise OSError(f"the answer has more than the {self._pin.size:,} bytes of the pin")
        rest = memoryview(chunk)
        while rest:
            rest = rest[self._file.write(rest) :]
        self._hash.update(chunk)
        self._at += len(chunk)
        self._progress.add(len(chunk))
        if self._at - self._written >= WRITE_BEHIND:
            # The disk works while the network does, so the sync at the end is short.
            start_writing(self._file.fileno(), self._written, self._at - self._written)
            self._written = self._at
        return len(chunk)

    def tell(self) -> int:
        """Bytes in the part."""
        return self._at

    def seek(self, position: int) -> int:
        """Go back to the start, the only position that `http_get` seeks."""
        if position != 0:
            raise ValueError(f"a part can restart at 0 only, not at {position}")
        self._progress.add(-self._at)
        self._at = self._written = 0
        self._hash = self._new_hash()
        return 0

    def truncate(self) -> int:
        """Drop the bytes after the position."""
        self._file.truncate(self._at)
        return self._at

    def digest(self) -> str:
        """The hash of the part, in the form of `FilePin.digest`."""
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
        # Refused here, because the error of an HTTP client would show the token.
        raise WorkerError(
            "unauthorized",
            f"the hub token in {path} has characters that an HTTP header cannot have",
            remedy="Store the token alone in the Secret of weights.token, on one line.",
        )
    return token


set_client_factory(client)
