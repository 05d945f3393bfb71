"""Model folders for the sandbox: small, valid, in Hugging Face's layout, with a behaviour for the simulated engine.

The stand-in hub offers them and the simulated engine serves them. The same arguments give the same bytes on every
machine.
"""

from __future__ import annotations

import json
import random
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmops.evaluation.suites import Case, Suite, available, load_suites
from llmops_sandbox.engine.behaviour import FILE, resolve, to_json
from llmops_sandbox.engine.loading import INDEX
from llmops_sandbox.engine.model.answers import prompt_key

HIDDEN = 64
BLOCK = 1 << 20
CONFIG: Mapping[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": HIDDEN,
    "initializer_range": 0.02,
    "intermediate_size": 4 * HIDDEN,
    "max_position_embeddings": 8192,
    "model_type": "llama",
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-05,
    "rope_theta": 100000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "vocab_size": 512,
}
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def make_model(
    folder: Path,
    *,
    size_bytes: int = 4 << 20,
    shards: int = 1,
    seed: int = 0,
    quality: float | Mapping[str, float] = 1.0,
    suites_dir: Path | None = Path("evals"),
    config: Mapping[str, Any] | None = None,
    **behaviour: object,
) -> Path:
    """Write a model folder.

    Args:
        folder: The folder to write.
        size_bytes: Size of the weights, about, all shards together.
        shards: Number of safetensors files.
        seed: Decides the weights' bytes, and which prompts a model below full quality gets wrong. Of two folders with
            one seed, the better one gets right all that the worse one does.
        quality: Share of each suite's cases that the model answers right: one number, or one by suite (1 if not named).
        suites_dir: Suites whose cases the model knows; None if it knows none.
        config: Overrides of config.json.
        behaviour: Keys of `simulation.json`, as the engine's docstring lists them: `ttft_ms=90`, `garbage=True`, ...

    Returns:
        The folder.

    Raises:
        ValueError: A behaviour is unknown or has the wrong type.
        BadInput: A suite is invalid.
    """
    simulated = to_json(resolve({}, behaviour))
    folder.mkdir(parents=True, exist_ok=True)
    _write_weights(folder, size_bytes, shards, seed)
    _write_json(folder / "config.json", {**CONFIG, **(config or {})})
    _write_json(folder / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2, "temperature": 0.6})
    _write_tokenizer(folder)
    answers = dict(_answers(suites_dir, quality, seed)) if suites_dir else {}
    _write_json(folder / FILE, {**simulated, "answers": answers})
    return folder


def flip_bit(file: Path, bit: int) -> None:
    """Flip one bit of a file, counted from its first byte."""
    with file.open("r+b") as stream:
        stream.seek(bit // 8)
        (value,) = stream.read(1)
        stream.seek(bit // 8)
        stream.write(bytes([value ^ (1 << bit % 8)]))


def truncate(file: Path, by: int) -> None:
    """Cut `by` bytes off the end of a file."""
    with file.open("r+b") as stream:
        stream.truncate(file.stat().st_size - by)


def _write_json(file: Path, content: object) -> None:
    file.write_text(json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


# Weights


def _write_weights(folder: Path, size_bytes: int, shards: int, seed: int) -> None:
    names = [
        "model.safetensors" if shards == 1 else f"model-{number:05d}-of-{shards:05d}.safetensors"
        for number in range(1, shards + 1)
    ]
    weight_map: dict[str, str] = {}
    total = 0
    for number, name in enumerate(names):
        rows = max(1, size_bytes // shards // (2 * HIDDEN * 2))
        tensors = {
            f"model.layers.{number}.{part}.weight": (rows, HIDDEN) for part in ("mlp.down_proj", "self_attn.o_proj")
        }
        total += _write_safetensors(folder / name, tensors, random.Random(f"{seed}:{number}"))  # noqa: S311 -- reproducible bytes, no secret
        weight_map |= dict.fromkeys(tensors, name)
    if shards > 1:
        _write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})


def _write_safetensors(file: Path, tensors: Mapping[str, tuple[int, int]], source: random.Random) -> int:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (rows, columns) in tensors.items():
        start, end = end, end + rows * columns * 2
        header[name] = {"dtype": "BF16", "shape": [rows, columns], "data_offsets": [start, end]}
    encoded = json.dumps(header, separators=(",", ":")).encode()
    # The format wants the data to start at a multiple of 8.
    encoded += b" " * (-len(encoded) % 8)
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(encoded)) + encoded)
        for written in range(0, end, BLOCK):
            stream.write(source.randbytes(min(BLOCK, end - written)))
    return end


