"""The check `drift`: report every field of the cluster's objects that differs from the release."""

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
from llmops.rollout.ops.companions import companions_of

REPLICAS: Path = ("f:spec", "f:replicas")
POD: Path = ("f:spec", "f:template", "f:spec")
IMAGE: Path = ("f:spec", "f:containers", f'k:{{"name":"{names.ENGINE_CONTAINER}"}}', "f:image")
SELECTOR: Path = ("f:spec", "f:selector")
# `kubectl rollout restart` sets it: it does not change what pods run.
RESTARTED: Path = ("f:spec", "f:template", "f:metadata", "f:annotations", "f:kubectl.kubernetes.io/restartedAt")
CONTENT = ("f:spec", "f:data")
VALUE_LENGTH = 200
REMEDY = "Undo the change, or declare it in the model's entry in the catalog and roll that out."


@dataclass(frozen=True)
class Difference:
    """A field that differs from the release.

    Attributes:
        path: Path of the field.
        actual: Its value in the cluster; ABSENT if the field is gone.
        wanted: Its value in the release; ABSENT if the release does not set the field.
        by: The manager that changed it last; None if the API server does not know it.
    """

    path: Path
    actual: Any
    wanted: Any
    by: Owner | None

    @property
    def added(self) -> bool:
        """Whether another manager added a field that the release does not set."""
        return self.wanted is ABSENT


def check_drift(current: CurrentModel, release: Release) -> CheckResult:
    """Compare Deployment, Service, disruption budget, companions and pods with the release and the model's entry.

    For each object this dry-runs a forced apply, and compares the result with the live object: defaults and admission
    rules are then equal on both sides.
    """
    model, cluster = release.model, current.cluster
    main = cluster.get("Deployment", names.engine_name(model, "stable"))
    if main is not None and release_of(main) not in (None, release.id):
        message = f"Deployment {model} runs release {release_of(main)}, but the stable release is {release.id}"
        remedy = f"`llmops rollout {model}` undoes the unfinished promotion."
        return _result([Finding(subject="release", severity="error", message=message, remedy=remedy)], [])
    autoscaler = _autoscaler(current, model)
    replicas = scale(current.spec)
    surge = main is None or main["spec"].get("strategy", {}).get("rollingUpdate", {}).get("maxSurge") != 0
    findings: list[Finding] = []
    compared: list[str] = []
    engine = objects(release, current.settings, "stable", replicas, surge=surge)
    for wanted in [*engine, *companions_of(current.platform, current.spec, release)]:
        kind, name = wanted["kind"], wanted["metadata"]["name"]
        compared.append(f"{kind} {name}")
        live = _live(current, kind, name)
        if live is None:
            findings.append(_missing(kind, name, model))
            continue
        then = cluster.apply(wanted, force=True, dry_run=True)
        autoscaled = autoscaler or not isinstance(replicas, int)
        ignored = {REPLICAS} if autoscaled and kind == "Deployment" else set[Path]()
        findings += [finding(kind, name, difference) for difference in differences(live, then, ignored)]
    if main is not None:
        pods, replica_sets = (
            cluster.list(kind, labels=names.engine_selector(model, "stable")) for kind in ("Pod", "ReplicaSet")
        )
        findings += stray_pods(main, pods, replica_sets)
    return _result(
        findings, compared, f"; HorizontalPodAutoscaler {autoscaler} sets the replicas" if autoscaler else ""
    )


def differences(live: Mapping[str, Any], then: Mapping[str, Any], ignored: Iterable[Path] = ()) -> list[Difference]:
    """Fields that an apply of the release would change, and fields that others added.

    Args:
        live: The object in the cluster.
        then: The same object after a dry run of a forced apply.
        ignored: Fields that others may set.
    """
    ignored = {RESTARTED, *ignored}
    live_owners = owners(live)
    ours = {path for owner in owners(then) if is_apply(owner) for path in owner.paths} - ignored
    changed = [
        Difference(path, actual, wanted, _by(live_owners, path))
        for path in sorted(ours)
        if (actual := value_at(live, path)) != (wanted := value_at(then, path))
    ]
    added = [
        Difference(path, actual, ABSENT, _by(live_owners, path))
        for path in sorted(_added(live_owners, ours, ignored))
        if (actual := value_at(live, path)) is not ABSENT
    ]
    return changed + added


