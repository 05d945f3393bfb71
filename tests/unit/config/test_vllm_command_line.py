"""vLLM's command line is read as vLLM reads it. The right values are those of vLLM 0.32.0's own parser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.config.vllm.arguments import take_apart, texts
from llmops.config.vllm.command_line import Refused, ServeParser, dashed, parser_of, size, size_or_auto
from llmops.config.vllm.flags import known, nearest, newest


def read(*words: str, version: str = "0.32.0") -> dict[str, Any]:
    """What is given, by the option's name."""
    values = parser_of(known()[version]).read(("/m", *words)).values
    return {name: value for name, value in values.items() if value is not None and name != "model_tag"}


def test_there_is_a_table_of_two_versions_at_least() -> None:
    assert {"0.31.0", "0.32.0"} <= set(known())
    for version, table in known().items():
        assert table.version == version
        assert len(table.by_name) > 400
        # Each name belongs to one flag, and argparse makes the same negations as in vLLM.
        assert len(table.by_name) == sum(len(flag.names) for flag in table.flags)
        made = ServeParser(table.flags)._option_string_actions  # pyright: ignore[reportPrivateUsage] -- argparse's list
        assert set(made) == set(table.by_name)


def test_the_table_says_how_each_flag_is_read() -> None:
    flags = known()["0.32.0"].by_name
    assert flags["-tp"] is flags["--tensor-parallel-size"]
    assert flags["--device-memory-utilization"].name == "--gpu-memory-utilization"
    assert flags["--no-enforce-eager"].negations == ("--no-enforce-eager",)
    assert (flags["--enforce-eager"].switch, flags["--grpc"].negations) == (True, ())
    assert flags["--dtype"].choices == ("auto", "bfloat16", "float", "float16", "float32", "half")
    assert (flags["--served-model-name"].nargs, flags["--hf-token"].nargs, flags["--seed"].nargs) == ("+", "?", None)
    assert (flags["--middleware"].append, flags["--lora-modules"].append) == (True, False)
    config = flags["--compilation-config"].config
    assert config is not None
    assert "fuse_norm_quant" in config["pass_config"]
    assert flags["--hf-overrides"].json
    assert flags["--hf-overrides"].config is None


@pytest.mark.parametrize(
    ("version", "right"),
    [("0.31.0", "0.31.0"), ("0.31.4", "0.31.0"), ("0.9", "0.31.0"), ("7.1", "0.32.0"), ("nightly", "0.32.0")],
)
def test_a_version_without_a_table_has_the_one_before(version: str, right: str) -> None:
    assert nearest(version).version == right


@pytest.mark.parametrize(
    ("words", "right"),
    [
        (["--override-generation-config.top_p=0.9"], {"override_generation_config": {"top_p": 0.9}}),
        (
            ["--override_generation_config.min_p", "0.05", "--override-generation-config.Top_k=5"],
            {"override_generation_config": {"min_p": 0.05, "Top_k": 5}},
        ),
        (["--speculative_config.method=ngram"], {"speculative_config": {"method": "ngram"}}),
        (["-sc.num_speculative_tokens=2"], {"speculative_config": {"num_speculative_tokens": 2}}),
        (["--additional-config.a.b=1g", "--additional-config.c=2"], {"additional_config": {"a": {"b": 10**9}, "c": 2}}),
        (["--additional-config.a=[1]", "--additional-config.a+=x,y"], {"additional_config": {"a": [1, "x", "y"]}}),
        (["--additional-config.a=1", "--additional-config.a.b=2"], {"additional_config": {"a": {"b": 2}}}),
        (['--compilation-config={"mode": 3}', "-cc.backend=x"], {"compilation_config": {"backend": "x"}}),
        (["--compilation-config.custom_ops+=+rms_norm"], {"compilation_config": {"custom_ops": ["+rms_norm"]}}),
        (["--hf-ov.a_b=1"], {"hf_overrides": {"a_b": 1}}),
        (["--no_enforce_eager"], {"enforce_eager": False}),
        (["--no-enf"], {"enforce_eager": False}),
        (["--max-m=auto", "--kv-cache-memory-bytes=25.6k"], {"max_model_len": -1, "kv_cache_memory_bytes": 25600}),
        (["--device-memory-utilization=0.5"], {"gpu_memory_utilization": 0.5}),
        (["--seed=1", "--seed=2"], {"seed": 2}),
        (["--middleware=a.B", "--middleware", "c.D"], {"middleware": ["a.B", "c.D"]}),
        (["--moe-backend=Deep-GEMM"], {"moe_backend": "deep_gemm"}),
        (["--kv-cache-memory-bytes=None"], {}),
        (["-O3"], {"optimization_level": "3"}),
        (["--chat-template=/a_b/x.jinja"], {"chat_template": "/a_b/x.jinja"}),
    ],
)  # fmt: skip
def test_arguments_mean_what_they_mean_to_vllm(words: list[str], right: dict[str, Any]) -> None:
    assert read(*words) == right


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seed.a=1"], "argument --seed: invalid int value: '{\"a\": 1}'"),
        (["--seed"], "argument --seed: expected one argument"),
        (["--compilation-config.nope=1"], "nope: Unexpected keyword argument"),
        (["--compilation-config.pass_config.nope=1"], "pass_config.nope: Unexpected keyword argument"),
        (["--compilation-config=3"], "Input should be an object"),
        (["--lora-modules=x"], "Invalid JSON format for --lora-modules: x"),
        (["--lora-modules={\"name\": \"a\"}"], "Invalid fields for --lora-modules"),
        (["--prefix-match-unit=1.5"], "Value 1.5 cannot be converted to <class 'int'>."),
        (["extra"], "unrecognized arguments: extra"),
        (["--help"], "prints its help"),
    ],
)  # fmt: skip
def test_what_vllm_refuses_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(Refused) as refused:
        read(*words)
    assert message in refused.value.message
    assert refused.value.output.endswith(f"error: {refused.value.message}\n")


