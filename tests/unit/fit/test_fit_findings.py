"""Findings on a model's GPU memory: the article's gotchas, and the catalog's own entries."""

from __future__ import annotations

from typing import Any

import pytest

from llmops.config.catalog.spec import Access, Evaluation, Gpu, Resources, Rollout
from llmops.preflight.finding import Finding
from llmops.preflight.fit.budget import fit
from llmops.preflight.fit.context import longest_context
from llmops.preflight.fit.engine import GIB, EngineMemory, engine_memory
from llmops.preflight.fit.findings import fit_findings, overridden
from llmops.preflight.fit.layers import layers_of
from llmops.preflight.fit.shape import Shape, weight_bytes
from llmops.preflight.fit.weights import weights_on_gpu
from llmops.releases.release import EnginePin, Release, WeightsPin
from tests.unit.fit.shapes import MODELS

L40S = 46068 * 2**20  # the value of NVIDIA's label nvidia.com/gpu.memory, in MiB
H100 = 81559 * 2**20
LLAMA_70B = 70_553_706_496
AWQ = {**MODELS["Llama-3.3-70B"], "quantization_config": {"quant_method": "awq", "bits": 4}}
FULL = Shape(MODELS["Llama-3.3-70B"], {"BF16": LLAMA_70B}, 2 * LLAMA_70B)
QUANTIZED = Shape(AWQ, {"I32": 8_700_000_000, "F16": 2_500_000_000}, 39_770_000_000)


def release(*arguments: str, gpus: int = 1) -> Release:
    return Release(
        model="llama",
        weights=WeightsPin(repo="acme/llama", commit="0" * 40, files=()),
        engine=EnginePin(image="vllm/vllm-openai", tag="v0.32.0", digest="sha256:" + "7" * 64, args=arguments),
        gpu=Gpu(count=gpus),
        resources=Resources(),
        evaluation=Evaluation(),
        suites=(),
        rollout=Rollout(),
        access=Access(),
    )


def findings(shape: Shape, gpu_bytes: float | None, *arguments: str, gpus: int = 1) -> list[Finding]:
    return list(fit_findings(release(*arguments, gpus=gpus), shape, gpu_bytes))


def test_full_weights_on_one_small_gpu_do_not_fit() -> None:
    """The article: "Single L40S is 48 GB. 70B fp16 is 140 GB"."""
    (finding,) = findings(FULL, L40S, "--max-model-len=8192")
    assert (finding.severity, finding.subject) == ("error", "GPU fit")
    assert "tensor_parallel_size" in finding.remedy


def test_asking_for_awq_quantizes_nothing() -> None:
    first, second = findings(FULL, L40S, "--quantization=awq_marlin")
    assert (first.severity, first.subject) == ("error", "quantization")
    assert "AWQ" in first.remedy
    assert second.severity == "error"


def test_the_articles_own_context_does_not_fit_its_gpu() -> None:
    """32,768 tokens of 320 KiB are 10 GiB, and an L40S has 3 left beside AWQ weights: one of the article's errors.

    What is left is an estimate, so it warns.
    """
    arguments = (
        "--gpu-memory-utilization=0.9",
        "--max-model-len=32768",
        "--max-num-seqs=64",
        "--quantization=awq_marlin",
    )
    (finding,) = findings(QUANTIZED, L40S, *arguments)
    assert finding.severity == "warning"
    assert "a request of 32,768 tokens does not" in finding.message
    longest = int(finding.remedy.split("max_model_len to ")[1].split()[0])
    assert 1000 < longest < 12_000
    assert longest % 16 == 0
    shorter = findings(QUANTIZED, L40S, *arguments[:1], f"--max-model-len={longest}", *arguments[2:])
    assert "only 1.0 requests" in shorter[0].message


def test_the_catalogs_entry_for_that_gpu_fits() -> None:
    arguments = ("--gpu-memory-utilization=0.95", "--max-model-len=8192", "--max-num-seqs=16", "--kv-cache-dtype=fp8")
    (finding,) = findings(QUANTIZED, L40S, *arguments)
    assert finding.severity in ("ok", "warning"), finding


def test_two_large_gpus_hold_8_bit_weights_and_a_long_context() -> None:
    eight = Shape({**MODELS["Llama-3.3-70B"], "quantization_config": {"quant_method": "fp8"}}, {}, 72_700_000_000)
    arguments = ("--tensor-parallel-size=2", "--max-model-len=32768", "--max-num-seqs=128")
    (finding,) = findings(eight, H100, *arguments, gpus=2)
    assert finding.severity == "ok"
    assert "32,768 tokens" in finding.message


