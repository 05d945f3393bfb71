"""The architectures whose KV cache llmops can calculate: what each layer keeps, by vLLM 0.32's own model files.

A model of another architecture is unknown. `tests/opt_in/vllm/test_kv_arithmetic.py` holds each family against the
layers that vLLM itself makes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from llmops.preflight.fit.fields import Fields, UnknownShape, shown

FULL, SLIDING = "full_attention", "sliding_attention"
# vLLM 0.32, `config/model.py`: such models attend in both directions, and keep nothing.
CAUSAL = "is_causal"


@dataclass(frozen=True)
class Layer:
    """What one layer keeps of each token.

    Args:
        heads: Heads of keys and values, over all GPUs; 0 for compressed keys and values (MLA), which each GPU keeps.
        key: Numbers of a key; of the compressed vector if there are no heads.
        value: Numbers of a value.
        window: Tokens that the layer looks back on; None for all.
        chunked: Whether the window is a chunk that starts anew, and does not slide.
    """

    heads: int
    key: int
    value: int = 0
    window: int | None = None
    chunked: bool = False


@dataclass(frozen=True)
class Family:
    """Models that vLLM runs by the same code.

    Args:
        architectures: Names in `architectures` of `config.json`, of the model alone or of one that sees or hears, too.
        layers: Makes the layers; raises UnknownShape.
        experts: Counts the numbers in routed experts; None for dense models.
    """

    architectures: tuple[str, ...]
    layers: Callable[[Fields], Sequence[Layer]]
    experts: Callable[[Fields], int] | None = None


def family_of(fields: Fields, architectures: object) -> Family:
    """The family of a model.

    Args:
        fields: The text model's configuration.
        architectures: The field of `config.json`; vLLM finds the architecture by `model_type` if there is none.

    Raises:
        UnknownShape: llmops does not know the architecture.
    """
    family = FAMILIES.get(fields.kind)
    if family is None:
        raise UnknownShape(f"llmops does not know models of type {shown(fields.kind)}", about="model_type")
    if architectures:
        names: list[Any] = list(architectures) if isinstance(architectures, list | tuple) else [architectures]
        if names[0] not in family.architectures:
            raise UnknownShape(f"llmops does not know the architecture {shown(names[0])}", about="architectures")
    if fields.value(CAUSAL) is not None and not fields.flag(CAUSAL):
        raise UnknownShape("it attends in both directions", about=CAUSAL)
    return family


def _head_size(fields: Fields, *, own: bool = True) -> int:
    """Numbers of a key: the field, unless the model's code ignores it, else the width over the heads."""
    if own and fields.count("head_dim"):
        return fields.whole("head_dim")
    return max(1, fields.whole("hidden_size") // fields.whole("num_attention_heads"))


def _kv_heads(fields: Fields) -> int:
    return fields.number("num_key_value_heads") or fields.whole("num_attention_heads")


def _kinds(fields: Fields, derived: Sequence[str] | None = None) -> Sequence[str] | None:
    """Kind of each layer: by the file, else as the library's class derives it; None if it derives none."""
    given = fields.sequence("layer_types")
    if given is None:
        return derived
    kinds = [kind for kind in given if kind in (FULL, SLIDING)][: fields.layers()]
    if len(kinds) != len(given[: fields.layers()]) or len(kinds) < fields.layers():
        raise UnknownShape("its layers (layer_types) are of kinds that llmops does not know", about="layer_types")
    return kinds


def _every(fields: Fields, nth: int) -> list[str]:
    """Each nth layer looks back on everything."""
    return [SLIDING if (index + 1) % nth else FULL for index in range(fields.layers())]


def _windows(fields: Fields, kinds: Sequence[str] | None, *, per_layer: bool, more: int = 0) -> list[int | None]:
    """Window of each layer.

    Args:
        fields: The configuration.
        kinds: Kind of each layer; None if the class knows none: a window then holds for all layers.
        per_layer: Whether the model's code looks at the kind of each layer. If not, a window holds for all or for none
            (vLLM 0.32, `engine/arg_utils.py`: `CacheConfig.sliding_window`).
        more: Tokens that the model's code adds to the field.
    """
    count = fields.layers()
    window = fields.count("sliding_window") or None
    if "use_sliding_window" in fields.defaults and not fields.flag("use_sliding_window"):
        window = None
    if kinds is None or all(kind == SLIDING for kind in kinds):
        return [window + more if window else None] * count
    if not per_layer:
        return [None] * count
    if window is None and SLIDING in kinds:
        raise UnknownShape("it has layers with a sliding window, but no sliding_window", about="sliding_window")
    return [(window or 0) + more if kind == SLIDING else None for kind in kinds]


def _plain(fields: Fields, windows: Sequence[int | None], *, own_size: bool = True) -> list[Layer]:
    heads, size = _kv_heads(fields), _head_size(fields, own=own_size)
    return [Layer(heads, size, size, window) for window in windows]


def _whole(fields: Fields) -> list[Layer]:
    """A window holds for all layers, or for none."""
    _refuse_mixed(fields)
    return _plain(fields, _windows(fields, _kinds(fields), per_layer=False))


def _refuse_mixed(fields: Fields) -> None:
    if "use_sliding_window" in fields.defaults and fields.flag("use_sliding_window"):
        raise UnknownShape("it has a sliding window on some of its layers", about="use_sliding_window")


def _whole_sized(fields: Fields) -> list[Layer]:
    """As `_whole`; the code ignores `head_dim`."""
    _refuse_mixed(fields)
    return _plain(fields, _windows(fields, _kinds(fields), per_layer=False), own_size=False)


def _typed(fields: Fields) -> list[Layer]:
    """`layer_types` says which layers have a window."""
    return _plain(fields, _windows(fields, _kinds(fields), per_layer=True))


def _qwen(fields: Fields) -> list[Layer]:
    """Qwen 2 and 3: layers from `max_window_layers` on have a window; vLLM takes all or none."""
    count = fields.layers()
    derived = [FULL] * count
    if fields.flag("use_sliding_window") and fields.count("sliding_window"):
        first = fields.count("max_window_layers")
        derived = [SLIDING if index >= first else FULL for index in range(count)]
    kinds = _kinds(fields, derived) or derived
    if not fields.flag("use_sliding_window"):
        return _plain(fields, [None] * count, own_size=fields.kind != "qwen2")
    if len(set(kinds)) > 1:
        raise UnknownShape("vLLM refuses a sliding window on some of its layers", about="layer_types")
    return _plain(fields, _windows(fields, kinds, per_layer=False), own_size=fields.kind != "qwen2")


def _gemma2(fields: Fields) -> list[Layer]:
    return _plain(fields, _windows(fields, _kinds(fields, _every(fields, 2)), per_layer=True))


def _gemma3(fields: Fields) -> list[Layer]:
    if fields.flag("use_bidirectional_attention"):
        raise UnknownShape("it attends in both directions", about="use_bidirectional_attention")
    nth = fields.number("sliding_window_pattern") or 6
    return _plain(fields, _windows(fields, _kinds(fields, _every(fields, nth)), per_layer=True))


def _gemma3n(fields: Fields) -> list[Layer]:
    """The last layers keep nothing: they share keys and values of earlier ones."""
    layers = _plain(fields, _windows(fields, _kinds(fields, _every(fields, 5)), per_layer=True))
    own = fields.layers() - fields.count("num_kv_shared_layers")
    if own <= 0:
        raise UnknownShape("all its layers share keys and values of others", about="num_kv_shared_layers")
    return layers[:own]


def _gpt_oss(fields: Fields) -> list[Layer]:
    """Each second layer has a window, whatever the file says (vLLM 0.32, `gpt_oss.py`)."""
    kinds = [FULL if index % 2 else SLIDING for index in range(fields.layers())]
    return _plain(fields, _windows(fields, kinds, per_layer=True))


def _cohere2(fields: Fields) -> list[Layer]:
    nth = fields.number("sliding_window_pattern") or 4
    return _plain(fields, _windows(fields, _kinds(fields, _every(fields, nth)), per_layer=True, more=1), own_size=False)


def _exaone4(fields: Fields) -> list[Layer]:
    pattern = fields.value("sliding_window_pattern")
    if isinstance(pattern, str) and fields.sequence("layer_types") is None:
        # The library's class fails on a text, as files of early revisions have it.
        raise UnknownShape("its sliding_window_pattern is a text, and it has no layer_types", about="layer_types")
    if not fields.count("sliding_window"):
        return _plain(fields, [None] * fields.layers())
    derived = None if isinstance(pattern, str) else _every(fields, fields.number("sliding_window_pattern") or 4)
    return _plain(fields, _windows(fields, _kinds(fields, derived), per_layer=True))


def _olmo3(fields: Fields) -> list[Layer]:
    return _plain(fields, _windows(fields, _kinds(fields, _every(fields, 4)), per_layer=True))


def _llama4(fields: Fields) -> list[Layer]:
    """Layers with position embedding look back on their chunk; the others on everything."""
    count, chunk = fields.layers(), fields.count("attention_chunk_size")
    given = fields.sequence("no_rope_layers")
    nth = fields.number("no_rope_layer_interval") or 4
    roped = given or [int((index + 1) % nth != 0) for index in range(count)]
    if len(roped) < count or any(flag not in (0, 1) for flag in roped):
        raise UnknownShape("its no_rope_layers in config.json is not one number a layer", about="no_rope_layers")
    heads, size = _kv_heads(fields), _head_size(fields)
    windows = [chunk if flag and chunk else None for flag in roped[:count]]
    return [Layer(heads, size, size, window, chunked=window is not None) for window in windows]


def _step3p5(fields: Fields) -> list[Layer]:
    """Step 3.5 (vLLM 0.32, `step3p5.py`): groups of heads, and others in the layers of one kind."""
    count = fields.layers()
    heads, size = fields.whole("num_attention_groups"), _head_size(fields)
    given = fields.sequence("layer_types")
    if fields.count("sliding_window") and given is None:
        kinds: Sequence[Any] = [FULL if index % 2 else SLIDING for index in range(count)]
    else:
        kinds = _kinds(fields, [FULL] * count) or ()
    other = fields.value("attention_other_setting") or {}
    if not isinstance(other, dict):
        raise UnknownShape("its attention_other_setting is not an object", about="attention_other_setting")
    special = Fields(other, {}, {})
    layers: list[Layer] = []
    windows = [fields.count("sliding_window") or None if kind == SLIDING else None for kind in kinds]
    for kind, window in zip(kinds, windows, strict=True):
        of_kind = bool(other and given) and special.value("attention_type") == kind
        layer_size = special.whole("head_dim") if of_kind else size
        layers.append(
            Layer(special.whole("num_attention_groups") if of_kind else heads, layer_size, layer_size, window)
        )
    return layers


def _mimo_v2(fields: Fields) -> list[Layer]:
    """MiMo V2 (vLLM 0.32, `mimo_v2.py`): 1 in `hybrid_layer_pattern` is a layer with a window and heads of its own."""
    pattern = fields.sequence("hybrid_layer_pattern")
    if pattern is None or len(pattern) < fields.layers() or any(flag not in (0, 1) for flag in pattern):
        raise UnknownShape("its hybrid_layer_pattern in config.json is not one number a layer", about="layers")
    window = fields.number("sliding_window_size") or fields.whole("sliding_window")
    key, local_key = _head_size(fields), fields.whole("swa_head_dim")
    full = Layer(_kv_heads(fields), key, fields.number("v_head_dim") or key)
    local = Layer(
        fields.whole("swa_num_key_value_heads"), local_key, fields.number("swa_v_head_dim") or local_key, window
    )
    return [local if flag else full for flag in pattern[: fields.layers()]]


def _nemotron_nas(fields: Fields) -> list[Layer]:
    """Nemotron-NAS: each block says how many heads share a key; some blocks have no attention."""
    blocks = fields.sequence("block_configs")
    if blocks is None or len(blocks) != fields.layers():
        raise UnknownShape("its block_configs in config.json is not one block a layer", about="block_configs")
    heads, size = fields.whole("num_attention_heads"), _head_size(fields)
    layers: list[Layer] = []
    for block in blocks:
        attention = block.get("attention") if isinstance(block, dict) else None
        if not isinstance(attention, dict):
            raise UnknownShape("a block of its block_configs has no attention", about="block_configs")
        part = Fields(attention, {}, {})
        if part.flag("replace_with_linear"):
            raise UnknownShape("it has blocks with a linear layer for attention", about="block_configs")
        if not part.flag("no_op"):
            shared = max(1, heads // part.whole("n_heads_in_group"))
            layers.append(Layer(shared, size, size))
    if not layers:
        raise UnknownShape("it has no attention", about="block_configs")
    return layers


def _chatglm(fields: Fields) -> list[Layer]:
    heads = fields.whole("num_attention_heads")
    groups = fields.whole("multi_query_group_num") if fields.flag("multi_query_attention") else heads
    size = _head_size(fields, own=False)
    return [Layer(groups, size, size)] * fields.layers()


def _falcon(fields: Fields) -> list[Layer]:
    heads, size = fields.whole("num_attention_heads"), _head_size(fields, own=False)
    if fields.flag("new_decoder_architecture"):
        heads = fields.number("num_kv_heads") or heads
    elif fields.flag("multi_query"):
        heads = 1
    return [Layer(heads, size, size)] * fields.layers()


def _gpt2(fields: Fields) -> list[Layer]:
    size = _head_size(fields, own=False)
    return [Layer(fields.whole("num_attention_heads"), size, size)] * fields.layers()


def _latent(fields: Fields) -> list[Layer]:
    """Compressed keys and values (MLA): one vector for all heads."""
    if fields.value("index_topk") is not None:
        raise UnknownShape("its sparse index (index_topk) keeps other state", about="index_topk")
    if fields.count("sliding_window"):
        raise UnknownShape("it has a sliding window over compressed keys and values", about="sliding_window")
    size = fields.whole("kv_lora_rank") + fields.whole("qk_rope_head_dim")
    return [Layer(0, size)] * fields.layers()


def _longcat(fields: Fields) -> list[Layer]:
    """Two attentions a layer."""
    size = fields.whole("kv_lora_rank") + fields.whole("qk_rope_head_dim")
    return [Layer(0, size)] * (2 * fields.whole("num_layers", 5000))


def _experts(number: str, width: str = "moe_intermediate_size") -> Callable[[Fields], int]:
    """Numbers in routed experts of three matrices each, as in most models."""

    def of(fields: Fields) -> int:
        layers = fields.layers()
        sparse = layers - fields.count("first_k_dense_replace")
        if step := fields.number("decoder_sparse_step"):
            only_dense = fields.sequence("mlp_only_layers") or ()
            sparse = sum((index + 1) % step == 0 and index not in only_dense for index in range(layers))
        each = 3 * fields.whole("hidden_size") * fields.whole(width)
        return max(0, sparse) * fields.whole(number) * each

    return of


def _unknown_experts(fields: Fields) -> int:
    raise UnknownShape("llmops does not know how many of its numbers are in experts", about=fields.kind)


def _text(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}ForCausalLM" for name in names)


_VISION = ("InternVLChatModel", "LlavaForConditionalGeneration", "LlavaNextForConditionalGeneration")
_MISTRAL = ("Mistral3ForConditionalGeneration", "PixtralForConditionalGeneration", *_VISION)

FAMILIES: dict[str, Family] = {
    "llama": Family((*_text("Llama", "LLaMA"), *_VISION), _typed),
    "llama4_text": Family((*_text("Llama4"), "Llama4ForConditionalGeneration"), _llama4, _unknown_experts),
    "mistral": Family((*_text("Mistral"), *_MISTRAL), _typed),
    "ministral3": Family((*_text("Ministral3", "Mistral"), *_MISTRAL), _typed),
    "mixtral": Family(_text("Mixtral"), _whole, _experts("num_local_experts", "intermediate_size")),
    "qwen2": Family((*_text("Qwen2"), *_VISION), _qwen),
    "qwen3": Family((*_text("Qwen3"), *_VISION), _qwen),
    "qwen2_moe": Family(_text("Qwen2Moe"), _whole_sized, _experts("num_experts")),
    "qwen3_moe": Family((*_text("Qwen3Moe"), *_VISION), _whole, _experts("num_experts")),
    "qwen3_vl_text": Family(("Qwen3VLForConditionalGeneration",), _whole),
    "qwen3_vl_moe_text": Family(("Qwen3VLMoeForConditionalGeneration",), _whole, _experts("num_experts")),
    "gemma2": Family(_text("Gemma2"), _gemma2),
    "gemma3_text": Family((*_text("Gemma3"), "Gemma3ForConditionalGeneration"), _gemma3),
    "gemma3n_text": Family((*_text("Gemma3n"), "Gemma3nForConditionalGeneration"), _gemma3n),
    "gpt_oss": Family(_text("GptOss"), _gpt_oss, _experts("num_local_experts", "intermediate_size")),
    "phi3": Family(_text("Phi3"), _typed),
    "phimoe": Family(_text("PhiMoE", "Phimoe"), _whole_sized, _experts("num_local_experts", "intermediate_size")),
    "deepseek_v2": Family(_text("DeepseekV2"), _latent, _experts("n_routed_experts")),
    "deepseek_v3": Family(_text("DeepseekV3"), _latent, _experts("n_routed_experts")),
    "kimi_k2": Family(_text("DeepseekV3", "KimiK2"), _latent, _experts("n_routed_experts")),
    "glm4_moe_lite": Family(_text("Glm4MoeLite"), _latent, _experts("n_routed_experts")),
    "longcat_flash": Family(_text("LongcatFlash"), _longcat, _unknown_experts),
    "glm": Family(_text("Glm"), _typed),
    "glm4": Family(_text("Glm4"), _whole),
    "glm4_moe": Family(_text("Glm4Moe"), _whole, _experts("n_routed_experts")),
    "chatglm": Family(("ChatGLMModel", "ChatGLMForConditionalGeneration"), _chatglm),
    "cohere": Family(_text("Cohere"), _whole_sized),
    "cohere2": Family(_text("Cohere2"), _cohere2),
    "granite": Family(_text("Granite"), _typed),
    "granitemoe": Family(_text("GraniteMoe"), _whole_sized, _unknown_experts),
    "ernie4_5": Family(_text("Ernie4_5"), _typed),
    "ernie4_5_moe": Family(_text("Ernie4_5_Moe"), _whole, _unknown_experts),
    "minimax_m2": Family(_text("MiniMaxM2"), _whole, _experts("num_local_experts", "intermediate_size")),
    "mimo": Family(_text("MiMo"), _qwen),
    "mimo_v2_flash": Family(_text("MiMoV2Flash"), _mimo_v2, _unknown_experts),
    "step3p5": Family(_text("Step3p5"), _step3p5, _unknown_experts),
    "nemotron": Family(_text("Nemotron"), _whole),
    "nemotron-nas": Family(_text("DeciLM"), _nemotron_nas),
    "olmo": Family(_text("Olmo"), _typed),
    "olmo2": Family(_text("Olmo2"), _typed),
    "olmo3": Family(_text("Olmo3"), _olmo3),
    "olmoe": Family(_text("Olmoe"), _whole_sized, _experts("num_experts", "intermediate_size")),
    "falcon": Family(_text("Falcon"), _falcon),
    "exaone4": Family(_text("Exaone4"), _exaone4),
    "internlm2": Family((*_text("InternLM2"), *_VISION), _whole_sized),
    "seed_oss": Family(_text("SeedOss"), _typed),
    "gpt2": Family(("GPT2LMHeadModel",), _gpt2),
}
"""By `model_type` of the text model."""
