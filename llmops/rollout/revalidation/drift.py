"""The check `drift`: whether the cluster runs what the release says. What differs is named, and left as it is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sized
from dataclasses import dataclass
from typing import Any

from llmops.clients.kubernetes.ownership import ABSENT, Owner, Path, owners, shown, value_at
from llmops.clients.kubernetes.problems import NotFound
from llmops.clients.kubernetes.watch import Object, uid_of
from llmops.config import names
from llmops.manifests.companions.autoscaling import scale
from llmops.manifests.engine import objects
from llmops.releases.release import Release
from llmops.releases.validations import CheckResult, Finding
from llmops.rollout.current import CurrentModel
from llmops.rollout.ops.cleanup import release_of
from llmops.rollout.ops.companions import surroundings

REPLICAS: Path = ("f:spec", "f:replicas")
POD: Path = ("f:spec", "f:template", "f:spec")
IMAGE: Path = ("f:spec", "f:containers", f'k:{{"name":"{names.ENGINE_CONTAINER}"}}', "f:image")
SELECTOR: Path = ("f:spec", "f:selector")
# Says when pods were last restarted by hand, and nothing of what they do.
RESTARTED: Path = ("f:spec", "f:template", "f:metadata", "f:annotations", "f:kubectl.kubernetes.io/restartedAt")
CONTENT = ("f:spec", "f:data")
VALUE_LENGTH = 200
REMEDY = "Take the change back, or declare it in the model's entry in the catalog and roll that out."


@dataclass(frozen=True)
class Difference:
    """A field that is not as the release has it.

    Attributes:
        path: Which.
        found: Its value; ABSENT if it is gone.
        wanted: The value that the release gives it; ABSENT for a field that it doesn't have.
        by: Who changed it last, as the API server knows it; None if it doesn't.
    """

    path: Path
    found: Any
    wanted: Any
    by: Owner | None

    @property
    def added(self) -> bool:
        """Whether somebody else has put it there, beside what the release has."""
        return self.wanted is ABSENT


def check_drift(current: CurrentModel, release: Release) -> CheckResult:
    """Compare Deployment, Service and disruption budget, the pods behind them and what stands around them.

    What it has to be is what the release and the model's entry say.

    Each object is applied as a dry run, taking over every field: what the API server would then have is compared
    with what it has. Defaults and admission rules are the same on both sides so.
    """
    model, cluster = release.model, current.cluster
    main = cluster.get("Deployment", names.engine_name(model, "stable"))
    if main is not None and release_of(main) not in (None, release.id):
        left = f"Deployment {model} is at release {release_of(main)}, but {release.id} is the one that was promoted"
        remedy = f"`llmops rollout {model}` undoes a promotion that was left half-way."
        return _result([Finding(subject="release", severity="error", message=left, remedy=remedy)], [])
    scaled = _autoscaler(current, model)
    replicas = scale(current.spec)
    surge = main is None or main["spec"].get("strategy", {}).get("rollingUpdate", {}).get("maxSurge") != 0
    found: list[Finding] = []
    compared: list[str] = []
    engine = objects(release, current.settings, "stable", replicas, surge=surge)
    for wanted in [*engine, *surroundings(current.platform, current.spec, release)]:
        kind, name = wanted["kind"], wanted["metadata"]["name"]
        compared.append(f"{kind} {name}")
        live = _live(current, kind, name)
        if live is None:
            found.append(_missing(kind, name, model))
            continue
        then = cluster.apply(wanted, force=True, dry_run=True)
        autoscaled = scaled or not isinstance(replicas, int)
        ignored = {REPLICAS} if autoscaled and kind == "Deployment" else set[Path]()
        found += [finding(kind, name, each) for each in differences(live, then, ignored)]
    if main is not None:
        pods, sets = (
            cluster.list(kind, labels=names.engine_selector(model, "stable")) for kind in ("Pod", "ReplicaSet")
        )
        found += stray_pods(main, pods, sets)
    return _result(found, compared, f"; replicas are those of HorizontalPodAutoscaler {scaled}" if scaled else "")


def differences(live: Mapping[str, Any], then: Mapping[str, Any], ignored: Iterable[Path] = ()) -> list[Difference]:
    """What differs between an object and what applying the release's would make of it.

    Args:
        live: As the cluster has it.
        then: As it would have it after llmops had applied it and taken over every field of its own.
        ignored: Fields that somebody else is meant to set.
    """
    passed_over = {RESTARTED, *ignored}
    known = owners(live)
    ours = {path for owner in owners(then) if is_apply(owner) for path in owner.paths} - passed_over
    found = [
        Difference(path, now, wanted, _by(known, path))
        for path in sorted(ours)
        if (now := value_at(live, path)) != (wanted := value_at(then, path))
    ]
    added = [
        Difference(path, now, ABSENT, _by(known, path))
        for path in sorted(_foreign(known, ours, passed_over))
        if (now := value_at(live, path)) is not ABSENT
    ]
    return found + added


def is_apply(owner: Owner) -> bool:
    """Whether it is what llmops applied."""
    return owner.manager == names.FIELD_MANAGER and owner.operation == "Apply" and not owner.subresource


def _foreign(known: Iterable[Owner], ours: set[Path], passed_over: set[Path]) -> set[Path]:
    """What others have added beside what the release has: the outermost field of each that is all theirs."""
    inner = {path[:length] for path in ours for length in range(len(path) + 1)}
    found: set[Path] = set()
    for owner in known:
        if is_apply(owner) or owner.subresource:
            continue
        for path in owner.paths:
            if path[0] not in CONTENT or path in ours or path in passed_over:
                continue
            # An item of a list is told by its keys, which more than one may set.
            outer = next((path[:length] for length in range(1, len(path) + 1) if path[:length] not in inner), None)
            if outer is not None and not any(outer[: len(own)] == own for own in ours):
                found.add(outer)
    return found


def _by(known: Iterable[Owner], path: Path) -> Owner | None:
    concerned = [owner for owner in known if owner.concerns(path)]
    others = [owner for owner in concerned if not is_apply(owner)] or concerned
    return others[0] if others else None


def stray_pods(main: Object, pods: Iterable[Object], sets: Iterable[Object]) -> list[Finding]:
    """Pods behind a Deployment's Service that run something else than the Deployment says.

    A pod is judged by the template of its ReplicaSet: an admission rule may put containers, variables and wrappers
    into every pod. Its image alone can be changed later, and is judged in the pod itself.

    Args:
        main: The Deployment.
        pods: Those that its Service selects.
        sets: ReplicaSets of the Deployment.
    """
    templates = {uid_of(each): each for each in sets}
    found: list[Finding] = []
    for pod in pods:
        meta = pod["metadata"]
        name = meta["name"]
        if "deletionTimestamp" in meta or pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
            continue
        if not meta.get("ownerReferences"):
            message = f"pod {name} is of no Deployment, and gets users' requests by its labels"
            found.append(Finding(subject=f"pod {name}", severity="error", message=message, remedy="Delete it."))
            continue
        own = next((templates[uid] for each in meta["ownerReferences"] if (uid := each.get("uid")) in templates), None)
        remedy = f"See why it is not replaced: kubectl describe deployment {main['metadata']['name']}"
        messages = [] if own is None else other_template(main, own)
        if not messages and not _has_image(pod, main):
            by = _by(owners(pod), IMAGE)
            messages = [
                f"image {_text(_engine(pod['spec']).get('image'))}{f' (set by {by})' if by else ''}; its Deployment "
                f"has {_text(_engine(main['spec']['template']['spec']).get('image'))}"
            ]
            remedy = "Delete it: its ReplicaSet starts another."
        if messages:
            message = f"pod {name} runs {messages[0]}{_more(messages)}"
            found.append(Finding(subject=f"pod {name}", severity="error", message=message, remedy=remedy))
    return found


def other_template(main: Object, own: Object) -> list[str]:
    """What the engine is in the template of a ReplicaSet where its Deployment says something else, the image first.

    The API server has filled in the defaults of both.
    """
    now, wanted = (_parts(each["spec"]["template"]["spec"]) for each in (own, main))
    meta = own["metadata"]
    return [
        f"{part} {_text(now.get(part, ABSENT))} (by ReplicaSet {meta['name']} of {meta.get('creationTimestamp')}); its "
        f"Deployment has {_text(wanted.get(part, ABSENT))}"
        for part in sorted(now.keys() | wanted.keys(), key=lambda part: (part != "image", part))
        if now.get(part) != wanted.get(part)
    ]


def same_image(one: str, other: str) -> bool:
    """Whether two references are to the same content: a digest is the same in every registry."""
    return one == other or ("@" in one and one.rpartition("@")[2] == other.rpartition("@")[2])


def _has_image(pod: Object, main: Object) -> bool:
    """Whether a pod's engine is of the Deployment's image.

    The reference decides. Where it has no digest, what the node ran can still prove it, and disprove nothing: a node
    may tell the digest of the image's configuration, or of one platform.
    """
    wanted, image = (str(_engine(spec).get("image")) for spec in (main["spec"]["template"]["spec"], pod["spec"]))
    if "@" in image:
        return same_image(wanted, image)
    statuses: list[Object] = (pod.get("status") or {}).get("containerStatuses") or []
    ran = (str(each.get("imageID", "")) for each in statuses if each["name"] == names.ENGINE_CONTAINER)
    return image == wanted or any(same_image(wanted, each) for each in ran)


def _parts(spec: Object) -> dict[str, Any]:
    """What of a pod's template makes the engine what it is."""
    engine = _engine(spec)
    mounted = {each["name"] for each in engine.get("volumeMounts") or ()}
    volumes: list[Object] = spec.get("volumes") or []
    before: list[Object] = spec.get("initContainers") or []
    return (
        {key: value for key, value in engine.items() if key not in ("name", "env")}
        | {f"env[{each['name']}]": each for each in engine.get("env") or ()}
        | {f"volume {each['name']}": each for each in volumes if each["name"] in mounted}
        | {f"init container {each['name']}": each for each in before if each["name"] in names.WEIGHTS_CONTAINERS}
    )


