"""Names of images, parsed as container runtimes parse them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from llmops.errors import BadInput

DOCKER_HUB = "docker.io"
_COMPONENT = re.compile(r"^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$")
_HOST = re.compile(r"^[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?(?::\d+)?$")


@dataclass(frozen=True)
class ImageName:
    """An image repository: registry host and repository, without tag and digest."""

    registry: str
    repository: str

    @classmethod
    def parse(cls, text: str) -> ImageName:
        """Parse `vllm/vllm-openai`, `ghcr.io/x/y` or `localhost:5000/x`.

        The first part is a host if it has a dot or a colon or is `localhost`. Without a host the registry is Docker
        Hub, where a name of one part is in `library`.

        Raises:
            BadInput: The text is not such a name, or has a tag or a digest.
        """
        head, slash, rest = text.partition("/")
        if slash and ("." in head or ":" in head or head == "localhost"):
            registry, repository = head, rest
        else:
            registry, repository = DOCKER_HUB, text
        if registry == "index.docker.io":
            registry = DOCKER_HUB
        if registry == DOCKER_HUB and "/" not in repository:
            repository = f"library/{repository}"
        if "@" in repository or ":" in repository:
            raise BadInput(
                f"Image {text!r} has a tag or a digest: expected the repository alone.",
                code="ImageHasVersion",
                about=text,
                remedy="Put the version into engine.version.",
            )
        if not _HOST.match(registry) or not all(map(_COMPONENT.match, repository.split("/"))):
            raise BadInput(
                f"Image {text!r} is not an image repository.",
                code="InvalidImageName",
                about=text,
                remedy="Write [HOST/]NAME, such as vllm/vllm-openai or ghcr.io/owner/name, in lower case.",
            )
        return cls(registry, repository)

    def __str__(self) -> str:
        return f"{self.registry}/{self.repository}"
