"""The parsers of bytes from outside, each with how it refuses, and whole inputs to begin with."""

from __future__ import annotations

import json
import struct
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

from llmops.clients.hub import HubFile, Loading, documents_needed, require_config, select
from llmops.clients.hub.loading import CONFIG, INDEX
from llmops.clients.prometheus.client import UnusableResult, read_samples, read_series
from llmops.clients.registry import parse_docker_config
from llmops.clients.registry.answers import following_page, read_architecture, read_error, read_manifest, read_tags
from llmops.clients.registry.auth import challenges
from llmops.clients.registry.versions import Tag
from llmops.config.catalog.spec import DEFAULT_INCLUDE, Access, Evaluation, Gpu, ModelSpec, Resources, Rollout
from llmops.config.loading import read_entry
from llmops.config.vllm.arguments import MOST_ARGUMENTS, refusal, take_apart, texts
from llmops.config.vllm.flags import newest
from llmops.config.vllm.hazards import hazards
from llmops.errors import LlmopsError
from llmops.evaluation.formats import TOOLS
from llmops.evaluation.suites import load_suites
from llmops.preflight.fit.findings import fit_findings
from llmops.preflight.fit.shape import Shape
from llmops.releases.release import EnginePin, Release, WeightsPin
from llmops.releases.stored import read_release
from llmops.worker.foreign import BadBytes, header_length, parse_json, parse_retry_after, parse_tensors


@dataclass(frozen=True)
class Parser:
    """One parser.

    Args:
        parse: Takes an input.
        refusals: What it raises for inputs that it refuses; all else is a fault.
        seeds: Inputs that it takes.
    """

    parse: Callable[[bytes], object]
    refusals: tuple[type[Exception], ...]
    seeds: tuple[bytes, ...]


_RESULTS = Path(__file__).parents[2] / "tests" / "unit" / "formats" / "data"
_FOLDER = Path(tempfile.gettempdir()) / "llmops-fuzzing"


_RELEASE = Release(
    model="m",
    weights=WeightsPin(repo="a/m", commit="0" * 40, files=()),
    engine=EnginePin(image="vllm/vllm-openai", tag="v0.32.0", digest="sha256:" + "7" * 64),
    gpu=Gpu(),
    resources=Resources(),
    evaluation=Evaluation(),
    suites=(),
    rollout=Rollout(),
    access=Access(),
)


def _text(content: bytes) -> str:
    return content.decode(errors="replace")


def _registry(content: bytes) -> None:
    for read in (read_tags, read_manifest, read_architecture, read_error):
        try:
            read(content)
        except BadBytes:
            continue


def _registry_headers(content: bytes) -> None:
    text = _text(content)
    following_page("https://registry.example", "/v2/a/tags/list", text)
    for challenge in challenges([text]):
        _ = challenge.host
    Tag.parse(text)
    parse_retry_after(text)


def _hub(content: bytes) -> None:
    listing = parse_json(content)
    if not isinstance(listing, dict):
        return
    paths = [path for path in listing.get("files", ()) if isinstance(path, str)]
    files = [HubFile(path, 1, git_sha1="0" * 40) for path in paths]
    loading = Loading(remote_code=True)
    documents_needed(files, DEFAULT_INCLUDE, (), loading)
    documents = {INDEX: listing.get("index"), CONFIG: listing.get("config"), "modules.json": listing.get("modules")}
    for known in (documents, {}, None):
        try:
            require_config(select(files, DEFAULT_INCLUDE, loading=loading, documents=known), loading)
        except LlmopsError:
            continue


def _safetensors(content: bytes) -> None:
    length = header_length(content)
    for tensor in parse_tensors(content[8 : 8 + length]).values():
        prod(tensor.shape)


def _fit(content: bytes) -> None:
    config = parse_json(content)
    if not isinstance(config, dict):
        return
    list(fit_findings(_RELEASE, Shape(config, {"BF16": 10**9}, 2 * 10**9), 48 * 2**30))


def _catalog(content: bytes) -> None:
    _FOLDER.mkdir(exist_ok=True)
    path = _FOLDER / "m.yaml"
    path.write_bytes(content)
    read_entry(path, ModelSpec)


def _suite(content: bytes) -> None:
    definition, _, cases = content.partition(b"\0")
    _FOLDER.mkdir(exist_ok=True)
    (_FOLDER / "quality.yaml").write_bytes(definition)
    (_FOLDER / "quality.jsonl").write_bytes(cases)
    load_suites(_FOLDER, ["quality"])


def _results(tool: str, name: str, content: bytes) -> None:
    TOOLS[tool].parse({name: content})


def _results_of(tool: str) -> Parser:
    """The parser of a tool's results, with real files that the tests keep."""
    paths = sorted(path for path in _RESULTS.glob(f"{tool}-*/*/*") if path.suffix in (".json", ".eval"))
    return Parser(partial(_results, tool, paths[0].name), (LlmopsError,), tuple(path.read_bytes() for path in paths))


