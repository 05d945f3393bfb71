"""Resolves a spec to a release: every policy becomes a pin.

Only the answers of hub and registry come from outside; equal answers give the same release on every machine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pydantic import ValidationError

from llmops.clients import hub as hub_client
from llmops.clients.hub import HubFile, Loading, documents_needed, require_config, select
from llmops.clients.registry import ImageName, PinnedImage, RegistryClient, resolve_image
from llmops.config.catalog.spec import Engine, EngineOptions, ModelSpec, Weights
from llmops.config.loading import dotted, explain
from llmops.config.vllm.command_line import dashed
from llmops.errors import BadInput
from llmops.releases.release import EnginePin, FilePin, ImagePin, Release, SuitePin, WeightsPin

COMMIT = re.compile(r"[0-9a-f]{40}")


class HubLike(Protocol):
    """The part of a hub that `resolve` needs."""

    def resolve(self, repo: str, revision: str) -> str:
        """The commit of a branch or tag."""
        ...

    def list_files(self, repo: str, commit: str) -> Sequence[HubFile]:
        """All files of a commit, with size and hash."""
        ...

    def check_access(self, repo: str) -> None:
        """Raise if the repository's files are listed but cannot be downloaded."""
        ...

    def read_documents(self, repo: str, commit: str, files: Sequence[HubFile]) -> Mapping[str, object] | None:
        """Content of JSON files of a commit, by path; None where no content can be read."""
        ...


@dataclass(frozen=True)
class Hub:
    """The hub at an endpoint, with one model's token."""

    endpoint: str
    token: str | None = None

    def resolve(self, repo: str, revision: str) -> str:
        """See `llmops.clients.hub.resolve`."""
        return hub_client.resolve(repo, revision, endpoint=self.endpoint, token=self.token)

    def list_files(self, repo: str, commit: str) -> Sequence[HubFile]:
        """See `llmops.clients.hub.list_files`."""
        return hub_client.list_files(repo, commit, endpoint=self.endpoint, token=self.token)

    def check_access(self, repo: str) -> None:
        """See `llmops.clients.hub.check_access`."""
        hub_client.check_access(repo, endpoint=self.endpoint, token=self.token)

    def read_documents(self, repo: str, commit: str, files: Sequence[HubFile]) -> Mapping[str, object]:
        """See `llmops.clients.hub.read_documents`."""
        return hub_client.read_documents(repo, commit, files, endpoint=self.endpoint, token=self.token)


def resolve(
    spec: ModelSpec,
    *,
    hub: HubLike,
    registry: RegistryClient,
    suites: Mapping[str, str],
    engine_version: str | None = None,
    image: PinnedImage | None = None,
    revision: str | None = None,
) -> Release:
    """Pin a spec.

    Args:
        spec: The model's entry.
        hub: Resolves the weights.
        registry: Resolves the image.
        suites: SHA-256 of each existing suite, by its name.
        engine_version: This version (or range) instead of the spec's policy.
        image: Exactly this image; the registry is not asked.
        revision: This branch, tag or commit instead of the spec's.

    Raises:
        BadInput: The hub has no such repository or revision or gives no access, the registry refuses, or a suite does
            not exist.
        BadRelease: The commit has no weights that an engine may load, or no image has an allowed version.
        Unavailable: The hub or the registry does not answer.
    """
    if unknown := [name for name in spec.evaluation.suites if name not in suites]:
        raise BadInput(
            f"{spec.name}: evaluation.suites names {', '.join(unknown)}, but no such suite exists.",
            code="NoSuchSuite",
            about=f"suite {unknown[0]}",
            remedy=f"Take one of {', '.join(sorted(suites)) or 'none'}, or add it to the evals folder.",
        )
    engine = spec.engine if engine_version is None else _at_version(spec.engine, engine_version)
    pinned = _pin_engine(engine, image or _find_image(engine, registry))
    weights = _pin_weights(spec.weights, revision or spec.weights.revision, hub, Loading.of(pinned.args))
    return Release(
        model=spec.name,
        weights=weights.model_copy(update={"image": _pin_weights_image(spec.weights, pinned, registry)}),
        engine=pinned,
        gpu=spec.gpu,
        resources=spec.resources,
        evaluation=spec.evaluation,
        suites=tuple(SuitePin(name=name, sha256=suites[name]) for name in spec.evaluation.suites),
        rollout=spec.rollout,
        access=spec.access,
        traffic=spec.traffic,
    )