def _engine(spec: Object) -> dict[str, Any]:
    containers: list[dict[str, Any]] = spec["containers"]
    return next((each for each in containers if each["name"] == names.ENGINE_CONTAINER), {})


def _autoscaler(current: CurrentModel, model: str) -> str | None:
    """Name of the autoscaler that sets the replicas of the main Deployment, if there is one."""
    target = ("Deployment", names.engine_name(model, "stable"))
    for each in current.cluster.list("HorizontalPodAutoscaler"):
        reference = each["spec"]["scaleTargetRef"]
        if (reference["kind"], reference["name"]) == target:
            return str(each["metadata"]["name"])
    return None


def _live(current: CurrentModel, kind: str, name: str) -> dict[str, Any] | None:
    try:
        return current.cluster.get(kind, name)
    except NotFound:
        # Its very kind is gone from the cluster.
        return None


def _missing(kind: str, name: str, model: str) -> Finding:
    return Finding(
        subject=f"{kind} {name}",
        severity="error" if kind in ("Deployment", "Service", "ConfigMap") else "warning",
        message=f"{kind} {name} is gone",
        remedy=f"`llmops revalidate {model} --restore` puts the release's objects back.",
    )


def finding(kind: str, name: str, difference: Difference) -> Finding:
    """What people are told of a field of an object that is not as the release has it."""
    path, found = difference.path, difference.found
    grave = path[: len(POD)] == POD or path[: len(SELECTOR)] == SELECTOR or (path == REPLICAS and found == 0)
    who = f"changed by {difference.by}" if difference.by else "it is not known by whom"
    wanted = "is not of the release" if difference.added else f"wanted {_text(difference.wanted)}"
    return Finding(
        subject=f"{kind} {name} {shown(path)}",
        severity="error" if grave else "warning",
        message=f"{kind} {name}: {shown(path)} is {_text(found)}, {wanted} ({who})",
        remedy=REMEDY,
    )


def _text(value: Any) -> str:
    text = repr(value) if value is ABSENT else json.dumps(value, sort_keys=True)
    return text if len(text) <= VALUE_LENGTH else f"{text[: VALUE_LENGTH - 1]}…"


def _more(found: Sized) -> str:
    return f", and {len(found) - 1} more" if len(found) > 1 else ""


def _result(found: list[Finding], compared: list[str], note: str = "") -> CheckResult:
    if not found:
        return CheckResult(
            check="drift", value="Passed", line=f"{', '.join(compared)} are as the release has them{note}"
        )
    line = found[0].message + _more(found)
    return CheckResult(check="drift", value="Failed", line=line, findings=tuple(found))
