"""Which weight files of a commit vLLM loads. Pure.

The rules are those of vLLM 0.31 and 0.32 for a local folder: `_prepare_weights` of
`model_executor/model_loader/default_loader.py`, and `filter_duplicate_safetensors_files` of `weight_utils.py` there.

vLLM takes the top folder. If an index is there, it decides: a file that it does not list is not loaded, and a file that
it lists and that is missing ends the engine. A `consolidated*` file anywhere in the folder, even below, makes vLLM load
Mistral's own format; so they are left out wherever other weights are loaded.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, cast

from llmops.config.vllm.arguments import texts
from llmops.errors import BadRelease

SAFE_SUFFIX = ".safetensors"
PICKLES = (".bin", ".pt")
"""Pickles that vLLM loads; it loads no others."""
CONFIG = "config.json"
MISTRAL_CONFIG = "params.json"
ADAPTER_CONFIG = "adapter_config.json"
MODULES = "modules.json"
INDEX = "model.safetensors.index.json"
MISTRAL_INDEX = "consolidated.safetensors.index.json"
WITH_CODE = (
    CONFIG,
    "tokenizer_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
)
"""Files whose `auto_map` names Python files of the repository (transformers 5)."""

_FORMATS = frozenset(
    {"auto", "hf", "safetensors", "fastsafetensors", "instanttensor", "runai_streamer", "modelexpress", "ipc_cache"}
)
BY_PATTERNS = frozenset({"pt", "npcache", "sharded_state", "runai_streamer_sharded"})
"""Formats whose files have names of their own: the patterns of an entry select them."""
_DENSE = (
    "sentence_transformers.models.Dense",
    "sentence_transformers.base.modules.dense.Dense",
    "pylate.models.Dense.Dense",
)
# Folders with weights that an architecture of vLLM 0.32 loads besides those of the top folder: `secondary_weights`,
# `allow_patterns_overrides` and the like in `model_executor/models`.
_FOLDERS: Mapping[str, Sequence[str]] = {
    "Cosmos3EdgeForConditionalGeneration": ("[tv]*er",),
    "Cosmos3ForConditionalGeneration": ("[tv]*er",),
    "FunAudioChatForConditionalGeneration": ("speech_tokenizer",),
    "JinaEmbeddingsV5Model": ("adapters/*",),
    "MiMoV2OmniForCausalLM": ("audio_tokenizer",),
    "MoonshotKimiaForCausalLM": ("whisper-large-v3",),
}
_NOT_FOR_INFERENCE = ("training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "scaler.pt")
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{1,9})-of-(?P<count>\d{1,9})(?P<suffix>\.\w+)", re.ASCII)


@dataclass(frozen=True)
class Loading:
    """What the engine's arguments say about the files that it reads.

    Args:
        load_format: Value of `--load-format`.
        config_format: Value of `--config-format`.
        other_config: Whether `--hf-config-path` names another place of the configuration.
        remote_code: Whether the engine runs code from the repository.
    """

    load_format: str = "auto"
    config_format: str = "auto"
    other_config: bool = False
    remote_code: bool = False

    @classmethod
    def of(cls, arguments: Iterable[str]) -> Loading:
        """Read them from arguments, `--flag` or `--flag=value` each, as vLLM does; see `texts`."""
        values = texts(arguments)
        return cls(
            values.get("--load-format", "auto").lower(),
            values.get("--config-format", "auto").lower(),
            values.get("--hf-config-path") not in (None, "", "None"),
            "--trust-remote-code" in values,
        )

    @property
    def known(self) -> bool:
        """Whether llmops knows which files this format takes; of others it takes what the patterns say."""
        return self.load_format in _FORMATS or self.load_format == "mistral"


@dataclass(frozen=True)
class Top:
    """The safetensors of the top folder that the engine takes, before its index is read."""

    tensors: frozenset[str]
    index: str


def top_tensors(paths: Iterable[str], loading: Loading) -> Top:
    """The safetensors of the top folder in the one format that the engine takes, and the name of its index.

    Mistral's format is taken where nothing else is, or where an argument asks for it.
    """
    tensors = {path for path in paths if "/" not in path and path.endswith(SAFE_SUFFIX) and not is_adapter(path)}
    consolidated = {path for path in tensors if fnmatchcase(path, "consolidated*")}
    others = tensors - consolidated
    asked = loading.load_format == "mistral"
    if loading.load_format == "auto" and consolidated:
        asked = loading.config_format == "mistral" or not others
    if asked:
        return Top(frozenset(consolidated), MISTRAL_INDEX)
    return Top(frozenset(others or consolidated), INDEX)


def is_adapter(path: str) -> bool:
    """Whether a weight file has the name that the library `peft` gives an adapter's."""
    return fnmatchcase(path.rsplit("/", 1)[-1], "adapter_model*")