def is_apply(owner: Owner) -> bool:
    """Whether the owner is an apply by llmops."""
    return owner.manager == names.FIELD_MANAGER and owner.operation == "Apply" and not owner.subresource


def _added(live_owners: Iterable[Owner], ours: set[Path], ignored: set[Path]) -> set[Path]:
    """Paths that others added: of a new structure, the outermost field that contains nothing of ours."""
    inner = {path[:length] for path in ours for length in range(len(path) + 1)}
    added: set[Path] = set()
    for owner in live_owners:
        if is_apply(owner) or owner.subresource:
            continue
        for path in owner.paths:
            if path[0] not in CONTENT or path in ours or path in ignored:
                continue
            outer = next((path[:length] for length in range(1, len(path) + 1) if path[:length] not in inner), None)
            # Several managers may own the key fields of one list item.
            if outer is not None and not any(outer[: len(own)] == own for own in ours):
                added.add(outer)
    return added


def _by(live_owners: Iterable[Owner], path: Path) -> Owner | None:
    concerned = [owner for owner in live_owners if owner.concerns(path)]
    others = [owner for owner in concerned if not is_apply(owner)] or concerned
    return others[0] if others else None


def stray_pods(main: Object, pods: Iterable[Object], replica_sets: Iterable[Object]) -> list[Finding]:
    """Pods of a Deployment's Service that run something else than the Deployment.

    An admission rule may add containers, variables and wrappers to every pod. So this compares the template of the
    pod's ReplicaSet, and of the pod only the image, which alone can change later.

    Args:
        main: The Deployment.
        pods: The pods that its Service selects.
        replica_sets: ReplicaSets of the Deployment.
    """
    by_uid = {uid_of(replica_set): replica_set for replica_set in replica_sets}
    findings: list[Finding] = []
    for pod in pods:
        meta = pod["metadata"]
        name = meta["name"]
        if "deletionTimestamp" in meta or pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
            continue
        if not meta.get("ownerReferences"):
            message = f"pod {name} belongs to no Deployment, but its labels give it users' requests"
            findings.append(Finding(subject=f"pod {name}", severity="error", message=message, remedy="Delete it."))
            continue
        owner_uids = (reference.get("uid") for reference in meta["ownerReferences"])
        replica_set = next((by_uid[uid] for uid in owner_uids if uid in by_uid), None)
        remedy = f"Find out why it is not replaced: kubectl describe deployment {main['metadata']['name']}"
        messages = [] if replica_set is None else other_template(main, replica_set)
        if not messages and not _has_image(pod, main):
            by = _by(owners(pod), IMAGE)
            messages = [
                f"image {_text(engine_of(pod['spec']).get('image'))}{f' (set by {by})' if by else ''}; its Deployment "
                f"has {_text(engine_of(main['spec']['template']['spec']).get('image'))}"
            ]
            remedy = "Delete it: its ReplicaSet starts another."
        if messages:
            message = f"pod {name} runs {messages[0]}{_more(messages)}"
            findings.append(Finding(subject=f"pod {name}", severity="error", message=message, remedy=remedy))
    return findings


def other_template(main: Object, replica_set: Object) -> list[str]:
    """Parts of the engine that differ between the pod templates of a ReplicaSet and its Deployment, the image first.

    The API server has set the defaults in both.
    """
    actual, wanted = (_parts(owner["spec"]["template"]["spec"]) for owner in (replica_set, main))
    meta = replica_set["metadata"]
    return [
        f"{part} {_text(actual.get(part, ABSENT))} (by ReplicaSet {meta['name']} of {meta.get('creationTimestamp')}); "
        f"its Deployment has {_text(wanted.get(part, ABSENT))}"
        for part in sorted(actual.keys() | wanted.keys(), key=lambda part: (part != "image", part))
        if actual.get(part) != wanted.get(part)
    ]


def same_image(one: str, other: str) -> bool:
    """Whether two references name the same image: a digest is the same in every registry."""
    return one == other or ("@" in one and one.rpartition("@")[2] == other.rpartition("@")[2])


