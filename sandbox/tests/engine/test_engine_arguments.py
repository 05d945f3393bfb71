"""The command line is vLLM's: the same arguments, and the same errors."""

from collections.abc import Callable
from typing import Any

import pytest
from llmops_sandbox.engine.arguments import parse_arguments, parser_of
from llmops_sandbox.engine.process import EngineProcess

from llmops.config.vllm.flags import known

Start = Callable[..., EngineProcess]


def given(*arguments: str, **how: Any) -> dict[str, object]:
    return parse_arguments(["/models/x", *arguments], {}, **how).given


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
    assert parsed.given["compilation_config"] == {"mode": 3}


def test_defaults_are_vllms() -> None:
    parsed = parse_arguments(["/models/x"], {})
    assert (parsed.served_names, parsed.host, parsed.port) == (("/models/x",), None, 8000)
    assert (parsed.max_model_len, parsed.max_num_seqs, parsed.shutdown_timeout, parsed.api_keys) == (None, 256, 0, ())


@pytest.mark.parametrize("version", known())
def test_every_flag_of_a_version_is_taken(version: str) -> None:
    parser = parser_of(version)
    for name, flag in known()[version].by_name.items():
        if name in ("--config", "--help", "-h"):
            continue
        values = {"json": "{}", "json or text": "{}", "int": "1", "float": "1", "size": "1k", "size or auto": "auto"}
        value = next((str(choice) for choice in flag.choices or ()), values.get(flag.type, "a=b"))
        words = [name] if flag.switch else [name, value]
        parser.read([*["model"][name == "--model" :], *words])


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
        (["--spec=1"], "vllm serve: error: ambiguous option: --spec=1 could match --specialize-active-lora, "
         "--speculative-config, --spec-method, --spec-model, --spec-tokens"),
        (["--enforce-eager=1"], "vllm serve: error: argument --enforce-eager/--no-enforce-eager: ignored explicit "
         "argument '1'"),
        (["--max-num-batched-tokens=1.5K"], "vllm serve: error: argument --max-num-batched-tokens: Decimals are not "
         "allowed with binary suffixes like K. Did you mean to use 1.5k instead?"),
    ],
)  # fmt: skip
def test_a_wrong_command_line_dies_as_argparse_does(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_arguments(["model", *arguments], {})
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == message


def test_flags_are_those_of_the_version() -> None:
    assert given("--grpc-port=1") == {"model_tag": "/models/x", "grpc_port": 1}
    with pytest.raises(SystemExit):
        given("--grpc-port=1", version="0.31.0")
    # A version without a table has the flags of the last known one before it.
    assert given("--grpc-port=1", version="0.40.1")["grpc_port"] == 1


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


def test_a_key_without_a_value_ends_the_engine_as_it_ends_vllm(start: Start) -> None:
    engine = start("--compilation-config.mode")
    assert engine.wait(10) == 1
    assert "IndexError" in engine.output