def is_weights(path: str) -> bool:
    """Whether a file has a format of weights that vLLM loads."""
    return path.endswith((SAFE_SUFFIX, *PICKLES)) and not path.endswith(_NOT_FOR_INFERENCE)


def is_read(path: str, tensors: Collection[str]) -> bool:
    """Whether vLLM reads this file of weights of the top folder.

    Args:
        path: Name of the file.
        tensors: The safetensors that it loads. Where there are some, it loads no `*.bin`; some models read a `*.pt`
            besides (BGE-M3).
    """
    if path.endswith(SAFE_SUFFIX):
        return path in tensors
    return not path.endswith(_NOT_FOR_INFERENCE) and not is_adapter(path) and not (tensors and path.endswith(".bin"))


def listed(index: object, name: str) -> frozenset[str]:
    """The files that an index lists.

    Raises:
        BadRelease: It is no index, and vLLM would end on it.
    """
    weight_map: object = cast("Mapping[str, Any]", index).get("weight_map") if isinstance(index, Mapping) else None
    files = list(cast("Mapping[str, object]", weight_map).values()) if isinstance(weight_map, Mapping) else []
    if not files or not all(isinstance(file, str) for file in files):
        raise BadRelease(
            f"{name} has no weight_map of tensors and their files.",
            code="IndexMalformed",
            about=name,
            remedy="Choose a revision whose upload is complete; or, if the repository's files are right without their "
            f"index, add {name} to weights.exclude.",
        )
    return frozenset(cast("list[str]", files))


def folders(documents: Mapping[str, object]) -> Callable[[str], bool]:
    """Tells folders below the top whose weights the engine loads as well.

    Args:
        documents: Content of `config.json` and `modules.json` (sentence-transformers) where they exist, by name.
    """
    config, modules = documents.get(CONFIG), documents.get(MODULES)
    names = cast("Mapping[str, object]", config).get("architectures") if isinstance(config, Mapping) else None
    architectures = {name for name in cast("list[object]", names) if isinstance(name, str)} if _is_list(names) else ()
    patterns = [pattern for name in architectures for pattern in _FOLDERS.get(name, ())]
    if isinstance(modules, Mapping):
        modules = cast("Mapping[str, object]", modules).get("modules")
    items = cast("list[object]", modules) if _is_list(modules) else []
    parts = [cast("Mapping[str, object]", item) for item in items if isinstance(item, Mapping)]
    paths = [path for part in parts if part.get("type") in _DENSE and isinstance(path := part.get("path"), str)]
    dense = {path.rstrip("/") for path in paths}
    return lambda folder: folder in dense or any(fnmatchcase(folder, pattern) for pattern in patterns)


def asks_for_code(documents: Mapping[str, object]) -> bool:
    """Whether one of the files of `WITH_CODE` names code; true where none of them could be read."""
    read = [documents[name] for name in WITH_CODE if name in documents]
    pending: list[object] = list(read)
    while pending:
        match pending.pop():
            case Mapping() as found:
                content = cast("Mapping[str, object]", found)
                if content.get("auto_map"):
                    return True
                pending.extend(content.values())
            case list() as items:
                pending.extend(cast("list[object]", items))
            case _:
                pass
    return not read


def missing_shards(paths: Iterable[str]) -> Iterator[str]:
    """Shards that the names of the others imply, for sets without an index.

    `model-00001-of-00003.safetensors` implies two more. Sets count from 1, from 0 (`00000` to `00159-of-00160`), or
    from 0 up to the number itself (`00000` to `00002-of-00002`).
    """
    sets: defaultdict[tuple[str, str, str], dict[int, str]] = defaultdict(dict)
    for path in paths:
        if match := _SHARD.fullmatch(path):
            sets[match["stem"], match["count"], match["suffix"]][int(match["number"])] = match["number"]
    for (stem, count, suffix), numbers in sorted(sets.items()):
        width = min(map(len, numbers.values()))
        first = 0 if 0 in numbers else 1
        for number in range(first, int(count) + 1 - (first == 0)):
            if number not in numbers:
                yield f"{stem}-{number:0{width}d}-of-{count}{suffix}"


def _is_list(value: object) -> bool:
    return isinstance(value, list)
