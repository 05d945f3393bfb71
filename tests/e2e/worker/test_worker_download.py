from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from llmops_sandbox.standins.hub import HubServer, HubStore
from llmops_sandbox.standins.standin import Fault

from tests.support.servers.answering import Answer, Asked, answering
from tests.support.servers.hub import partial

Download = Callable[..., dict[str, Any]]
Pin = Callable[[dict[str, bytes]], Path]
BIG = "model-00001-of-00002.safetensors"


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fault(**fields: Any) -> Fault:
    return Fault.model_validate(fields)


def test_the_folder_appears_whole_with_nothing_beside_it(
    download: Download, pin: Pin, files: dict[str, bytes], target: Path, staging: Path
) -> None:
    result = download(pin(files))
    assert result["kind"] == "ok", result
    assert tree(target) == files
    assert not staging.exists()
    assert result["bytes"] == result["total"] == sum(map(len, files.values()))


def test_a_second_run_asks_the_hub_for_nothing(
    download: Download, pin: Pin, files: dict[str, bytes], hub: HubServer
) -> None:
    release = pin(files)
    download(release)
    before = len(hub.seen())
    assert download(release)["kind"] == "ok"
    assert len(hub.seen()) == before


def test_only_pinned_files_are_fetched(
    download: Download, pin: Pin, files: dict[str, bytes], target: Path, tmp_path: Path
) -> None:
    release = pin({**files, "pytorch_model.bin": b"not asked for"})
    content = json.loads(release.read_text())
    content["weights"]["files"] = [file for file in content["weights"]["files"] if file["path"] != "pytorch_model.bin"]
    release.write_text(json.dumps(content))
    download(release)
    assert tree(target) == files


def test_a_cut_connection_is_resumed(
    download: Download, pin: Pin, files: dict[str, bytes], target: Path, hub: HubServer
) -> None:
    release = pin(files)
    hub.faults.set(fault(path=f"*/{BIG}", method="GET", cut_after=100_000, times=2))
    assert download(release)["kind"] == "ok"
    assert tree(target) == files
    assert any(item.range.startswith("bytes=") for item in hub.seen(f"*/{BIG}", "GET"))


