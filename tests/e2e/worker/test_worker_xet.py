"""Xet against a storage server with the part of the protocol that the real native client uses."""

from __future__ import annotations

import hashlib
import json
import random
import threading
from collections.abc import Callable, Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.servers.hub import partial

CONTENT = random.Random(1).randbytes(300_000)
CHUNK = 60_000
COMMIT, FILE_HASH, XORB_HASH = "a" * 40, "ab" * 32, "cd" * 32
# A chunk in a xorb: version 0, compressed size, scheme 0 (stored), size, bytes.
HEADER = 8
CHUNKS = [CONTENT[start : start + CHUNK] for start in range(0, len(CONTENT), CHUNK)]


def xorb(chunks: list[bytes]) -> bytes:
    return b"".join(
        b"\0" + len(chunk).to_bytes(3, "little") + b"\0" + len(chunk).to_bytes(3, "little") + chunk for chunk in chunks
    )


class Storage(ThreadingHTTPServer):
    """A hub and its Xet storage on one port; `seen` holds method, path, range and authorization of each request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.xorb = xorb(CHUNKS)
        self.refuses = False
        self.seen: list[tuple[str, str, str, str]] = []


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def storage(self) -> Storage:
        assert isinstance(self.server, Storage)
        return self.server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name in the base class
        return

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.storage.seen.append(
            (self.command, self.path, self.headers.get("Range", ""), self.headers.get("Authorization", ""))
        )
        self.send_response(status)
        for name, value in ({"Content_Length": str(len(body))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self._answer(
            200,
            ETag=f'"{hashlib.sha256(CONTENT).hexdigest()}"',
            X_Repo_Commit=COMMIT,
            Content_Length=str(len(CONTENT)),
            X_Xet_Hash=FILE_HASH,
            X_Xet_Refresh_Route=f"{self.storage.url}/token",
        )

    def do_GET(self) -> None:
        if self.path == "/token":
            token = {"accessToken": "storage-token", "exp": 99999999999, "casUrl": self.storage.url}
            self._answer(200, json.dumps(token).encode(), Content_Type="application/json")
        elif self.path.startswith("/v1/reconstructions/") and not self.storage.refuses:
            self._answer(200, json.dumps(self._reconstruction()).encode(), Content_Type="application/json")
        elif self.path == "/xorb":
            first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
            self._answer(
                206,
                self.storage.xorb[first : last + 1],
                Content_Range=f"bytes {first}-{last}/{len(self.storage.xorb)}",
            )
        else:
            self._answer(404, b"{}")

    def _reconstruction(self) -> dict[str, Any]:
        ends = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")
        first, last = int(ends[0]), min(int(ends[1] or len(CONTENT)), len(CONTENT) - 1)
        begin, end = first // CHUNK, last // CHUNK + 1
        chunks = {"start": begin, "end": end}
        length = sum(map(len, CHUNKS[begin:end]))
        at = begin * (CHUNK + HEADER)
        return {
            "offset_into_first_range": first - begin * CHUNK,
            "terms": [{"hash": XORB_HASH, "unpacked_length": length, "range": chunks}],
            "fetch_info": {
                XORB_HASH: [
                    {
                        "range": chunks,
                        "url": f"{self.storage.url}/xorb",
                        "url_range": {"start": at, "end": at + length + HEADER * (end - begin) - 1},
                    }
                ]
            },
        }


@pytest.fixture
def storage() -> Generator[Storage]:
    with Storage() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()


@pytest.fixture
def fetch(work: Callable[..., dict[str, Any]], storage: Storage, tmp_path: Path) -> Callable[[], dict[str, Any]]:
    pin = {"path": "model.bin", "size": len(CONTENT), "sha256": hashlib.sha256(CONTENT).hexdigest(), "git_sha1": None}
    release = tmp_path / "release.json"
    release.write_text(
        json.dumps({"model": "tiny", "weights": {"repo": "acme/tiny", "commit": COMMIT, "files": [pin]}})
    )
    (tmp_path / "token").write_text("hf_secret")

    def fetched() -> dict[str, Any]:
        return work(
            "download",
            *("--release", release, "--staging", "staging/tiny/key", "--target", "weights/tiny/key"),
            env={
                "HF_ENDPOINT": storage.url,
                "HF_TOKEN_PATH": str(tmp_path / "token"),
                "HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "1",
            },
        )

    return fetched


def test_a_file_in_xet_comes_whole_and_the_hub_token_stays_with_the_hub(
    fetch: Callable[[], dict[str, Any]], storage: Storage, target: Path
) -> None:
    result = fetch()
    assert result["kind"] == "ok", result
    assert (target / "model.bin").read_bytes() == CONTENT
    assert result["bytes"] == len(CONTENT)
    sent = {path.split("/")[1]: authorization for _, path, _, authorization in storage.seen}
    assert sent["token"] == "Bearer hf_secret"
    assert sent["v1"] == "Bearer storage-token"
    assert sent["xorb"] == ""


@pytest.mark.parametrize("kept", [1, CHUNK, 2 * CHUNK + 12_345, len(CONTENT) - 1, len(CONTENT)])
def test_a_part_of_a_file_in_xet_is_continued(
    fetch: Callable[[], dict[str, Any]], storage: Storage, target: Path, staging: Path, kept: int
) -> None:
    part = partial(staging, "model.bin")
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT[:kept])
    result = fetch()
    assert result["kind"] == "ok", result
    assert (target / "model.bin").read_bytes() == CONTENT
    fetched = [item for item in storage.seen if item[1] == "/xorb"]
    firsts = [int(item[2].removeprefix("bytes=").split("-")[0]) for item in fetched]
    assert firsts == ([kept // CHUNK * (CHUNK + HEADER)] if kept < len(CONTENT) else [])
    assert not [event for event in result["events"] if event["event"] == "mismatch"]


def test_other_bytes_from_xet_are_a_bad_release(
    fetch: Callable[[], dict[str, Any]], storage: Storage, target: Path
) -> None:
    storage.xorb = xorb([CHUNKS[0], bytes(CHUNK), *CHUNKS[2:]])
    result = fetch()
    assert (result["kind"], result["exit_code"]) == ("mismatch", 3), result
    assert not target.exists()


def test_a_storage_that_refuses_is_temporary(fetch: Callable[[], dict[str, Any]], storage: Storage) -> None:
    """Slow: the waits between the attempts add up to 15 s."""
    storage.refuses = True
    result = fetch()
    assert (result["kind"], result["exit_code"]) == ("hub_error", 4), result
    assert "Xet" in result["message"]