def _prometheus(content: bytes) -> None:
    data = parse_json(content)
    for read in (read_samples, read_series):
        try:
            read(data)
        except (UnusableResult, ValueError, LookupError, TypeError, AttributeError, OverflowError):
            continue


def _arguments(content: bytes) -> None:
    words = _text(content).split("\n")[:MOST_ARGUMENTS]
    taken = [argument for argument in map(take_apart, words) if argument is not None]
    texts([argument.text for argument in taken])
    for argument in taken:
        refusal(argument.text, newest())
        list(hazards(argument, newest().by_name.get(argument.flag)))


def _json(content: Any) -> bytes:
    return json.dumps(content).encode()


_LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}
_HEADER = _json({"a": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}, "__metadata__": {"format": "pt"}})
_ENTRY = (
    b"name: m\nreplicas: 2\nweights: {repo: a/m, token: {name: hub, key: token}}\nengine:\n  version: '>=0.31,<0.40'\n"
)
_CASE = b'{"id": "a", "messages": [{"role": "user", "content": "2+2?"}], "scorer": "exact", "expected": "4"}\n'

PARSERS: Mapping[str, Parser] = {
    "registry": Parser(
        _registry,
        (),
        (
            _json({"name": "a", "tags": ["v0.32.0", "latest"]}),
            _json({"manifests": [{"digest": "sha256:" + "1" * 64, "platform": {"architecture": "amd64"}}]}),
            _json({"config": {"digest": "sha256:" + "1" * 64}, "layers": []}),
            _json({"errors": [{"code": "DENIED", "message": "no"}], "architecture": "arm64"}),
        ),
    ),
    "registry-headers": Parser(
        _registry_headers,
        (BadBytes,),
        (
            b'</v2/a/tags/list?last=v1&n=100>; rel="next"',
            b'Basic realm="a", Bearer realm="https://auth.example/token?x=1",service="r",scope="repository:a:pull"',
            b"v0.32.0-rc.2+cu130",
            b"Wed, 21 Oct 2026 07:28:00 GMT",
        ),
    ),
    "docker-config": Parser(
        lambda content: parse_docker_config(_text(content), "secret"),
        (LlmopsError,),
        (_json({"auths": {"https://r.example/v1/": {"auth": "dXNlcjpwYXNz"}, "ghcr.io": {"username": "u"}}}),),
    ),
    "hub": Parser(
        _hub,
        (BadBytes, LlmopsError),
        (
            _json(
                {
                    "files": [
                        CONFIG,
                        INDEX,
                        "model-00001-of-00002.safetensors",
                        "model-00002-of-00002.safetensors",
                        "a.py",
                    ],
                    "index": {"weight_map": {"a": "model-00001-of-00002.safetensors"}},
                    "config": {"architectures": ["MoonshotKimiaForCausalLM"], "auto_map": {"AutoModel": "a.M"}},
                    "modules": [{"path": "2_Dense", "type": "sentence_transformers.models.Dense"}],
                }
            ),
        ),
    ),
    "safetensors": Parser(_safetensors, (BadBytes,), (struct.pack("<Q", len(_HEADER)) + _HEADER,)),
    "gpu-fit": Parser(
        _fit,
        (BadBytes,),
        (
            _json(_LLAMA),
            _json({**_LLAMA, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}, "sliding_window": 4096}),
            _json({"model_type": "gemma3", "text_config": {**_LLAMA, "layer_types": ["full_attention"] * 4}}),
            _json({**_LLAMA, "quantization_config": {"quant_method": "awq", "bits": 4}}),
        ),
    ),
    "catalog": Parser(_catalog, (LlmopsError,), (_ENTRY, _ENTRY + b"gpu: &g {count: 1}\nresources: {memory: 32Gi}\n")),
    "suite": Parser(
        _suite,
        (LlmopsError,),
        (b"name: quality\nkind: quality\n\0" + _CASE, b"name: quality\nkind: load\nrequests: 5\n\0"),
    ),
    "prometheus": Parser(
        _prometheus,
        (BadBytes,),
        (
            _json({"resultType": "vector", "result": [{"metric": {"a": "b"}, "value": [1, "2.5"]}]}),
            _json({"resultType": "matrix", "result": [{"metric": {}, "values": [[1, "NaN"], [2, "+Inf"]]}]}),
        ),
    ),
    "arguments": Parser(
        _arguments,
        (),
        (
            b"--seed=1\n--override-generation-config.top_p=0.9\n--no-enable-prefix-caching\n-O3\n--lora-modules=a=b",
            b'--hf-overrides={"rope_scaling": {"factor": 4}}\n--compilation-config.pass_config.x+=a,b\n--max-num-b=80k',
        ),
    ),
    "release": Parser(read_release, (ValueError,), (_RELEASE.canonical().encode(),)),
    **{f"results-{tool}": _results_of(tool) for tool in TOOLS},
}
