"""The engine's options in a file are to vLLM what they were on its command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from llmops_sandbox.engine.arguments import parse_arguments

from llmops.config.catalog.load import load_catalog
from llmops.config.settings import Settings
from llmops.errors import BadInput
from llmops.manifests import configuration
from llmops.manifests.engine import arguments, objects
from llmops.releases.difference import diff
from llmops.releases.release import Release

# Switches and their negations, values of every kind, JSON whole and by its keys, and what is added up.
ARGUMENTS = [
    *("--enforce-eager", "--enable-prefix-caching", "--no-enable-prefix-caching", "--trust-remote-code"),
    *("--max-model-len=8192", "--max-model-len=32K", "--gpu-memory-utilization=0.90", "--quantization=awq_marlin"),
    *("--dtype=half", "--kv-cache-dtype=fp8", "--seed=-1", "--seed=7", "--tool-call-parser=llama3_json"),
    *('--compilation-config={"mode": 3}', "--compilation-config.mode=3", "--additional-config.A_b.c_d=yes"),
    *("--override-generation-config.top_p=0.9", "--override-generation-config.top_k=-1"),
    *('--additional-config.list=["x"]', "--additional-config.list+=y", "--additional-config.list+=-z"),
    *("--middleware=a.B", "--middleware=c.D", "--lora-modules=a=/x", "--chat-template=/opt/x.jinja"),
    *("--override-generation-config={}", "--max-log-len=", "--tokenizer=~"),
]


def with_arguments(release: Release, args: tuple[str, ...], template: str | None = None) -> Release:
    engine = release.engine.model_copy(update={"args": args, "chat_template": template})
    return release.model_copy(update={"engine": engine})


def written(release: Release, folder: Path) -> list[str]:
    """The command line, where the pod's files are in a folder of this machine."""
    for name, text in configuration.config_map(release, Settings.model_validate({}))["data"].items():
        (folder / name).write_text(text)
    pod = f"{configuration.MOUNT}/{configuration.name(release)}"
    return [each.replace(pod, str(folder)) for each in arguments(release)]


def plain(release: Release) -> list[str]:
    return [
        f"--model=/models/weights/tiny/{release.weights.key}",
        "--served-model-name=tiny",
        "--port=8000",
        "--middleware=llmops_drain.Drain",
        "--api-server-count=1",
        f"--shutdown-timeout={release.rollout.drain_seconds}",
        *release.engine.args,
    ]


@examples(max_examples=40, deadline=None)
@given(args=st.lists(st.sampled_from(ARGUMENTS), max_size=8))
def test_the_engine_is_told_the_same_by_a_file(
    args: list[str], release_of_all: Release, tmp_path_factory: pytest.TempPathFactory
) -> None:
    release = with_arguments(release_of_all, tuple(args))
    folder = tmp_path_factory.mktemp("files")
    assert parse_arguments(written(release, folder), {}) == parse_arguments(plain(release), {})


@pytest.fixture(scope="session")
def release_of_all() -> Release:
    return Release.model_validate(
        {
            "model": "tiny",
            "weights": {"repo": "a/b", "commit": "0" * 40, "files": [{"path": "m.safetensors", "size": 1}]},
            "engine": {"image": "vllm/vllm-openai", "tag": "v0.32.0", "digest": f"sha256:{'0' * 64}"},
            **{name: {} for name in ("gpu", "resources", "evaluation", "rollout", "access")},
            "suites": [],
        }
    )


def test_only_what_names_the_pods_places_stays_on_the_command_line(release: Release) -> None:
    rendered = arguments(with_arguments(release, ("--max-model-len=1", "--seed=-1"), "{{ x }}"))
    flags = [each.partition("=")[0] for each in rendered if each.startswith("--")]
    assert flags == [
        *("--model", "--served-model-name", "--port", "--middleware", "--config", "--chat-template"),
        # A value that a file would make a flag of.
        "--seed",
    ]
    # vLLM looks for the word alone: with its value in one word, the file is never read.
    assert "--config" in rendered


