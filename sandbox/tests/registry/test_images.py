from __future__ import annotations

import hashlib
import json
import multiprocessing
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmops_sandbox.standins.images import ImageStore, Reference, config_bytes, manifest_bytes, normalise

from llmops.errors import BadInput


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images.json")


def test_an_image_is_found_by_tag_by_digest_and_by_both(store: ImageStore) -> None:
    added = store.add("vllm/vllm-openai", "v0.1", ("engine", "--x"), {"A": "b"})
    for reference in (
        "vllm/vllm-openai:v0.1",
        "docker.io/vllm/vllm-openai:v0.1",
        "index.docker.io/vllm/vllm-openai:v0.1",
        f"vllm/vllm-openai@{added.digest}",
        f"vllm/vllm-openai:v0.1@{added.digest}",
    ):
        assert store.resolve(reference) == added
    assert added.reference == f"docker.io/vllm/vllm-openai@{added.digest}"


@pytest.mark.parametrize(
    "reference",
    [
        "vllm/other:v1",
        "vllm/vllm-openai:v2",
        "vllm/vllm-openai",
        f"vllm/vllm-openai@sha256:{'0' * 64}",
        "",
        "a b",
        "x:",
    ],
)
def test_what_is_not_there_is_not_found(store: ImageStore, reference: str) -> None:
    store.add("vllm/vllm-openai", "v1", ("engine",))
    assert store.resolve(reference) is None


def test_a_tag_moves_and_what_it_named_stays_known_by_digest(store: ImageStore) -> None:
    old = store.add("ghcr.io/a/b", "v1", ("old",))
    new = store.add("ghcr.io/a/b", "v1", ("new",))
    moved = store.resolve("ghcr.io/a/b:v1")
    assert moved is not None
    assert moved.digest == new.digest != old.digest
    by_digest = store.resolve(old.reference)
    assert by_digest is not None
    assert by_digest.program == ("old",)
    assert [image.program for image in store.all()] == [("new",)]


def test_removing_a_tag_keeps_what_another_names(store: ImageStore) -> None:
    image = store.add("a/b", "v1", ("x",))
    store.add("a/b", "latest", ("x",))
    store.remove("a/b", "v1")
    assert store.resolve("a/b:v1") is None
    assert store.resolve(image.reference) is not None
    store.remove("a/b", "latest")
    assert store.resolve(image.reference) is None
    assert store.all() == []
    store.remove("a/b", "latest")


def test_the_digest_is_that_of_the_manifest_which_names_the_config(store: ImageStore) -> None:
    image = store.add("a/b", "v1", ("x", "y"), {"B": "2", "A": "1"})
    manifest = manifest_bytes(image)
    assert image.digest == f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    config = config_bytes(image)
    named = json.loads(manifest)["config"]
    assert named["digest"] == f"sha256:{hashlib.sha256(config).hexdigest()}"
    assert named["size"] == len(config)
    assert json.loads(config)["config"] == {"Entrypoint": ["x", "y"], "Env": ["A=1", "B=2"]}


@given(st.dictionaries(st.text(min_size=1), st.text(), max_size=4), st.lists(st.text(), min_size=1, max_size=4))
def test_the_digest_depends_on_content_alone(env: dict[str, str], program: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        one = ImageStore(Path(folder) / "one.json").add("a/b", "v1", tuple(program), env)
        other = ImageStore(Path(folder) / "two.json").add(
            "c/d", "v2", tuple(program), dict(reversed(list(env.items())))
        )
        changed = ImageStore(Path(folder) / "three.json").add("a/b", "v1", (*program, "more"), env)
    assert one.digest == other.digest != changed.digest


@pytest.mark.parametrize(
    ("given_name", "full"),
    [
        ("busybox", "docker.io/library/busybox"),
        ("docker.io/busybox", "docker.io/library/busybox"),
        ("vllm/x", "docker.io/vllm/x"),
        ("localhost/x", "localhost/x"),
        ("localhost:5000/a/b", "localhost:5000/a/b"),
        ("ghcr.io/a/b", "ghcr.io/a/b"),
    ],
)
def test_names_are_completed_as_runtimes_do(given_name: str, full: str) -> None:
    assert normalise(given_name) == full
    assert normalise(full) == full


def test_a_port_is_no_tag() -> None:
    assert Reference.parse("localhost:5000/a/b") == Reference("localhost:5000/a/b", "latest", None)


def test_bad_names_are_refused(store: ImageStore) -> None:
    for repository, tag in (("a b", "v1"), ("a/b", "v 1"), ("A//b", "v1"), ("a/b", "")):
        with pytest.raises(BadInput) as raised:
            store.add(repository, tag, ("x",))
        assert (raised.value.code, raised.value.about) == ("InvalidImageName", f"{repository}:{tag}")


def _add(path: Path, worker: int) -> None:
    for number in range(10):
        ImageStore(path).add(f"r/w{worker}", f"v{number}", ("x", str(number)))


def test_writers_do_not_lose_each_others_images(store: ImageStore) -> None:
    workers = [multiprocessing.Process(target=_add, args=(store.path, worker)) for worker in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(store.all()) == 30


def test_a_broken_file_is_named(store: ImageStore) -> None:
    store.path.write_text("{")
    with pytest.raises(BadInput) as raised:
        store.all()
    assert (raised.value.code, raised.value.about) == ("FileMalformed", str(store.path))


def test_the_digest_of_an_image_with_files_is_over_their_bytes(store: ImageStore, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "weights").mkdir(parents=True)
    (root / "weights" / "a").write_bytes(b"one")
    first = store.add("r.example/weights", "1", root=root)
    assert store.resolve("r.example/weights:1") == first
    assert f"sha256:{hashlib.sha256(manifest_bytes(first)).hexdigest()}" == first.digest
    (root / "weights" / "a").write_bytes(b"two")
    second = store.add("r.example/weights", "2", root=root)
    assert second.digest != first.digest
    (root / "weights" / "a").rename(root / "weights" / "b")
    assert store.add("r.example/weights", "3", root=root).digest != second.digest


def test_an_image_of_nothing_is_refused(store: ImageStore) -> None:
    with pytest.raises(BadInput) as raised:
        store.add("r.example/weights", "1")
    assert (raised.value.code, raised.value.about) == ("ProgramMissing", "r.example/weights:1")
