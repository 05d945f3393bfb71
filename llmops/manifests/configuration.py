"""The engine's options and chat template, as files that the engine reads: an immutable ConfigMap named by its content.

What an engine that runs has mounted never changes, and releases with the same options share one. On the command line
stays what vLLM takes nowhere else, and what names paths and ports of the pod; the path of the file names its ConfigMap,
so that a command line tells which options it comes with.
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
"""Taken from both places, in an order that would be another one."""


def arguments(release: Release) -> list[str]:
    """What tells the engine of the files, and the options that no file can hold.

    vLLM looks for `--config` as a word of its own: it passes over `--config=PATH` without one.
    """
    template = [f"--chat-template={_folder(release)}/{TEMPLATE_FILE}"] if release.engine.chat_template else []
    return ["--config", f"{_folder(release)}/{FILE}", *template, *_beside_the_file(release.engine.args)]


def options(release: Release) -> dict[str, str | bool]:
    """What the file says: vLLM's long flags without their dashes.

    Values are text, so that each comes to vLLM's own parser as it stands in the release.
    """
    beside = set(_beside_the_file(release.engine.args))
    return {
        # A hook reaches one process. With data parallelism vLLM would take several by itself.
        "api-server-count": "1",
        # For an end that no hook came before: a probe that fails, a request that outlives its time.
        "shutdown-timeout": str(release.rollout.drain_seconds),
        **dict(_option(argument) for argument in release.engine.args if argument not in beside),
    }


def name(release: Release) -> str:
    """Name of the ConfigMap."""
    content = "\0".join(_files(release).values())
    return f"{release.model}-engine-{hashlib.sha256(content.encode()).hexdigest()[:10]}"


def config_map(release: Release, settings: Settings) -> Manifest:
    """The files. They are of no single release: two with the same options have the same."""
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
    """Where the engine has the files."""
    return mount(VOLUME, _folder(release), read_only=True)


def _folder(release: Release) -> str:
    return f"{MOUNT}/{name(release)}"


def _files(release: Release) -> dict[str, str]:
    files = {FILE: yaml.safe_dump(options(release), sort_keys=False, width=10_000, allow_unicode=True)}
    if template := release.engine.chat_template:
        files[TEMPLATE_FILE] = template
    return files


def _beside_the_file(given: Iterable[str]) -> list[str]:
    """Arguments that a file would make something else of.

    A file has each flag once, without its negation, and a value that begins with a dash would be taken for a flag.
    `--flag.key+=value` adds to what `--flag.key=value` sets, so that the order of the two counts.
    """
    arguments = tuple(given)
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