def test_a_context_beyond_the_models_is_refused_as_vllm_does() -> None:
    first, *_ = findings(QUANTIZED, H100, "--max-model-len=200000")
    assert (first.severity, first.subject) == ("error", "context")
    assert "131072" in first.remedy


def test_the_fit_on_gpus_of_unknown_memory_is_unknown() -> None:
    (finding,) = findings(QUANTIZED, None)
    assert finding.severity == "unknown"
    assert "gpu.memory" in finding.remedy


def test_a_model_of_unknown_shape_is_no_ok() -> None:
    odd = Shape({**MODELS["Llama-3.1-8B"], "model_type": "mamba2"}, {}, 16 * GIB)
    (finding,) = findings(odd, H100)
    assert finding.severity == "unknown"
    assert "mamba2" in finding.message


def test_without_a_gpu_there_is_nothing_to_fit_into() -> None:
    assert findings(FULL, L40S, gpus=0) == []


@pytest.mark.parametrize(
    ("log", "config", "gpu", "engine", "loaded", "left"),
    [
        # vLLM issue 10517: RTX 3090, "Loading model weights took 14.9888 GB", kv_cache_size 3.81 GiB.
        ("10517", MODELS["Llama-3.1-8B"], 23.58, EngineMemory(20000, 256, 20000, 0.9, eager=True), 14.9888, 3.81),
        # A published log of vLLM 0.19: gpt-oss-20b on an A100 of 80 GB at 0.65, "Model loading took 13.72 GiB".
        ("0.19", MODELS["gpt-oss-20b"], 79.25, EngineMemory(131072, 256, 2048, 0.65), 13.72, 36.56),
    ],
)
def test_the_kv_cache_is_as_large_as_on_real_gpus(
    log: str, config: dict[str, Any], gpu: float, engine: EngineMemory, loaded: float, left: float
) -> None:
    quantized = {**config, "quantization_config": {}}
    memory = fit(Shape(quantized, {}, int(loaded * GIB)), engine, gpu * GIB)
    # Within 5 % of the GPU below the real cache, and hardly above it: an engine fails late on too high an estimate.
    assert left * GIB - 0.05 * gpu * GIB <= memory.kv_cache <= left * GIB * 1.1, log


