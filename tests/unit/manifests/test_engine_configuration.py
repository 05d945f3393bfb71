"""vLLM reads the same options from the file as from a command line."""

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

# Switches and their negations, values of every kind, JSON whole and by its keys, and repeated options.
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
    """The command line, with the pod's files in a folder of this machine."""
    for name, text in configuration.config_map(release, Settings.model_validate({}))["data"].items():
        (folder / name).write_text(text)
    pod = f"{configuration.MOUNT}/{configuration.name(release)}"
    return [argument.replace(pod, str(folder)) for argument in arguments(release)]


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
def test_the_file_means_the_same_as_the_command_line(
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


def test_names_paths_and_negative_values_stay_on_the_command_line(release: Release) -> None:
    rendered = arguments(with_arguments(release, ("--max-model-len=1", "--seed=-1"), "{{ x }}"))
    flags = [argument.partition("=")[0] for argument in rendered if argument.startswith("--")]
    assert flags == [
        *("--model", "--served-model-name", "--port", "--middleware", "--config", "--chat-template"),
        # vLLM would read the value from a file as a flag.
        "--seed",
    ]
    # vLLM looks for the word `--config`: it never reads the file of `--config=FILE`.
    assert "--config" in rendered


def test_the_simulated_engine_ignores_a_file_that_vllm_ignores(release: Release, tmp_path: Path) -> None:
    line = written(with_arguments(release, ("--max-model-len=7",)), tmp_path)
    index = line.index("--config")
    joined = [*line[:index], f"--config={line[index + 1]}", *line[index + 2 :]]
    assert parse_arguments(line, {}).max_model_len == 7
    assert parse_arguments(joined, {}).max_model_len is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["m", "--config"], "No config file specified"),
        (["m", "--config", "x.json"], "must be of a yaml/yml type"),
        (["m", "--config", "/nowhere/x.yaml"], "Unable to read the config file"),
        (["--config", "FILE"], "No model specified"),
    ],
)
def test_a_wrong_config_file_ends_the_engine(tmp_path: Path, words: list[str], message: str) -> None:
    (tmp_path / "x.yaml").write_text("seed: 1")
    with pytest.raises(ValueError, match=message):
        parse_arguments([word.replace("FILE", str(tmp_path / "x.yaml")) for word in words], {})


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("max-model-len: 1\nmax-num-seqs: 2\nenable-prefix-caching: true\nempty: []\n")
    parsed = parse_arguments(["m", "--max-model-len=9", "--config", str(file)], {})
    assert (parsed.max_model_len, parsed.max_num_seqs) == (9, 2)
    assert parsed.given["enable_prefix_caching"] is True


def test_the_config_map_is_named_by_its_content(release: Release, settings: Settings) -> None:
    one = configuration.config_map(release, settings)
    assert one["immutable"] is True
    assert yaml.safe_load(one["data"]["engine.yaml"])["max-model-len"] == "8192"
    # Another release with the same options has the same ConfigMap, without the release in its labels.
    retried = release.model_copy(update={"suites": ()})
    assert retried.id != release.id
    assert configuration.config_map(retried, settings) == one
    others = [with_arguments(release, ("--seed=1",)), with_arguments(release, release.engine.args, "{{ x }}")]
    names = {configuration.name(variant) for variant in (release, *others)}
    assert len(names) == 3
    assert all(configuration.name(variant) in " ".join(arguments(variant)) for variant in (release, *others))


def test_the_pod_has_the_files_where_the_command_line_says(release: Release, settings: Settings) -> None:
    templated = with_arguments(release, (), "{{ x }}")
    manifests = objects(templated, settings, "stable", 1, surge=True)
    (files,) = [manifest for manifest in manifests if manifest["metadata"]["name"] == configuration.name(templated)]
    pod = manifests[-1]["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    (mounted,) = [mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == configuration.VOLUME]
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
    templated = with_arguments(release, release.engine.args, "{{ messages }}\n")
    assert templated.id != release.id
    assert diff(release, templated) == ["engine chat template of the repository -> of 1 lines (7f3de14b4a35)"]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (ENTRY, "engine.chat_template: cannot be read"),
        (ENTRY.replace("chat.jinja", "../chat.jinja"), "engine.chat_template: must be the name of a file"),
        (ENTRY.replace("chat.jinja", "empty.jinja"), "engine.chat_template: has 0 bytes"),
        (ENTRY.replace("chat.jinja", "ok.jinja, args: [--chat_template=/x]"), "engine.args[0]: "),
    ],
)
def test_a_wrong_chat_template_is_named_by_file_line_and_field(tmp_path: Path, entry: str, words: str) -> None:
    (tmp_path / "tiny.yaml").write_text(entry)
    (tmp_path / "empty.jinja").write_text("")
    (tmp_path / "ok.jinja").write_text("x")
    with pytest.raises(BadInput) as raised:
        load_catalog(tmp_path)
    assert (raised.value.code, raised.value.about.rpartition(": ")[0]) == ("InvalidFile", f"{tmp_path}/tiny.yaml:3")
    assert words in str(raised.value)
