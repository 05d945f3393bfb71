"""Why a node has no image, by the words of its container runtime.

Only a registry that answers "no such manifest" speaks against the release. A mirror that lists an image and does not
deliver it, a full disk or a name that does not resolve are the cluster's: another node, or the same one later, has the
image. Unknown words say nothing about the release.

Words: containerd (core/remotes/docker: resolver.go, fetcher.go, errcode.go), CRI-O (containers/image:
docker_client.go), cri-dockerd, and the kubelet (pkg/kubelet/images).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from llmops.clients.kubernetes.diagnosis.fields import PodFields
from llmops.clients.kubernetes.diagnosis.finding import Diagnosis, Heals, Verdict
from llmops.errors import BadRelease, ClusterCannot

WAITING = (
    "InvalidImageName",
    "ErrImageNeverPull",
    "ErrImagePull",
    "ImagePullBackOff",
    "ImageInspectError",
    "RegistryUnavailable",
    "SignatureValidationFailed",
)
"""Reasons of a kubelet for a container that waits for its image (pkg/kubelet/images/types.go, cri-api errors.go)."""

_BACK_OFF = re.compile(r'^Back-off pulling image "[^"]*"(?:: \w+: )?')
_QUOTED = re.compile(r'"([^"]+)"')
_URL = re.compile(r"\bhttps?://[^\s\"]+")
_HTML = re.compile(r"<[^>]*>.*$", re.S)


@dataclass(frozen=True)
class _Trouble:
    words: re.Pattern[str]
    code: str
    heals: Heals
    verdict: Verdict
    remedy: str


def _trouble(words: str, code: str, heals: Heals, verdict: Verdict, remedy: str) -> _Trouble:
    return _Trouble(re.compile(words, re.I), code, heals, verdict, remedy)


_TROUBLES = (
    _trouble(
        r"toomanyrequests|429 Too Many|rate limit|pull QPS exceeded",
        "RegistryRateLimited",
        "maybe",
        ClusterCannot,
        "Wait until the registry's limit has passed, or pull with an account or through a mirror.",
    ),
    _trouble(
        r"no space left on device|disk quota exceeded|read-only file system|input/output error",
        "NodeDiskUnusable",
        "maybe",
        ClusterCannot,
        "Free the disk of the node, or cordon the node.",
    ),
    _trouble(
        r"unexpected media type|fetch content descriptor|content digest \S+ not found|content at X not found"
        r"|content store|unexpected commit digest|failed size validation|digest mismatch|did not match|unexpected EOF"
        r"|invalid checksum|unexpected end of JSON|invalid character|archive/tar|unexpected size",
        "ImageContentBroken",
        "maybe",
        ClusterCannot,
        "Check the registry or mirror that the nodes pull from: it has the image, and does not deliver its content.",
    ),
    _trouble(
        r"\b50[0-9] |\b50[0-9]$|status: 50\d|no such host|server misbehaving|i/o timeout|timed? ?out|deadline exceeded"
        r"|connection re(?:fused|set)|broken pipe|no route to host|network is unreachable|TLS handshake|x509:"
        r"|certificate|server gave HTTP response|\bEOF\b|request canceled|proxyconnect",
        "RegistryUnreachable",
        "maybe",
        ClusterCannot,
        "Check the network between the nodes and the registry.",
    ),
    # Registries answer "denied, does not exist or may require authorization" in both cases: do not blame the release.
    _trouble(
        r"unauthorized|authentication required|\bdenied\b|forbidden|no basic auth|insufficient_scope"
        r"|failed to fetch (?:oauth|anonymous) token|authorization failed|\b40[13]\b",
        "ImagePullDenied",
        "never",
        ClusterCannot,
        "Check the image's name, and that the namespace has a pull secret for its registry.",
    ),
    _trouble(
        r"(?:^|[\s:])X: not found$|failed to resolve (?:reference|image)(?: X)?(?:: X)?: not found$"
        r"|manifest (?:for X )?(?:is )?unknown"
        r"|unknown manifest|manifest (?:for )?(?:X )?not found|name unknown|repository name not known|No such image"
        r"|invalid reference|no match for platform|no matching manifest|no image found in (?:manifest list|image index)"
        r"|is no longer supported since containerd|unsupported manifest media type",
        "ImageNotFound",
        "never",
        BadRelease,
        "Correct engine.image or engine.version.",
    ),
)  # fmt: skip
_OF_REASON = {
    "InvalidImageName": _trouble(
        "", "InvalidImageName", "never", BadRelease, "Correct engine.image or engine.version."
    ),
    "ErrImageNeverPull": _trouble(
        "", "ImageNeverPulled", "never", ClusterCannot,
        "Find out what set imagePullPolicy to Never: llmops lets nodes pull what they lack.",
    ),
    "SignatureValidationFailed": _trouble(
        "", "ImageNotTrusted", "never", ClusterCannot,
        "Sign the image, or change the signature policy of the nodes.",
    ),
    "RegistryUnavailable": next(kind for kind in _TROUBLES if kind.code == "RegistryUnreachable"),
}  # fmt: skip
_UNKNOWN = _trouble(
    "", "ImagePullFailed", "maybe", ClusterCannot, "See the container runtime's log on the node, and its registry."
)


def no_image(pod: PodFields, container: str, reason: str, message: str) -> Diagnosis:
    """The diagnosis of a container that waits for its image.

    Args:
        pod: The pod.
        container: Name of the container.
        reason: The kubelet's reason, one of `WAITING`.
        message: The kubelet's message.
    """
    detail = message
    if not message or not _BACK_OFF.sub("", message):
        # An older kubelet tells the runtime's error in Events alone; "Error: ImagePullBackOff" is none.
        told = pod.told("Failed", "FailedToPull", container=container, begins="Failed to pull image")
        detail = told or message
    what = f"{pod.label}: container {container} has no image: {reason}: {detail}"
    trouble = _OF_REASON.get(reason) or _classify(detail, pod.images())
    return Diagnosis("image", trouble.code, trouble.heals, what, trouble.verdict, trouble.remedy, container)


def _classify(said: str, images: Iterable[str]) -> _Trouble:
    words = _without_names(said, images)
    return next((trouble for trouble in _TROUBLES if trouble.words.search(words)), _UNKNOWN)


def _without_names(said: str, images: Iterable[str]) -> str:
    """The words with X for each image and address, and without pages: an image may be called `denied/not-found:503`."""
    words = _HTML.sub("", _BACK_OFF.sub("", said))
    names = {*images, *_QUOTED.findall(words), *(url.rstrip(":,.") for url in _URL.findall(words))}
    # The longest first: one name may be the beginning of another.
    for name in sorted(filter(None, names), key=len, reverse=True):
        words = re.sub(rf'(?<![\w./@-])"?{re.escape(name)}"?(?![\w./@-])', "X", words)
    return " ".join(words.split())
