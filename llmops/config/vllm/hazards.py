"""The arguments with which an engine loads code or touches files that no release pins. vLLM 0.31 and 0.32."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from llmops.config.vllm.arguments import Argument, contents, walk
from llmops.config.vllm.flags import Flag

HazardKind = Literal["code", "files"]


class Hazard(NamedTuple):
    """What an argument does that an entry has to allow.

    Args:
        kind: code: the engine runs it; files: the engine reads or writes them.
        what: The flag, or the key of its JSON value, that does it.
        remote: Whether it is code of a model's repository, which `trust_remote_code` allows as well.
    """

    kind: HazardKind
    what: str
    remote: bool = False


NONE = ("", "None", "null", "{}", "[]")
"""Values that name nothing."""

IMPORTS = {
    "--distributed-executor-backend": ("ray", "mp", "uni", "external_launcher"),
    "--io-processor-plugin": (),
    # A file of Python's logging names the classes that it takes.
    "--log-config-file": (),
    "--logging-config.pylogging_config_file": (),
    "--compilation-config.inductor_passes": (),
    "--ec-manager-config.encoder_cache_manager_cls": (),
    "--logits-processors": (),
    "--middleware": (),
    "--model-class-overrides": (),
    "--reasoning-parser-plugin": (),
    "--scheduler-cls": (),
    "--structured-outputs-config.reasoning_parser_plugin": (),
    "--tool-parser-plugin": (),
    "--worker-cls": ("auto",),
    "--worker-extension-cls": (),
}
"""Flags, and keys of JSON values, that name code to load; each with the values that are vLLM's own."""

IMPORTS_IF_DOTTED = re.compile(
    r"--compilation-config\.backend|--spec-model|--speculative-config\.model"
    r"|--(kv|ec)-transfer-config\..*(policy|detector|cls|class|type)"
)
"""Those whose value is a name of vLLM's, or, with dots, the place of a class."""

IMPORT_KEY = re.compile(r"(^|_)(module_path|plugin|cls)$")
"""Keys of any JSON value that name code to load."""

REMOTE = ("trust_remote_code", "auto_map")
"""Keys of any JSON value that let code of a repository run, or name it."""

PLACES = (
    "--allowed-local-media-path",
    "--download-dir",
    "--mm-encoder-fp8-scale-path",
    "--mm-encoder-fp8-scale-save-path",
    "--ssl-ca-certs",
    "--ssl-certfile",
    "--ssl-keyfile",
)
"""Flags whose value is a place in the pod."""

PLACES_IF_PATH = re.compile(
    r"--default-mm-loras(\..*)?|--generation-config|--hf-config-path|--lora-modules|--spec-model"
    r"|--speculative-config\.(model|tokenizer)|--tokenizer"
)
"""Those whose value is a repository, or, as a path, a place in the pod."""

PLACE_KEY = re.compile(r"(^|_)(path|dir|folder|file)$")
"""Keys of any JSON value that hold a place in the pod."""

_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
_PATH = re.compile(r"""(^|[="])\s*[~./]|://""")


def hazards(argument: Argument, flag: Flag | None) -> Iterator[Hazard]:
    """What an argument loads or touches.

    Args:
        argument: The argument.
        flag: Its flag; None if no known version has it.
    """
    name = flag.name if flag else argument.flag
    if argument.value is None:
        return
    if not argument.keys:
        # The name of a flag that no table has is all that is known of it.
        key = "" if flag else name.removeprefix("--").replace("-", "_")
        yield from _hazard(name, key, argument.value)
    for keys, value in walk(contents(argument, flag)):
        if value:
            yield from _hazard(
                ".".join((name, *keys)), keys[-1], value if isinstance(value, str) else json.dumps(value)
            )


def _hazard(place: str, key: str, value: str) -> Iterator[Hazard]:
    """What one value does.

    Args:
        place: Its flag, with dots and the keys that lead to it.
        key: The last key; empty for the flag's whole value.
        value: As text.
    """
    flag = place.partition(".")[0]
    if value in NONE:
        return
    if key in REMOTE:
        yield Hazard("code", place, remote=True)
    elif (
        value not in IMPORTS.get(place, (value,))
        or (flag == "--model-class-overrides" and key)
        or IMPORT_KEY.search(key)
        or (IMPORTS_IF_DOTTED.fullmatch(place) and _DOTTED.fullmatch(value))
        or (place in ("--spec-method", "--speculative-config.method") and value == "custom_class")
        # Its tools run what the model writes.
        or (place == "--tool-server" and value == "demo")
    ):
        yield Hazard("code", place)
    elif (
        place in PLACES
        or PLACE_KEY.search(key)
        or (PLACES_IF_PATH.fullmatch(place) and _PATH.search(value))
        # vLLM opens the template as a file first, and takes it for the text if it is none.
        or (place == "--chat-template" and not re.search(r"[{}\n]", value))
    ):
        yield Hazard("files", place)
