"""An entry's arguments are flags that its engine has, that no field sets, and that it allows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from llmops.config.catalog.arguments import RESERVED_FLAGS, Versions
from llmops.config.catalog.load import load_catalog
from llmops.config.catalog.spec import Engine
from llmops.config.vllm.arguments import MOST_ARGUMENTS
from llmops.config.vllm.flags import known, newest
from llmops.config.vllm.hazards import IMPORTS, PLACES, PLACES_IF_PATH
from llmops.errors import BadInput
from llmops.releases.resolve import render_arguments

FUTURE = ">=0.32"


def problem(*args: str, version: str = "==0.32.0", **fields: object) -> str:
    """Why an entry is refused; empty if it is not."""
    try:
        Engine.model_validate({"version": version, "args": args, **fields})
    except ValidationError as error:
        return "; ".join(str(each["msg"]).removeprefix("Value error, ") for each in error.errors())
    return ""


# --- Spelling


def test_only_what_stands_before_the_first_dot_takes_dashes() -> None:
    args = (
        *("--override_generation_config.min_p=0.05", "--speculative_config.num_speculative_tokens=3"),
        *("--compilation-config.pass_config.fuse_norm_quant=true", "--compilation_config.custom_ops+=+rms_norm"),
        *("--max_log_len=5", "--tool_call_parser=my_parser"),
    )
    engine = Engine.model_validate({"version": "==0.32.0", "args": args})
    assert render_arguments(engine.options, engine.args) == (
        "--compilation-config.custom_ops+=+rms_norm",
        "--compilation-config.pass_config.fuse_norm_quant=true",
        "--max-log-len=5",
        "--override-generation-config.min_p=0.05",
        "--speculative-config.num_speculative_tokens=3",
        "--tensor-parallel-size=1",
        "--tool-call-parser=my_parser",
    )


# --- Reserved flags


@pytest.mark.parametrize("version", ["==0.32.0", "==0.31.0", FUTURE, "==0.99.1", "<0.31"])
@pytest.mark.parametrize("flag", RESERVED_FLAGS)
def test_a_reserved_flag_is_refused_however_it_is_written(flag: str, version: str) -> None:
    spellings = [f"{flag}=1", flag.replace("-", "_").replace("__", "--", 1), f"{flag}.key=1", f"--no-{flag[2:]}"]
    # The beginnings that are beginnings of no other flag.
    others = [name for name in newest().by_name if name not in newest().by_name[flag].names]
    spellings += [flag[:end] for end in range(4, len(flag)) if not any(name.startswith(flag[:end]) for name in others)]
    for spelling in spellings:
        said = problem(spelling, version=version)
        assert f"{flag} is reserved: {RESERVED_FLAGS[flag]}" in said, spelling


@pytest.mark.parametrize(
    ("given", "flag"),
    [
        ("--hf-tok=hf_x", "--hf-token"),
        ("--ser=other", "--served-model-name"),
        ("--max-m=999", "--max-model-len"),
        ("--trust-rem", "--trust-remote-code"),
        ("--shut=5", "--shutdown-timeout"),
        ("--gpu=0.5", "--gpu-memory-utilization"),
        ("--api-k=x", "--api-key"),
        ("--quantiz=awq", "--quantization"),
        ("--no-enforce", "--enforce-eager"),
        ("--device-memory-utilization=0.5", "--gpu-memory-utilization"),
        ("--device-mem=0.5", "--gpu-memory-utilization"),
        ("--hel", "--help"),
    ],
)
def test_a_beginning_or_another_name_is_refused_by_the_same_sentence(given: str, flag: str) -> None:
    for version in ("==0.32.0", ">=0.31,<0.33", FUTURE, "==0.40.0"):
        assert f"{flag} is reserved: {RESERVED_FLAGS[flag]}" in problem(given, version=version)


def test_a_flag_that_begins_like_a_reserved_one_is_none() -> None:
    assert problem("--model-impl=auto", "--quantization-config.ignore=[]", "--served-x=1", version="==0.99.0") == ""


# --- Flags of the version


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--enable-prefix-cachin"], "--enable-prefix-cachin is short for --enable-prefix-caching: write that"),
        (["--disable-log-requests"], "vLLM 0.32.0 has no flag --disable-log-requests; did you mean --enable-log-r"),
        (["--scheduling-polcy=fcfs"], "did you mean --scheduling-policy?"),
        (["--enable-l"], "vLLM 0.32.0 has no flag --enable-l; it could be --enable-log-outputs"),
        (["--scheduling-policy=first"], "vLLM 0.32.0 refuses it: argument --scheduling-policy: invalid"),
        (["--seed=x"], "invalid int value: 'x'"),
        (["--seed"], "expected one argument"),
        (["--block-size=1k"], "invalid int value: '1k'"),
        (["--additional-config.a"], "needs a value"),
        (["--enable-prefix-caching=true"], "is a switch and takes no value: write --enable-prefix-caching or --no-"),
        (["--tokenizer-mode.a=1"], "--tokenizer-mode takes no keys"),
        (["--compilation-config.custom_opps=[]"], "custom_opps: Unexpected keyword argument"),
        (['--compilation-config={"pass_config": {"fuse": true}}'], "pass_config.fuse: Unexpected keyword argument"),
        (["--limit-mm-per-prompt={"], "--limit-mm-per-prompt"),
        (["-pp=2"], "must be a flag: '--flag' or '--flag=value' (-pp is short for --pipeline-parallel-size)"),
        (["--additional-config..a=1"], "must be a flag"),
        (["--limit-mm-per-prompt=" + "[" * 100_000], "--limit-mm-per-prompt"),
        (["--additional-config." + "a." * 40 + "b=1"], "has more than 32 keys"),
        (["--enable-dbo", "--no-enable-dbo"], "switches --enable-dbo the other way"),
        (['--additional-config={"a": 1}', "--additional-config.b=1"], "--additional-config is given whole and by keys"),
    ],
)  # fmt: skip
def test_what_no_allowed_version_takes_is_a_mistake(args: list[str], words: str) -> None:
    assert words in problem(*args)


@pytest.mark.parametrize("version", ["==0.33.0", "==0.32.1", ">=0.32", ">=0.1", "<0.40", "==0.*", "<0.31", "!=0.32.0"])
def test_what_an_unknown_version_may_take_is_none(version: str) -> None:
    assert problem("--disable-log-requests", "--new-flag=3", "--seed=x", version=version) == ""


@pytest.mark.parametrize("version", ["==0.32.0", "==0.31.0", ">=0.32,<0.33", "~=0.31.0", "==0.32.*", ">=0.31,<0.33"])
def test_known_versions_are_held_to_their_flags(version: str) -> None:
    assert "has no flag --new-flag" in problem("--new-flag=3", version=version)


def test_one_of_several_versions_is_enough() -> None:
    assert "0.31.0 has no flag --grpc-port" in problem("--grpc-port=3", version="==0.31.0")
    assert problem("--grpc-port=3", version=">=0.31,<0.33") == ""


def test_an_image_with_more_flags_may_say_so() -> None:
    assert problem("--new-flag=3", allow=["flags"]) == ""
    assert "is reserved" in problem("--hf-tok=3", allow=["flags", "code", "files"])


def test_versions_know_their_tables() -> None:
    assert [table.version for table in Versions.allowed(">=0.31,<0.33").tables] == ["0.31.0", "0.32.0"]
    assert Versions.allowed(">=0.31,<0.33").known
    assert not Versions.allowed(">=0.31,<=0.33.0").known
    assert Versions.allowed("==0.33.0") == ((), False)


# --- Code and files

CODE = [
    *("--middleware=a.B", "--tool-parser-plugin=/x.py", "--reasoning_parser_plugin=/x.py", "--worker-cls=a.B"),
    *("--worker-extension-cls=a.B", "--scheduler-cls=a.B", "--logits-processors=a.B", "--io-processor-plugin=x"),
    *("--distributed-executor-backend=a.B", "--log-config-file=/x.json", "--tool-server=demo"),
    *('--model-class-overrides={"A": "m:B"}', "--model-class-overrides.A=m:B"),
    *("--spec-model=a.Proposer", "--spec-method=custom_class", "--speculative-config.model=a.Proposer"),
    *('--speculative-config={"method": "custom_class", "model": "a.B"}', "--compilation-config.backend=a.B"),
    *('--compilation-config={"inductor_passes": {"x": "a.b"}}', "--compilation-config.inductor_passes.x=a.b"),
    "--structured-outputs-config.reasoning_parser_plugin=/x",
    *("--kv-transfer-config.kv_connector_module_path=a.b", '--ec-transfer-config={"ec_connector_module_path": "a"}'),
    *('--kv-transfer-config={"kv_connector_extra_config": {"spec_module_path": "a.b"}}',),
    *('--kv-transfer-config.kv_connector_extra_config={"tiers": [{"backpressure_cls": "a.B"}]}',),
    *("--logging-config.pylogging_config_file=/x.json", "--ec-manager-config.encoder_cache_manager_cls=a.B"),
]  # fmt: skip
REMOTE = [
    *('--speculative-config={"model": "o/r", "trust_remote_code": true}', "--speculative_config.trust_remote_code=1"),
    *('--hf-overrides={"text_config": {"trust_remote_code": 1}}', "--mm-processor-kwargs.trust_remote_code=True"),
    *('--hf_overrides={"auto_map": {"AutoConfig": "a.B"}}', '--additional-config={"a": [{"trust_remote_code": true}]}'),
]  # fmt: skip
FILES = [
    *("--allowed-local-media-path=/", "--chat-template=/opt/x.jinja", "--chat-template=tool_chat.jinja"),
    *("--tokenizer=/opt/tokenizer", "--lora-modules=a=/opt/a", '--lora-modules={"name": "a", "path": "/a"}'),
    *("--generation-config=./x", "--hf-config-path=/x", "--download-dir=/x", "--ssl-keyfile=/x", "--spec-model=/x"),
    *('--default-mm-loras={"image": "/x"}', "--speculative-config.model=/x", '--speculative-config={"model": "../x"}'),
    *("--compilation-config.cache_dir=/x", '--profiler-config={"torch_profiler_dir": "/x"}'),
    *("--compilation-config.debug_dump_path=/x",),
]  # fmt: skip
HARMLESS = [
    *("--worker-cls=auto", "--distributed-executor-backend=mp", "--tool-server=10.0.0.7:80", "--tool-parser-plugin="),
    *("--allowed-local-media-path=", "--chat-template={{ messages }}", "--tokenizer=acme/tokenizer"),
    *("--generation-config=vllm", "--speculative-config.model=acme/draft", "--spec-model=acme/v1.5-draft"),
    *('--speculative-config={"method": "ngram", "num_speculative_tokens": 2}', "--compilation-config.backend=inductor"),
    *('--hf-overrides={"trust_remote_code": false}', "--speculative-config.trust_remote_code=false"),
    *("--kv-transfer-config.kv_connector=NixlConnector", "--logging-config.log_level=INFO"),
]  # fmt: skip


@pytest.mark.parametrize("version", ["==0.32.0", "==0.31.0", FUTURE, "==0.77.0"])
@pytest.mark.parametrize("argument", CODE + REMOTE)
def test_code_needs_an_allowance(argument: str, version: str) -> None:
    words = (
        "runs code of a repository: set engine.options.trust_remote_code" if argument in REMOTE else "loads code: write"
    )
    assert words in problem(argument, version=version)
    assert problem(argument, version=version, allow=["code"]) == ""
    trusted = problem(argument, version=version, options={"trust_remote_code": True})
    assert (trusted == "") == (argument in REMOTE)


@pytest.mark.parametrize("version", ["==0.32.0", FUTURE])
@pytest.mark.parametrize("argument", FILES)
def test_files_of_the_pod_need_an_allowance(argument: str, version: str) -> None:
    said = problem(argument, version=version)
    assert "names files of the pod, which are not part of the release: write engine.allow: [files]" in said
    assert said == problem(argument, version=version, allow=["code"])
    assert problem(argument, version=version, allow=["files"]) == ""


@pytest.mark.parametrize("version", ["==0.32.0", FUTURE])
@pytest.mark.parametrize("argument", HARMLESS)
def test_what_neither_loads_nor_reads_needs_none(argument: str, version: str) -> None:
    assert problem(argument, version=version) == ""


@pytest.mark.parametrize("version", ["==0.32.0", FUTURE, "==0.77.0"])
@pytest.mark.parametrize(
    "argument",
    ["--middle=a.B", "--tool-parser-plug=/x.py", "--worker-ext=a.B", "--compilation-conf.backend=a.B", "--m=a.B",
     "--speculative-conf.trust_remote_code=true"],
)  # fmt: skip
def test_the_beginning_of_a_flag_that_loads_code_is_judged_as_the_flag(argument: str, version: str) -> None:
    said = problem(argument, version=version)
    assert "loads code" in said or "runs code of a repository" in said or "reserved" in said


def test_an_unknown_flag_is_judged_by_its_name() -> None:
    assert "loads code" in problem("--new-thing-plugin=x", version=FUTURE)
    assert "names files" in problem("--new-thing-path=/x", version=FUTURE)


SUSPICIOUS = re.compile(
    r"(^|[-_])(path|file|dir|folder|plugin|module|modules|cls|class|template|processors|keyfile|certfile)($|[-_])"
)
LOOKED_AT = {
    "--chat-template": "a rule of its own",
    "--chat-template-content-format": "a choice",
    "--default-chat-template-kwargs": "values for the template",
    "--lora-target-modules": "names of layers",
    "--max-lora-cls-labels": "a number",
    "--root-path": "a part of URLs",
    "--trust-request-chat-template": "a template of the request, in a sandbox of Jinja",
}  # fmt: skip


@pytest.mark.parametrize("version", known())
def test_every_flag_that_sounds_like_code_or_files_is_judged(version: str) -> None:
    """Breaks when a table with new flags comes: judge them."""
    judged = {*IMPORTS, *PLACES, *LOOKED_AT, *RESERVED_FLAGS}
    sounding = {flag.name for flag in known()[version].flags if SUSPICIOUS.search(flag.name)}
    assert {name for name in sounding - judged if not PLACES_IF_PATH.fullmatch(name)} == set()
    assert set(PLACES) <= known()[version].by_name.keys()
    assert {name.partition(".")[0] for name in IMPORTS} <= known()[version].by_name.keys()


# --- Files of the catalog


def test_arguments_have_a_bound() -> None:
    with pytest.raises(ValidationError, match="at most 400 items"):
        Engine.model_validate({"version": "0.32.0", "args": ["--seed=1"] * (MOST_ARGUMENTS + 1)})


def test_a_mistake_has_file_line_and_field(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(
        "name: tiny\nweights: {repo: a/b}\nengine:\n  version: 0.32.0\n  args:\n    - --max-log-len=5\n"
        "    - --scheduling_polcy=fcfs\n    - --middleware=a.B\n"
    )
    with pytest.raises(BadInput) as raised:
        load_catalog(tmp_path)
    first, second = str(raised.value).splitlines()[:2]
    assert first.startswith(f"{tmp_path}/tiny.yaml:7: engine.args[1]: vLLM 0.32.0 has no flag --scheduling-polcy")
    assert second.startswith(f"{tmp_path}/tiny.yaml:8: engine.args[2]: --middleware loads code")