def _has_image(pod: Object, main: Object) -> bool:
    """Whether a pod's engine runs the Deployment's image.

    A digest in the pod's reference decides. Without one, the node's imageID can prove equality, but not a difference:
    it may be the digest of the image's configuration, or of one platform.
    """
    wanted, image = (str(engine_of(spec).get("image")) for spec in (main["spec"]["template"]["spec"], pod["spec"]))
    if "@" in image:
        return same_image(wanted, image)
    statuses: list[Object] = (pod.get("status") or {}).get("containerStatuses") or []
    image_ids = (str(status.get("imageID", "")) for status in statuses if status["name"] == names.ENGINE_CONTAINER)
    return image == wanted or any(same_image(wanted, image_id) for image_id in image_ids)


def _parts(spec: Object) -> dict[str, Any]:
    """The parts of a pod template that concern the engine, by name."""
    engine = engine_of(spec)
    mounted = {mount["name"] for mount in engine.get("volumeMounts") or ()}
    volumes: list[Object] = spec.get("volumes") or []
    init_containers: list[Object] = spec.get("initContainers") or []
    return (
        {key: value for key, value in engine.items() if key not in ("name", "env")}
        | {f"env[{variable['name']}]": variable for variable in engine.get("env") or ()}
        | {f"volume {volume['name']}": volume for volume in volumes if volume["name"] in mounted}
        | {
            f"init container {container['name']}": container
            for container in init_containers
            if container["name"] in names.WEIGHTS_CONTAINERS
        }
    )


def engine_of(spec: Object) -> dict[str, Any]:
    """The engine's container in a pod's spec; empty if there is none."""
    containers: list[dict[str, Any]] = spec["containers"]
    return next((container for container in containers if container["name"] == names.ENGINE_CONTAINER), {})


def _autoscaler(current: CurrentModel, model: str) -> str | None:
    """Name of the HorizontalPodAutoscaler that scales the main Deployment; None if there is none."""
    target = ("Deployment", names.engine_name(model, "stable"))
    for autoscaler in current.cluster.list("HorizontalPodAutoscaler"):
        reference = autoscaler["spec"]["scaleTargetRef"]
        if (reference["kind"], reference["name"]) == target:
            return str(autoscaler["metadata"]["name"])
    return None


def _live(current: CurrentModel, kind: str, name: str) -> dict[str, Any] | None:
    try:
        return current.cluster.get(kind, name)
    except NotFound:
        # The cluster no longer has the kind.
        return None


def _missing(kind: str, name: str, model: str) -> Finding:
    return Finding(
        subject=f"{kind} {name}",
        severity="error" if kind in ("Deployment", "Service", "ConfigMap") else "warning",
        message=f"{kind} {name} is gone",
        remedy=f"`llmops revalidate {model} --restore` applies the release's objects again.",
    )


def finding(kind: str, name: str, difference: Difference) -> Finding:
    """The finding on a difference of an object."""
    path, actual = difference.path, difference.actual
    serious = path[: len(POD)] == POD or path[: len(SELECTOR)] == SELECTOR or (path == REPLICAS and actual == 0)
    author = f"changed by {difference.by}" if difference.by else "author unknown"
    wanted = "the release does not set it" if difference.added else f"wanted {_text(difference.wanted)}"
    return Finding(
        subject=f"{kind} {name} {shown(path)}",
        severity="error" if serious else "warning",
        message=f"{kind} {name}: {shown(path)} is {_text(actual)}, {wanted} ({author})",
        remedy=REMEDY,
    )


def _text(value: Any) -> str:
    text = repr(value) if value is ABSENT else json.dumps(value, sort_keys=True)
    return text if len(text) <= VALUE_LENGTH else f"{text[: VALUE_LENGTH - 1]}…"


def _more(messages: Sized) -> str:
    return f", and {len(messages) - 1} more" if len(messages) > 1 else ""


def _result(findings: list[Finding], compared: list[str], note: str = "") -> CheckResult:
    if not findings:
        return CheckResult(check="drift", value="Passed", line=f"{', '.join(compared)} match the release{note}")
    line = findings[0].message + _more(findings)
    return CheckResult(check="drift", value="Failed", line=line, findings=tuple(findings))