def render_arguments(options: EngineOptions, further: Sequence[str]) -> tuple[str, ...]:
    """The engine's arguments as one canonical list: `--flag` or `--flag=value`, sorted by flag.

    Arguments of the same flag keep their order: the last may win, or all may count.
    """
    rendered = [_render(name, value) for name, value in options.model_dump().items()]
    own = [argument for argument in rendered if argument]
    canonical = [dashed(argument) for argument in further]
    return tuple(sorted([*own, *canonical], key=_flag))


def _at_version(engine: Engine, version: str) -> Engine:
    try:
        return Engine.model_validate(engine.model_dump() | {"version": version})
    except ValidationError as error:
        problems = [f"engine.{dotted(place)} {problem}" for place, problem in explain(error, Engine)]
        raise BadInput(
            f"engine version {version!r} does not do: {'; '.join(problems)}.",
            code="BadVersion",
            about=version,
            remedy="Give a version (0.32.0) or a range (>=0.31,<0.40) that takes the entry's arguments.",
        ) from error


def _pin_weights(weights: Weights, revision: str, hub: HubLike, loading: Loading) -> WeightsPin:
    commit = revision if COMMIT.fullmatch(revision) else hub.resolve(weights.repo, revision)
    listing = hub.list_files(weights.repo, commit)
    if weights.strategy != "image":
        hub.check_access(weights.repo)
    needed = documents_needed(listing, weights.include, weights.exclude, loading)
    documents = hub.read_documents(weights.repo, commit, needed)
    files = select(
        listing, weights.include, weights.exclude, weights.allow_pickle, loading=loading, documents=documents
    )
    require_config(files, loading)
    return WeightsPin(
        repo=weights.repo,
        commit=commit,
        files=tuple(
            FilePin(path=file.path, size=file.size, sha256=file.sha256, git_sha1=file.git_sha1) for file in files
        ),
        token=weights.token,
        strategy=weights.strategy,
    )


def _pin_weights_image(weights: Weights, engine: EnginePin, registry: RegistryClient) -> ImagePin | None:
    if (image := weights.image) is None:
        return None
    if image.tag is None:
        return ImagePin(repository=engine.image, tag=engine.tag, digest=engine.digest, path=image.path)
    digest = registry.find(ImageName.parse(image.repository), image.tag)
    if digest is None:
        raise BadInput(
            f"The registry has no image {image.repository}:{image.tag}; weights.image names it.",
            code="ImageNotFound",
            about=f"{image.repository}:{image.tag}",
            remedy="Correct weights.image, or push the image.",
        )
    return ImagePin(repository=image.repository, tag=image.tag, digest=digest, path=image.path)


def _find_image(engine: Engine, registry: RegistryClient) -> PinnedImage:
    return resolve_image(registry, engine.image, engine.version, engine.variant, engine.prereleases)


def _pin_engine(engine: Engine, image: PinnedImage) -> EnginePin:
    return EnginePin(
        image=engine.image,
        tag=image.tag,
        digest=image.digest,
        args=render_arguments(engine.options, engine.args),
        env=tuple(sorted(engine.env.items())),
        user=engine.user,
        chat_template=engine.chat_template,
    )


def _render(name: str, value: object) -> str:
    flag = f"--{name.replace('_', '-')}"
    if value is None or value is False:
        return ""
    return flag if value is True else f"{flag}={value}"


def _flag(argument: str) -> str:
    return argument.split("=", 1)[0]