def test_the_simulated_engine_passes_over_a_file_that_vllm_passes_over(release: Release, tmp_path: Path) -> None:
    line = written(with_arguments(release, ("--max-model-len=7",)), tmp_path)
    index = line.index("--config")
    joined = [*line[:index], f"--config={line[index + 1]}", *line[index + 2 :]]
    assert parse_arguments(line, {}).max_model_len == 7
    assert parse_arguments(joined, {}).max_model_len is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["m", "--config"], "No config file specified"),
        (["m", "--config", "x.json"], "must be of a yaml/yml type"),
        (["m", "--config", "/nowhere/x.yaml"], "Unable to read the config file"),
        (["--config", "FILE"], "No model specified"),
    ],
)
def test_a_file_that_cannot_be_taken_ends_the_engine(tmp_path: Path, words: list[str], said: str) -> None:
    (tmp_path / "x.yaml").write_text("seed: 1")
    with pytest.raises(ValueError, match=said):
        parse_arguments([word.replace("FILE", str(tmp_path / "x.yaml")) for word in words], {})


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("max-model-len: 1\nmax-num-seqs: 2\nenable-prefix-caching: true\nempty: []\n")
    found = parse_arguments(["m", "--max-model-len=9", "--config", str(file)], {})
    assert (found.max_model_len, found.max_num_seqs) == (9, 2)
    assert found.given["enable_prefix_caching"] is True


def test_its_name_is_its_content(release: Release, settings: Settings) -> None:
    one = configuration.config_map(release, settings)
    assert one["immutable"] is True
    assert yaml.safe_load(one["data"]["engine.yaml"])["max-model-len"] == "8192"
    # Another release with the same options has the same: nothing of a release is on it.
    retried = release.model_copy(update={"suites": ()})
    assert retried.id != release.id
    assert configuration.config_map(retried, settings) == one
    others = [with_arguments(release, ("--seed=1",)), with_arguments(release, release.engine.args, "{{ x }}")]
    found = {configuration.name(each) for each in (release, *others)}
    assert len(found) == 3
    assert all(configuration.name(each) in " ".join(arguments(each)) for each in (release, *others))


def test_the_pod_has_the_files_where_the_command_line_says(release: Release, settings: Settings) -> None:
    told = with_arguments(release, (), "{{ x }}")
    found = objects(told, settings, "stable", 1, surge=True)
    (files,) = [each for each in found if each["metadata"]["name"] == configuration.name(told)]
    pod = found[-1]["spec"]["template"]["spec"]
    volumes = {each["name"]: each for each in pod["volumes"]}
    (mounted,) = [each for each in pod["containers"][0]["volumeMounts"] if each["name"] == configuration.VOLUME]
    assert volumes[configuration.VOLUME]["configMap"]["name"] == files["metadata"]["name"]
    assert mounted["readOnly"] is True
    paths = {f"{mounted['mountPath']}/{name}" for name in files["data"]}
    words = pod["containers"][0]["args"]
    assert paths == {words[words.index("--config") + 1], words[words.index("--config") + 2].partition("=")[2]}


ENTRY = "name: tiny\nweights: {repo: a/b}\nengine: {version: 0.32.0, chat_template: chat.jinja}\n"


def test_a_chat_template_is_the_content_of_its_file(tmp_path: Path, release: Release) -> None:
    (tmp_path / "tiny.yaml").write_text(ENTRY)
    (tmp_path / "chat.jinja").write_text("{{ messages }}\n")
    assert load_catalog(tmp_path)["tiny"].engine.chat_template == "{{ messages }}\n"
    told = with_arguments(release, release.engine.args, "{{ messages }}\n")
    assert told.id != release.id
    assert diff(release, told) == ["engine chat template of the repository -> of 1 lines (7f3de14b4a35)"]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (ENTRY, "engine.chat_template: cannot be read"),
        (ENTRY.replace("chat.jinja", "../chat.jinja"), "engine.chat_template: must be the name of a file"),
        (ENTRY.replace("chat.jinja", "empty.jinja"), "engine.chat_template: has 0 bytes"),
        (ENTRY.replace("chat.jinja", "ok.jinja, args: [--chat_template=/x]"), "engine.args[0]: "),
    ],
)
def test_a_wrong_chat_template_is_told_by_file_line_and_field(tmp_path: Path, entry: str, words: str) -> None:
    (tmp_path / "tiny.yaml").write_text(entry)
    (tmp_path / "empty.jinja").write_text("")
    (tmp_path / "ok.jinja").write_text("x")
    with pytest.raises(BadInput) as raised:
        load_catalog(tmp_path)
    assert (raised.value.code, raised.value.about.rpartition(": ")[0]) == ("InvalidFile", f"{tmp_path}/tiny.yaml:3")
    assert words in str(raised.value)
