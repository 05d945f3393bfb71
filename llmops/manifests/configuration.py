"""The engine's options and chat template, as files in an immutable ConfigMap that is named by its content.

The files of a running engine never change, and releases with the same options share a ConfigMap. The command line keeps
the options that vLLM takes nowhere else, and the paths and ports of the pod. The path of the file contains the name of
the ConfigMap, so the command line shows which options the engine has.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable

import yaml

from llmops.config import names
from llmops.config.settings import Settings
from llmops.manifests.pods import Manifest, mount
from llmops.releases.release import Release

COMPONENT = "engine-config"
MOUNT = "/etc/llmops"
FILE = "engine.yaml"
TEMPLATE_FILE = "chat_template.jinja"
VOLUME = "configuration"

_ADDED_UP = "--middleware"
"""vLLM adds up the values of the file and of the command line, in an order other than the release's."""


def arguments(release: Release) -> list[str]:
    """Arguments that name the files, and the options that no file can hold.

    `--config` and its path are two arguments: vLLM ignores `--config=PATH` without an error.
    """
    template = [f"--chat-template={_folder(release)}/{TEMPLATE_FILE}"] if release.engine.chat_template else []
    return ["--config", f"{_folder(release)}/{FILE}", *template, *_beside_the_file(release.engine.args)]


def options(release: Release) -> dict[str, str | bool]:
    """The content of the file: vLLM's long flags without their dashes.

    Values are text: vLLM's parser reads each exactly as the release has it.
    """
    beside = set(_beside_the_file(release.engine.args))
    return {
        # The drain hook reaches one process. With data parallelism vLLM starts several API servers by default.
        "api-server-count": "1",
        # For an end without the drain hook: a failed probe, or a request that outlives the drain.
        "shutdown-timeout": str(release.rollout.drain_seconds),
        **dict(_option(argument) for argument in release.engine.args if argument not in beside),
    }


def name(release: Release) -> str:
    """Name of the ConfigMap."""
    content = "\0".join(_files(release).values())
    return f"{release.model}-engine-{hashlib.sha256(content.encode()).hexdigest()[:10]}"


def config_map(release: Release, settings: Settings) -> Manifest:
    """The ConfigMap with the files. It carries no release label: releases with the same options share it."""
    labels = names.labels(release.model, release.id, COMPONENT)
    del labels[names.RELEASE_LABEL]
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name(release), "namespace": settings.namespace, "labels": labels},
        "immutable": True,
        "data": _files(release),
    }


def selector(model: str) -> dict[str, str]:
    """Labels of all ConfigMaps with options of a model's engines."""
    return {names.MODEL_LABEL: model, names.COMPONENT_LABEL: COMPONENT}


def volume(release: Release) -> Manifest:
    """The ConfigMap as a volume of the pod."""
    return {"name": VOLUME, "configMap": {"name": name(release)}}


def file_mount(release: Release) -> Manifest:
    """The mount of the files in the engine's container."""
    return mount(VOLUME, _folder(release), read_only=True)


def _folder(release: Release) -> str:
    return f"{MOUNT}/{name(release)}"


def _files(release: Release) -> dict[str, str]:
    files = {FILE: yaml.safe_dump(options(release), sort_keys=False, width=10_000, allow_unicode=True)}
    if template := release.engine.chat_template:
        files[TEMPLATE_FILE] = template
    return files


def _beside_the_file(args: Iterable[str]) -> list[str]:
    """Arguments that mean something else in a file, or cannot be written there.

    A file holds each flag once, and no negation of it; vLLM reads a value that begins with a dash as a flag.
    `--flag.key+=value` adds to what `--flag.key=value` sets, so the order of the two counts.
    """
    arguments = tuple(args)
    times = Counter(_switch(argument) for argument in arguments)
    return [
        argument
        for argument in arguments
        if times[_switch(argument)] > 1 or argument.partition("=")[2].startswith("-") or _switch(argument) == _ADDED_UP
    ]


def _switch(argument: str) -> str:
    return argument.partition("=")[0].removesuffix("+").replace("--no-", "--", 1)


def _option(argument: str) -> tuple[str, str | bool]:
    flag, equals, value = argument.removeprefix("--").partition("=")
    return flag, value if equals else True
