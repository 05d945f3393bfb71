"""The command line is vLLM 0.32.0's: the same arguments, and the same errors."""

import re
from collections.abc import Callable
from importlib.resources import files

import pytest
from llmops_sandbox.engine.arguments import HELP_TEXT, build_parser, parse_arguments, parse_help
from llmops_sandbox.engine.process import EngineProcess

Start = Callable[..., EngineProcess]
TEXT = files("llmops_sandbox.engine").joinpath(HELP_TEXT).read_text()
FLAGS = {name: flag for flag in parse_help(TEXT) for name in flag.names}


def test_every_option_of_the_help_text_is_known() -> None:
    heads = [line.split("  ")[0] for line in re.findall(r"^  (-.*)", TEXT, re.MULTILINE)]
    listed = {name for head in heads for name in re.findall(r"(?<![\w'-])--[\w-]+", head)}
    assert len(listed) > 400
    assert listed - {"--help"} == {name for name in FLAGS if name.startswith("--")}


def test_flags_are_read_with_their_values() -> None:
    assert FLAGS["--dtype"].choices == ("auto", "bfloat16", "float", "float16", "float32", "half")
    assert FLAGS["--enforce-eager"].nargs == 0
    assert FLAGS["--no-enforce-eager"] is FLAGS["--enforce-eager"]
    assert FLAGS["-tp"] is FLAGS["--tensor-parallel-size"]
    assert FLAGS["--tensor-parallel-size"].nargs is None
    assert FLAGS["--served-model-name"].nargs == "+"
    assert FLAGS["--hf-token"].nargs == "?"
    assert FLAGS["--tokenizer-mode"].choices is None
    assert FLAGS["--collect-detailed-traces"].choices == ("all", "model", "worker", "None")


def test_what_the_pipeline_renders_is_honoured() -> None:
    parsed = parse_arguments(
        ["--model", "/models/x", "--served-model-name", "a", "b", "--host", "127.0.0.1", "--port=9000",
         "--max_model_len", "32K", "--max-num-seqs", "4", "--shutdown-timeout", "120", "--tensor-parallel-size", "2",
         "--quantization", "awq_marlin", "--gpu-memory-utilization", "0.9", "--compilation-config.mode", "3"],
        {"VLLM_API_KEY": "from-the-environment"},
    )  # fmt: skip
    assert (parsed.model, parsed.served_names, parsed.host, parsed.port) == ("/models/x", ("a", "b"), "127.0.0.1", 9000)
    assert (parsed.max_model_len, parsed.max_num_seqs, parsed.shutdown_timeout) == (32768, 4, 120)
    assert (parsed.quantization, parsed.gpu_memory_utilization) == ("awq_marlin", 0.9)
    assert parsed.api_keys == ("from-the-environment",)
    assert parsed.given["compilation_config"] == '{"mode": 3}'


def test_defaults_are_vllms() -> None:
    parsed = parse_arguments(["/models/x"], {})
    assert (parsed.served_names, parsed.host, parsed.port) == (("/models/x",), None, 8000)
    assert (parsed.max_model_len, parsed.max_num_seqs, parsed.shutdown_timeout, parsed.api_keys) == (None, 256, 0, ())


def test_every_flag_takes_what_its_help_says() -> None:
    parser = build_parser()
    for name, flag in FLAGS.items():
        if name == "--config":
            continue  # its file is read before any flag is
        for value in flag.choices or ("1",):
            parser.parse_serve(["model", name, *([] if flag.nargs == 0 else [value])][name == "--model" :])


# The words of the real vLLM 0.32.0, to the letter.
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--disable-log-requests"], "vllm: error: unrecognized arguments: --disable-log-requests"),
        (["--swap-space", "4"], "vllm: error: unrecognized arguments: --swap-space 4"),
        (
            ["--runner", "x"],
            "vllm serve: error: argument --runner: invalid choice: 'x' "
            "(choose from 'auto', 'draft', 'generate', 'pooling')",
        ),
        (["--port"], "vllm serve: error: argument --port: expected one argument"),
        (["--port", "abc"], "vllm serve: error: argument --port: invalid int value: 'abc'"),
    ],
)
def test_a_wrong_command_line_dies_as_argparse_does(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_arguments(["model", *arguments], {})
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == message


def test_the_process_dies_of_a_removed_flag(start: Start) -> None:
    engine = start("--disable-log-requests")
    assert engine.wait(10) == 2
    assert "vllm: error: unrecognized arguments: --disable-log-requests" in engine.output


def test_an_image_may_know_other_flags(start: Start) -> None:
    old = start("--max-num-seqs", "4", SIM_REMOVED_FLAGS='["--max-num-seqs"]')
    assert old.wait(10) == 2
    assert "unrecognized arguments: --max-num-seqs 4" in old.output
    lenient = start("--disable-log-requests", SIM_ADDED_FLAGS='["--disable-log-requests"]')
    lenient.wait_until_healthy()


def test_a_served_name_without_a_model_is_refused(start: Start) -> None:
    engine = start("--served-model-name", "x", model="--enforce-eager")
    assert engine.wait(10) == 1
    assert "`model` should be provided as the first positional argument" in engine.output