def test_flags_of_another_version_are_unknown() -> None:
    assert read("--grpc-port=1") == {"grpc_port": 1}
    with pytest.raises(Refused, match="unrecognized arguments: --grpc-port=1"):
        read("--grpc-port=1", version="0.31.0")


def test_a_file_of_options_is_read_as_vllm_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "engine.yaml"
    file.write_text(
        "max-num-seqs: 2\nenable-prefix-caching: false\nlora-modules: [a=/x, b=/y]\nmax_log_len: 5\n"
        "override-generation-config.top_p: '0.9'\nkv-transfer-config: {kv_role: kv_both}\n"
    )
    assert read("--config", str(file), "--max-num-seqs=7") == {
        "max_num_seqs": 7,
        "lora_modules": ["a=/x", "b=/y"],
        "max_log_len": 5,
        "override_generation_config": {"top_p": 0.9},
        "kv_transfer_config": {"kv_role": "kv_both"},
    }
    # vLLM passes over the file that stands in one word with the flag.
    assert read(f"--config={file}") == {"config": str(file)}


def test_what_is_given_more_than_once_is_told() -> None:
    words = ("--seed=1", "--seed=2", "--additional-config.a=1", "--additional-config.a=2", "--additional-config.b+=1")
    assert parser_of(newest()).read(("/m", *words)).repeated == ("--seed", "--additional-config.a")


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("--a_b.c_d=e_f", "--a-b.c_d=e_f"),
        ("--a_b=c_d.e_f", "--a-b=c_d.e_f"),
        ("--a_b", "--a-b"),
        ("--a.b_c+=d_e", "--a.b_c+=d_e"),
        ("-a_b", "-a_b"),
    ],
)
def test_dashes_stand_for_underscores_before_the_first_dot_alone(text: str, right: str) -> None:
    assert dashed(text) == right
    assert dashed(right) == right


@pytest.mark.parametrize(
    ("text", "right"), [("32k", 32000), ("32K", 32768), ("25.6k", 25600), (" 7 ", 7), ("1T", 2**40), ("2t", 2 * 10**12)]
)
def test_sizes(text: str, right: int) -> None:
    assert size(text) == size_or_auto(text) == right


@pytest.mark.parametrize("text", ["9" * 400 + "k", "", "k", "1.5"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"too large|invalid literal"):
        size(text)


def test_texts_are_by_the_name_of_the_flag_and_refuse_nothing() -> None:
    words = (
        *("--device-memory-utilization=0.5", "--max-num-batched-tokens=1", "--max-num-batched=2k", "--enforce_eager"),
        *("--no-enforce-eager", "--enable-expert-parallel", "--hf-overrides.a.b_c=1", "--hf_overrides.d=x"),
        *("--future=1", "--seed", "--seed.a", "--block-size=x", "stray", "-tp=2"),
    )
    assert texts(words) == {
        "--gpu-memory-utilization": "0.5",
        "--max-num-batched-tokens": "2k",
        "--enable-expert-parallel": "",
        "--hf-overrides": '{"a": {"b_c": 1}, "d": "x"}',
        "--future": "1",
        "--seed": "",
        "--block-size": "x",
        "stray": "",
        "--tensor-parallel-size": "2",
    }


words = st.text(st.sampled_from("-._=+{}[]\"',:0123kKaOtrue \n"), max_size=24)
flags = st.sampled_from(sorted(newest().by_name))


@given(
    given_words=st.lists(st.one_of(words, words.map("--{}".format), st.tuples(flags, words).map("".join)), max_size=5)
)
def test_any_words_are_read_or_refused(given_words: list[str]) -> None:
    for text in given_words:
        take_apart(text)
    texts(given_words)
    try:
        parser_of(newest()).read(("/m", *(word for word in given_words if word != "--config")))
    except (Refused, ValueError, IndexError):
        return


@given(
    value=st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3))
)
def test_a_key_has_the_value_that_json_has(value: object) -> None:
    text = json.dumps(value)
    assert read(f"--additional-config.a_B.c={text}") == read(f'--additional-config={{"a_B": {{"c": {text}}}}}')