def test_killed_at_random_bytes_it_converges_and_keeps_what_it_had(
    start: Callable[..., subprocess.Popen[str]],
    download: Download,
    pin: Pin,
    files: dict[str, bytes],
    hub: HubServer,
    target: Path,
    staging: Path,
) -> None:
    release = pin(files)
    hub.faults.set(fault(path="*.safetensors", method="GET", bytes_per_second=100_000))
    part = partial(staging, BIG)
    chance = random.Random(3)
    size = len(files[BIG])
    stops = sorted(chance.sample(range(1, size * 3 // 4), 4))
    for stop in stops:
        process = start(
            "download",
            *("--release", release, "--staging", "staging/tiny/key", "--target", "weights/tiny/key"),
            env={"HF_ENDPOINT": hub.url},
        )
        deadline = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < deadline:
            if part.is_file() and part.stat().st_size >= stop:
                break
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not target.exists() or tree(target) == files
    if target.exists():
        # On a busy machine the download ends before the last signal; the loop has compared the result.
        return
    kept = part.stat().st_size
    assert stops[-1] <= kept <= size
    hub.faults.set()
    assert download(release)["kind"] == "ok"
    assert tree(target) == files
    assert kept == size or hub.seen(f"*/{BIG}", "GET")[-1].range == f"bytes={kept}-"


def test_a_rotten_part_is_thrown_away_and_does_not_count_against_the_hub(
    download: Download, pin: Pin, files: dict[str, bytes], target: Path, staging: Path, hub: HubServer
) -> None:
    release = pin(files)
    part = partial(staging, BIG)
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(5000))
    # The first transfer resumes the part; the second is complete, so it counts.
    hub.faults.set(fault(path=f"/cdn/*/{BIG}", method="GET", flip_bit=8 * 6000, times=2))
    result = download(release)
    assert result["kind"] == "ok"
    assert [event["resumed"] for event in result["events"] if event["event"] == "mismatch"] == [True, False]
    assert tree(target) == files


def test_other_bytes_once_are_downloaded_again(
    download: Download, pin: Pin, files: dict[str, bytes], target: Path, hub: HubServer
) -> None:
    release = pin(files)
    hub.faults.set(fault(path=f"/cdn/*/{BIG}", method="GET", flip_bit=8 * 1234 + 5, times=1))
    result = download(release)
    assert result["kind"] == "ok"
    assert [event["path"] for event in result["events"] if event["event"] == "mismatch"] == [BIG]
    assert tree(target) == files


def test_other_bytes_twice_are_a_bad_release_that_names_file_and_hashes(
    download: Download, pin: Pin, files: dict[str, bytes], target: Path, hub: HubServer, store: HubStore
) -> None:
    release = pin(files)
    hub.faults.set(fault(path=f"/cdn/*/{BIG}", method="GET", flip_bit=77))
    result = download(release)
    assert (result["kind"], result["exit_code"]) == ("mismatch", 3)
    (pinned,) = [file for file in json.loads(release.read_text())["weights"]["files"] if file["path"] == BIG]
    assert BIG in result["message"]
    assert pinned["sha256"] in result["message"]
    assert result["message"].count("sha256:") == 2
    assert not target.exists()
    hub.faults.set()
    assert download(release)["kind"] == "ok"


def test_a_small_file_with_other_bytes_is_found_by_its_git_hash(
    download: Download, pin: Pin, files: dict[str, bytes], hub: HubServer
) -> None:
    release = pin(files)
    hub.faults.set(fault(path="*/config.json", method="GET", flip_bit=3))
    result = download(release)
    assert result["kind"] == "mismatch"
    assert "git-sha1:" in result["message"]


def test_the_remedy_of_gated_is_access_and_the_token_file_gives_it(
    download: Download, pin: Pin, files: dict[str, bytes], store: HubStore, tmp_path: Path
) -> None:
    release = pin(files)
    store.set_gated("acme/tiny", "hf_secret")
    result = download(release)
    assert (result["kind"], result["exit_code"]) == ("gated", 5)
    assert "Accept the terms" in result["remedy"]
    token = tmp_path / "token"
    token.write_text("hf_secret\n")
    assert download(release, HF_TOKEN_PATH=str(token))["kind"] == "ok"


def test_the_token_is_not_sent_to_the_host_that_serves_the_bytes(
    download: Download, pin: Pin, files: dict[str, bytes], store: HubStore, hub: HubServer, tmp_path: Path
) -> None:
    release = pin(files)
    store.set_gated("acme/tiny", "hf_secret")
    (tmp_path / "token").write_text("hf_secret")
    download(release, HF_TOKEN_PATH=str(tmp_path / "token"))
    sent = hub.seen("/cdn/*", "GET")
    assert sent
    assert not any(item.authorization for item in sent)


def test_a_bad_token_is_unauthorized(
    download: Download, pin: Pin, files: dict[str, bytes], store: HubStore, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("hf_wrong")
    result = download(pin(files), HF_TOKEN_PATH=str(tmp_path / "token"))
    assert (result["kind"], result["exit_code"]) == ("unauthorized", 5)
    assert "hf_wrong" not in json.dumps(result)


@pytest.mark.parametrize("content", [None, b" \n", b"hf_SECRET\nhf_OTHER", b"hf_SECRET\xc3\xa4", b"hf_SECRET\xff"])
def test_a_token_file_without_a_token_is_unauthorized_and_not_shown(
    download: Download, pin: Pin, files: dict[str, bytes], tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    result = download(pin(files), HF_TOKEN_PATH=str(path))
    assert result["kind"] == "unauthorized"
    assert str(path) in result["message"]
    assert "SECRET" not in json.dumps(result)


@pytest.mark.parametrize(
    ("field", "value", "kind", "code"),
    [
        ("repo", "acme/nothing", "repo_missing", 5),
        ("commit", "f" * 40, "revision_missing", 3),
        ("path", "other.json", "file_missing", 3),
    ],
)
def test_a_missing_repository_commit_and_file_have_different_kinds(
    download: Download, pin: Pin, files: dict[str, bytes], field: str, value: str, kind: str, code: int
) -> None:
    release = pin(files)
    content = json.loads(release.read_text())
    if field == "path":
        content["weights"]["files"][0]["path"] = value
    else:
        content["weights"][field] = value
    release.write_text(json.dumps(content))
    result = download(release)
    assert (result["kind"], result["exit_code"]) == (kind, code)
    assert value in result["message"]


def test_a_rate_limit_is_waited_for(
    download: Download, pin: Pin, files: dict[str, bytes], target: Path, hub: HubServer
) -> None:
    release = pin(files)
    hub.faults.set(fault(path="*/config.json", status=429, retry_after=1, times=2))
    result = download(release)
    assert result["kind"] == "ok"
    assert [event["seconds"] for event in result["events"] if event["event"] == "waiting"] == [1, 1]
    assert tree(target) == files


def test_a_rate_limit_beyond_the_limit_ends_the_run(
    download: Download, pin: Pin, files: dict[str, bytes], hub: HubServer
) -> None:
    release = pin(files)
    hub.faults.set(fault(path="*/config.json", status=429, retry_after=5000))
    result = download(release)
    assert (result["kind"], result["exit_code"]) == ("rate_limited", 4)


def test_a_server_error_is_retried(
    download: Download, pin: Pin, files: dict[str, bytes], target: Path, hub: HubServer
) -> None:
    release = pin(files)
    hub.faults.set(fault(path="*.safetensors", status=503, times=1))
    assert download(release)["kind"] == "ok"
    assert tree(target) == files


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_what_the_storage_refuses_is_asked_of_the_hub_again(
    download: Download, pin: Pin, files: dict[str, bytes], target: Path, hub: HubServer, status: int
) -> None:
    hub.faults.set(fault(path=f"/cdn/*/{BIG}", method="GET", status=status, times=1))
    result = download(pin(files))
    assert result["kind"] == "ok", result
    (retry,) = [event for event in result["events"] if event["event"] == "retry"]
    assert f"127.0.0.1, to which the hub redirects, answered {status}" in retry["reason"]
    assert tree(target) == files


def test_a_part_from_which_the_server_does_not_go_on_is_thrown_away(
    download: Download, pin: Pin, files: dict[str, bytes], target: Path, staging: Path, hub: HubServer
) -> None:
    part = partial(staging, BIG)
    part.parent.mkdir(parents=True)
    part.write_bytes(files[BIG][:5000])
    hub.faults.set(fault(path=f"/cdn/*/{BIG}", method="GET", status=416, times=1))
    result = download(pin(files))
    assert result["kind"] == "ok", result
    assert [item.range for item in hub.seen(f"/cdn/*/{BIG}", "GET")] == ["bytes=5000-", ""]
    assert tree(target) == files


def test_a_server_that_cuts_off_and_has_no_ranges_ends_the_run(
    download: Download, pin: Pin, files: dict[str, bytes], hub: HubServer
) -> None:
    """Slow: the waits between the attempts add up to 15 s."""
    release = pin(files)
    cut, refuse = (fault(path=f"/cdn/*/{BIG}", method="GET", **effect, times=1)
                   for effect in ({"cut_after": 100_000}, {"status": 416}))  # fmt: skip
    hub.faults.set(*[cut, refuse] * 20)
    result = download(release)
    assert (result["kind"], result["exit_code"]) == ("hub_error", 4)
    assert "416" in result["message"]


def test_an_answer_that_is_longer_than_the_pin_fills_no_volume(
    work: Callable[..., dict[str, Any]], pin: Pin, staging: Path
) -> None:
    """Slow: the waits between the attempts add up to 15 s."""
    content = b'{"model_type": "llama"}'

    def answer(asked: Asked) -> Answer:
        headers = [("ETag", '"x"'), ("X-Repo-Commit", "0" * 40), ("X-Linked-Size", str(len(content)))]
        if asked.method == "HEAD":
            return Answer(headers=headers)
        return Answer(iter(lambda: b"x" * (1 << 20), b""), headers=headers)

    with answering(answer) as server:
        result = work(
            "download",
            *("--release", pin({"config.json": content}), "--staging", "staging/tiny/key"),
            *("--target", "weights/tiny/key"),
            env={"HF_ENDPOINT": server.url},
        )
    assert (result["kind"], result["exit_code"]) == ("hub_error", 4)
    assert "more than the 23 bytes of the pin" in result["message"]
    assert sum(len(kept) for kept in tree(staging).values()) <= len(content)


def test_a_hub_that_does_not_answer_is_temporary(
    work: Callable[..., dict[str, Any]], pin: Pin, files: dict[str, bytes]
) -> None:
    """Slow: the waits between the attempts add up to 15 s."""
    result = work(
        "download",
        *("--release", pin(files), "--staging", "staging/tiny/key", "--target", "weights/tiny/key"),
        env={"HF_ENDPOINT": "http://127.0.0.1:9"},
    )
    assert (result["kind"], result["exit_code"]) == ("hub_error", 4)
    assert "ConnectError" in result["message"]


def test_a_volume_that_is_too_small_is_refused_before_the_first_byte(
    download: Download, pin: Pin, files: dict[str, bytes], hub: HubServer, root: Path
) -> None:
    release = pin(files)
    content = json.loads(release.read_text())
    content["weights"]["files"][0]["size"] = 10**15
    release.write_text(json.dumps(content))
    result = download(release)
    assert (result["kind"], result["exit_code"]) == ("no_space", 5)
    assert str(root) in result["message"]
    assert not hub.seen()


def test_an_announced_size_that_differs_is_a_bad_release(download: Download, pin: Pin, files: dict[str, bytes]) -> None:
    release = pin(files)
    content = json.loads(release.read_text())
    content["weights"]["files"][0]["size"] += 1
    release.write_text(json.dumps(content))
    assert download(release)["kind"] == "mismatch"


def test_two_pods_at_once_make_one_folder(
    start: Callable[..., subprocess.Popen[str]], pin: Pin, files: dict[str, bytes], hub: HubServer, target: Path
) -> None:
    release = pin(files)
    hub.faults.set(fault(path="*.safetensors", method="GET", bytes_per_second=600_000))
    pods = [
        start(
            "download",
            *("--release", release, "--staging", "staging/tiny/key", "--target", "weights/tiny/key"),
            env={"HF_ENDPOINT": hub.url},
        )
        for _ in range(2)
    ]
    assert [pod.wait(timeout=60) for pod in pods] == [0, 0]
    assert tree(target) == files
    assert len(hub.seen(f"/cdn/*/{BIG}", "GET")) == 1


def test_the_wrong_files_of_a_folder_are_replaced_and_the_right_ones_kept(
    download: Download, checksum: Download, pin: Pin, files: dict[str, bytes], target: Path, hub: HubServer
) -> None:
    release = pin(files)
    download(release)
    with (target / BIG).open("r+b") as file:
        file.seek(5000)
        file.write(b"!")
    assert checksum(release)["kind"] == "mismatch"
    before = len(hub.seen("*", "GET"))
    result = download(release)
    assert (result["kind"], result["bytes"]) == ("ok", result["total"])
    assert {item.path.rsplit("/", 1)[-1] for item in hub.seen("*", "GET")[before:]} == {BIG}
    assert tree(target) == files
    assert checksum(release)["verified"]


def test_a_problem_that_a_later_check_cleared_replaces_nothing(
    download: Download, checksum: Download, pin: Pin, files: dict[str, bytes], target: Path, hub: HubServer
) -> None:
    release = pin(files)
    download(release)
    (target / "extra.json").write_text("{}")
    checksum(release)
    (target / "extra.json").unlink()
    for index in ("0", "1"):
        checksum(release, "--shards", "2", "--index", index)
    before = len(hub.seen())
    assert download(release)["kind"] == "ok"
    assert len(hub.seen()) == before
    assert target.with_name("key.json").exists()


def test_a_proxy_from_the_environment_is_used(
    download: Download, pin: Pin, files: dict[str, bytes], hub: HubServer, target: Path
) -> None:
    # Only the proxy, which is the stand-in itself, reaches the hub's address.
    small = {path: content for path, content in files.items() if not path.endswith(".safetensors")}
    result = download(pin(small), HF_ENDPOINT="http://hub.invalid", http_proxy=hub.url)
    assert result["kind"] == "ok", result
    assert tree(target) == small


def test_sigterm_ends_it_at_once(
    start: Callable[..., subprocess.Popen[str]], pin: Pin, files: dict[str, bytes], hub: HubServer, staging: Path
) -> None:
    release = pin(files)
    # Fast enough for the part to appear soon: SIGTERM does not interrupt a read.
    hub.faults.set(fault(path="*.safetensors", method="GET", bytes_per_second=200_000))
    process = start(
        "download",
        *("--release", release, "--staging", "staging/tiny/key", "--target", "weights/tiny/key"),
        env={"HF_ENDPOINT": hub.url},
    )
    deadline = time.monotonic() + 30
    while not partial(staging, BIG).is_file() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.terminate()
    assert process.wait(timeout=10) == 128 + signal.SIGTERM


def test_a_volume_with_something_else_in_the_place_is_for_a_person_to_heal(
    download: Download, pin: Pin, files: dict[str, bytes], root: Path
) -> None:
    (root / "staging").write_text("a file in the place of a folder")
    result = download(pin(files))
    assert (result["kind"], result["exit_code"]) == ("volume_refuses", 5)
    assert os.fspath(root / "staging") in result["message"]
    assert "Remove" in result["remedy"]