def _write_tokenizer(folder: Path) -> None:
    alphabet = [chr(code) for code in (*range(33, 127), 0x120, 0x10A)]
    vocabulary = {token: number for number, token in enumerate((*SPECIAL_TOKENS, *alphabet))}
    special = [
        {
            "id": vocabulary[token],
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for token in SPECIAL_TOKENS
    ]
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": vocabulary,
        "merges": [],
    }
    _write_json(
        folder / "tokenizer.json",
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": special,
            "normalizer": None,
            "pre_tokenizer": byte_level,
            "post_processor": None,
            "decoder": byte_level,
            "model": model,
        },
    )
    _write_json(
        folder / "tokenizer_config.json",
        {
            "bos_token": "<|im_start|>",
            "eos_token": "<|im_end|>",
            "pad_token": "<|im_end|>",
            "unk_token": "<|endoftext|>",
            "chat_template": CHAT_TEMPLATE,
            "model_max_length": 8192,
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
    )
    _write_json(
        folder / "special_tokens_map.json",
        {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"},
    )


# Answers


@dataclass(frozen=True)
class _Known:
    """A case, with the engine's key of its prompt."""

    key: str
    case: Case


def _answers(
    directory: Path, quality: float | Mapping[str, float], seed: int
) -> Iterator[tuple[str, dict[str, object]]]:
    for suite in load_suites(directory, available(directory)):
        if not isinstance(suite, Suite):
            continue
        share = quality if isinstance(quality, float | int) else quality.get(suite.name, 1.0)
        known = [_Known(prompt_key(suite_prompt(case)), case) for case in suite.cases]
        order = sorted(known, key=lambda case: random.Random(f"{seed}:{case.key}").random())  # noqa: S311 -- reproducible order, no secret
        for place, known_case in enumerate(order):
            yield (
                known_case.key,
                {
                    "right": known_case.case.answer,
                    "wrong": wrong_answer(known_case.case, [other.case.answer for other in known]),
                    # Half a place up: a quality of 0.9 over 10 cases is exactly 9 right answers.
                    "rank": (place + 0.5) / len(order),
                    "quality": float(share),
                },
            )


def suite_prompt(case: Case) -> str:
    """The prompt of a case: its last user message."""
    turns = case.conversation()
    return next(turn["content"] for turn in reversed(turns) if turn["role"] == "user")


def wrong_answer(case: Case, others: Sequence[str] = ()) -> str:
    """A plausible answer that the case's scorer rejects.

    Args:
        case: The question and its right answer.
        others: Answers to other questions of the suite, which look plausible.
    """
    return next(text for text in _candidates(case, others) if case.score(text) == 0)


def _candidates(case: Case, others: Sequence[str]) -> Iterator[str]:
    yield re.sub(r"\d+", lambda match: str(int(match[0]) + 3), case.answer)
    for letter in "ABCD":
        if re.fullmatch(r"\W*[A-D]\W*", case.answer):
            yield re.sub(r"[A-D]", letter, case.answer)
    start = prompt_number(suite_prompt(case)) % max(1, len(others))
    yield from (*others[start:], *others[:start])
    yield case.answer[: len(case.answer) // 2]
    yield "That depends on the context of the question, but most likely it is the second of the two"
    yield "I am not sure; it is probably none of these!"
    yield "?"


def prompt_number(prompt: str) -> int:
    """A number that spreads prompts evenly, the same on every machine."""
    return int(prompt_key(prompt)[:8], 16)