def test_weights_in_full_are_cast_and_quantized_ones_stay() -> None:
    wide = Shape(MODELS["SmolLM2-135M"], {"F32": 1000, "I64": 8}, 4064)
    assert weight_bytes(wide, None) == 2 * 1000 + 8 * 8
    assert weight_bytes(wide, "float32") == 4 * 1000 + 8 * 8
    assert weight_bytes(QUANTIZED, "float32") == QUANTIZED.size


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), EngineMemory()),
        (("--max-model-len=32k", "--enforce-eager"), EngineMemory(max_model_len=32000, eager=True)),
        (("--max-model-len=32K", "--max-model-len=auto"), EngineMemory(fits_context=True)),
        (("--max_model_len=4096", "--tensor-parallel-size=2", "--enforce-eager"),
         EngineMemory(max_model_len=4096, tensor=2, eager=True)),
        (("--hf-overrides.max_position_embeddings=65536", "--hf-overrides.rope_parameters.factor=2"),
         EngineMemory(overrides={"max_position_embeddings": 65536, "rope_parameters": {"factor": 2}})),
        (("--cpu-offload-gb=1.5", "--kv-cache-memory-bytes=2G", "--data-parallel-size=4"),
         EngineMemory(cpu_offload_bytes=3 * GIB // 2, kv_cache_bytes=2 * GIB, data=4)),
        (("--pipeline-parallel-size=2", "--block-size=32"), EngineMemory(pipeline=2, block_tokens=32)),
    ],
)  # fmt: skip
def test_options_are_read_as_vllm_reads_them(arguments: tuple[str, ...], expected: EngineMemory) -> None:
    assert engine_memory(arguments) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ({"max_position_embeddings": 131072, "rope_scaling": {"rope_type": "llama3", "factor": 8}}, 131072),
        ({"max_position_embeddings": 32768,
          "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}}, 32768),
        ({"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 2.0}}, 8192),
        ({"n_positions": 1024}, 1024),
        ({"max_position_embeddings": 8192, "model_max_length": 131072}, 131072),
        ({"max_position_embeddings": 262144, "max_seq_len": 4096}, 4096),
        ({"max_position_embeddings": 8192, "rope_scaling": {"rope_type": "linear", "factor": None}}, 8192),
        ({"max_position_embeddings": 4096,
          "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 4.0},
                              "sliding_attention": {"rope_type": "default"}}}, 16384),
    ],
)  # fmt: skip
def test_the_trained_context_of_a_model(text: dict[str, Any], expected: int) -> None:
    assert longest_context(text) == expected


QWEN_MOE = {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "num_hidden_layers": 40,
            "hidden_size": 2048, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128,
            "intermediate_size": 6144, "moe_intermediate_size": 768, "num_experts": 64, "num_experts_per_tok": 8,
            "vocab_size": 151936, "max_position_embeddings": 40960}  # fmt: skip
EXPERTS = 40 * 64 * 3 * 2048 * 768
MOE = Shape(QWEN_MOE, {"BF16": EXPERTS + 2 * 10**9}, 2 * EXPERTS + 4 * 10**9)


@pytest.mark.parametrize("expert_parallel", [(), ("--enable-expert-parallel",)])
def test_data_parallel_copies_share_their_experts(expert_parallel: tuple[str, ...]) -> None:
    on_gpu = weights_on_gpu(MOE, engine_memory(("--data-parallel-size=2", *expert_parallel)))
    assert on_gpu.bytes == 2 * EXPERTS / 2 + 4 * 10**9
    assert on_gpu.least == 2 * EXPERTS / 2 + 2 * 10**9


def test_data_parallel_copies_of_a_dense_model_share_nothing() -> None:
    on_gpu = weights_on_gpu(FULL, engine_memory(("--data-parallel-size=4", "--tensor-parallel-size=2")))
    assert on_gpu.bytes == on_gpu.least == LLAMA_70B


def test_quantized_experts_over_copies_are_unknown_and_never_an_error() -> None:
    four = Shape({**QWEN_MOE, "quantization_config": {"quant_method": "awq"}}, {"I32": 10**9, "F16": 10**9}, 6 * 10**9)
    (finding,) = findings(four, L40S, "--data-parallel-size=2", gpus=2)
    assert finding.severity == "unknown"


def test_experts_of_eight_bits_are_a_byte_a_number() -> None:
    parameters = {"F8_E4M3": EXPERTS + 10**9, "BF16": 10**9}
    eight = Shape({**QWEN_MOE, "quantization_config": {"quant_method": "fp8"}}, parameters, EXPERTS + 3 * 10**9)
    assert weights_on_gpu(eight, engine_memory(("-dp=4",))).bytes == EXPERTS / 4 + 3 * 10**9


def test_layers_for_drafts_may_stay_out() -> None:
    shape = Shape({**QWEN_MOE, "num_nextn_predict_layers": 1}, MOE.parameters, MOE.size)
    on_gpu = weights_on_gpu(shape, engine_memory(()))
    assert (on_gpu.bytes, on_gpu.least) == (MOE.size, MOE.size * 39 / 41)


def test_weights_in_the_nodes_memory_do_not_count() -> None:
    (finding,) = findings(FULL, H100, "--cpu-offload-gb=90", "--max-model-len=8192")
    assert finding.severity in ("ok", "warning")
    assert "weights 41.4" in finding.message


def test_a_cache_of_a_given_size_has_that_size() -> None:
    (finding,) = findings(QUANTIZED, H100, "--kv-cache-memory-bytes=5G", "--max-model-len=8192")
    assert "KV cache 5.0 for 16,384 tokens" in finding.message


@pytest.mark.parametrize("method", ["fp8", "bitsandbytes", "mxfp4", "int8_per_channel_weight_only", "torchao"])
def test_weights_that_vllm_quantizes_while_loading_are_unknown(method: str) -> None:
    (finding,) = findings(FULL, L40S, f"--quantization={method}")
    assert (finding.severity, finding.check) == ("unknown", "memory.fit")


@pytest.mark.parametrize(
    ("name", "method"),
    [("quant_config.json", "awq"), ("quantize_config.json", "gptq_marlin"), ("hf_quant_config.json", "modelopt_fp4")],
)
def test_a_file_beside_config_json_says_how_weights_are_quantized(name: str, method: str) -> None:
    content = {"w_bit": 4, "quantization": {"kv_cache_quant_algo": "FP8"}}
    beside = Shape(MODELS["Llama-3.3-70B"], {"I32": 8 * 10**9, "F16": 2 * 10**9}, 37 * 10**9, {name: content})
    (finding,) = findings(beside, H100, f"--quantization={method}", "--max-model-len=8192")
    assert finding.severity == "ok"
    in_half, in_eight = (
        layers_of(shape, dtype=None, kv_cache_dtype=None, tensor=1)[0].token_bytes for shape in (FULL, beside)
    )
    assert in_eight == in_half / 2


def test_quantized_weights_without_a_word_on_how_are_unknown() -> None:
    (finding,) = findings(Shape(MODELS["Llama-3.3-70B"], {"I32": 8 * 10**9}, 32 * 10**9), H100, "--quantization=awq")
    assert finding.severity == "unknown"


@pytest.mark.parametrize(
    "options",
    [
        ("--speculative-config={}",), ("--enable-lora",), ("-dcp=2",), ("--num-gpu-blocks-override=9",),
        ("--load-format=gguf",), ("--max-num-seqs=many",), ("--gpu-memory-utilization=nan",),
        ("--kv-cache-dtype=nvfp4",), ("--hf-overrides=[]",), ("--tensor-parallel-size=0x2",), ("--runner", "pooling"),
    ],
)  # fmt: skip
def test_options_that_llmops_does_not_calculate_make_the_cache_unknown(options: tuple[str, ...]) -> None:
    (finding,) = findings(QUANTIZED, H100, *options)
    assert finding.severity == "unknown"


@pytest.mark.parametrize(
    ("config", "arguments", "env", "severities"),
    [
        ({}, ("--max-model-len=150000",), (), ["error"]),
        ({}, ("--max-model-len=150000",), (("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "true"),), ["warning"]),
        ({}, ("--max-model-len=150000", '--hf-overrides={"max_position_embeddings": 262144}'), (), []),
        ({}, ("--max-model-len=150000", "--hf-overrides.rope_scaling.factor=2",
              "--hf-overrides.rope_scaling.rope_type=linear"), (), []),
        ({"model_type": "llama9"}, ("--max-model-len=150000",), (), ["warning"]),
        ({"max_position_embeddings": "many"}, ("--max-model-len=150000",), (), ["unknown"]),
        ({"rope_scaling": {"type": "yarn", "factor": 2.0}}, ("--max-model-len=150000",), (), ["error"]),
    ],
)  # fmt: skip
def test_a_context_beyond_the_files_own(
    config: dict[str, Any], arguments: tuple[str, ...], env: tuple[tuple[str, str], ...], severities: list[str]
) -> None:
    asked = release(*arguments)
    asked = asked.model_copy(update={"engine": asked.engine.model_copy(update={"env": env})})
    shape = Shape({**MODELS["Llama-3.1-8B"], **config}, {"BF16": 8 * 10**9}, 16 * 10**9)
    about = [finding for finding in fit_findings(asked, shape, H100) if finding.check == "memory.context"]
    assert [finding.severity for finding in about] == severities


def test_overrides_of_the_text_model_are_merged_into_it() -> None:
    text = {**MODELS["gemma-3-27b"], "rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    seeing = Shape({"model_type": "gemma3", "text_config": text}, {}, 0)
    changes = {"max_position_embeddings": 4096, "rope_parameters": {"rope_type": "yarn", "factor": 2.0}}
    changed = overridden(seeing, {"text_config": changes}).fields
    assert changed.whole("max_position_embeddings") == 4096
    assert changed.whole("num_hidden_layers") == 62
    assert [parameters["rope_type"] for parameters in changed.rope()] == ["yarn"]


def test_of_older_versions_the_context_of_yarn_is_not_certain() -> None:
    asked = release("--max-model-len=150000")
    asked = asked.model_copy(update={"engine": asked.engine.model_copy(update={"tag": "v0.9.2"})})
    yarn = {**MODELS["Llama-3.1-8B"], "rope_scaling": {"rope_type": "yarn", "factor": 2.0}}
    first, *_ = fit_findings(asked, Shape(yarn, {"BF16": 8 * 10**9}, 16 * 10**9), H100)
    assert (first.severity, first.check) == ("warning", "memory.context")


def test_a_longrope_model_takes_its_original_context_unless_asked() -> None:
    long = {**MODELS["Llama-3.1-8B"], "model_type": "phi3", "architectures": ["Phi3ForCausalLM"],
            "original_max_position_embeddings": 8192, "rope_scaling": {"type": "su"}}  # fmt: skip
    (finding,) = findings(Shape(long, {"BF16": 8 * 10**9}, 16 * 10**9), L40S)
    assert "requests of 8,192 tokens" in finding.message


def test_an_engine_that_looks_for_its_context_takes_what_fits() -> None:
    (finding,) = findings(QUANTIZED, L40S, "--max-model-len=auto")
    assert "does not seem to fit" not in finding.message


def test_without_its_manager_of_hybrid_caches_vllm_frees_no_window() -> None:
    gemma = Shape(MODELS["gemma-3-27b"], {"BF16": 27 * 10**9}, 54 * 10**9)
    frees, keeps = (
        fit(gemma, engine_memory(arguments), H100) for arguments in ((), ("--disable-hybrid-kv-cache-manager",))
    )
    assert keeps.tokens < frees.tokens
