"""What the catalog may name: who writes it has what the pipeline's account has, within these lists."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

from pydantic import Field

from llmops.config.schema import Strict

Names = tuple[str, ...] | None
DOCKER_HUB = "docker.io"


class Allowed(Strict):
    """Lists of what entries, suites and tenants may name. `*` stands for any text; without a list, all may be named."""

    secrets: Names = Field(default=None, description="Secrets of the engines' namespace.")
    hosts: Names = Field(
        default=None,
        description="Hosts of APIs that prompts, keys or users' requests are sent to; for a provider's usual host, its "
        "name at LiteLLM, such as fireworks_ai.",
    )
    images: Names = Field(default=None, description="Image repositories with their registry, such as ghcr.io/acme/*.")

    def secret(self, name: str) -> Iterator[str]:
        """The problem with a Secret, if there is one."""
        yield from _problem("Secret", name, self.secrets, "secrets")

    def url(self, url: str) -> Iterator[str]:
        """The problem with the URL of an API, if there is one."""
        try:
            host = urlsplit(url).hostname or url
        except ValueError:
            host = url
        yield from _problem("host", host, self.hosts, "hosts")

    def provider(self, model: str) -> Iterator[str]:
        """The problem with LiteLLM's name of a provider's model, if there is one."""
        yield from _problem("provider", model.partition("/")[0], self.hosts, "hosts")

    def image(self, repository: str) -> Iterator[str]:
        """The problem with an image's repository, with or without tag and digest, if there is one."""
        yield from _problem("image repository", _full_name(repository), _full_names(self.images), "images")


def _problem(kind: str, name: str, allowed: Iterable[str] | None, field: str) -> Iterator[str]:
    if allowed is None:
        return
    listed = tuple(allowed)
    if not any(fnmatchcase(name, pattern) for pattern in listed):
        told = ", ".join(listed) or "none"
        yield f"names the {kind} {name}, which catalog_allows.{field} in the settings does not list ({told})"


def _full_names(patterns: Names) -> Names:
    """Patterns of repositories with their registry."""
    return None if patterns is None else tuple(map(_full_name, patterns))


def _full_name(repository: str) -> str:
    """A repository as the runtime reads it: without a registry it is at Docker Hub."""
    name = repository.partition("@")[0]
    path, _, last = name.rpartition("/")
    last = last.partition(":")[0]
    name = f"{path}/{last}" if path else last
    host, slash, _ = name.partition("/")
    if not slash:
        return f"{DOCKER_HUB}/library/{name}"
    # The rule of distribution/reference: a first part without a dot, a port or upper case is no host.
    is_host = "." in host or ":" in host or "*" in host or host == "localhost" or host != host.lower()
    return name if is_host else f"{DOCKER_HUB}/{name}"
