"""The shared volume with the weights: that pods of many nodes can have it at once, and room for another release."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from llmops.clients.kubernetes.quantity import quantity
from llmops.config.names import SHARED_ANNOTATION
from llmops.preflight.checks.case import Case, Check, amount, some
from llmops.preflight.finding import Finding
from llmops.preflight.snapshot import Object, Snapshot

DEFAULT_CLASS_ANNOTATION = "storageclass.kubernetes.io/is-default-class"
SHARED = "ReadWriteMany"

# What drivers can do, by kubernetes-csi.github.io/docs/drivers.html ("Supported Access Modes"), and for those that are
# not in that table by their own documentation. True: ReadWriteMany as a file system.
PROVISIONERS: Mapping[str, bool] = {
    # Block storage: one node at a time.
    "ebs.csi.aws.com": False,
    "kubernetes.io/aws-ebs": False,
    "pd.csi.storage.gke.io": False,
    "kubernetes.io/gce-pd": False,
    "disk.csi.azure.com": False,
    "kubernetes.io/azure-disk": False,
    "rbd.csi.ceph.com": False,
    "rook-ceph.rbd.csi.ceph.com": False,
    "csi.hetzner.cloud": False,
    "dobs.csi.digitalocean.com": False,
    "linodebs.csi.linode.com": False,
    "vpc.block.csi.ibm.io": False,
    "rancher.io/local-path": False,
    "topolvm.io": False,
    # Shared file systems.
    "efs.csi.aws.com": True,
    "fsx.csi.aws.com": True,
    "filestore.csi.storage.gke.io": True,
    "file.csi.azure.com": True,
    "kubernetes.io/azure-file": True,
    "cephfs.csi.ceph.com": True,
    "rook-ceph.cephfs.csi.ceph.com": True,
    "nfs.csi.k8s.io": True,
    "cluster.local/nfs-subdir-external-provisioner": True,
    "k8s-sigs.io/nfs-subdir-external-provisioner": True,
    "spectrumscale.csi.ibm.com": True,
    "beegfs.csi.netapp.com": True,
}
RWX_REMEDY = "use EFS, Filestore, Azure Files, NFS or CephFS"


def _claim(snapshot: Snapshot) -> Iterator[Finding]:
    """Whether the claim, or the class that it is to be made in, is for pods of many nodes."""
    subject, claim = _subject(snapshot), snapshot.claim
    if claim is None:
        yield _new_volume(subject, snapshot)
        return
    phase = (claim.get("status") or {}).get("phase", "Pending")
    modes = claim["spec"].get("accessModes") or []
    if phase == "Lost":
        yield Finding("error", subject, "has lost its volume", "Restore the volume, or delete the claim.")
    elif SHARED not in modes:
        yield Finding(
            "error",
            subject,
            f"is {', '.join(modes)}: pods on several nodes can't use it at once",
            f"Name a claim with {SHARED} (NFS, CephFS, EFS, Filestore) as claim in the settings.",
        )
    elif phase == "Pending":
        yield _pending(subject, claim, snapshot)
    else:
        yield Finding("ok", subject, f"is {phase}, {', '.join(modes)}")


def _pending(subject: str, claim: Object, snapshot: Snapshot) -> Finding:
    named = claim["spec"].get("storageClassName")
    found = _class(snapshot, named)
    if found is not None and _shares(found) is False:
        return _not_shared(subject, "is Pending", found)
    if found is not None and found.get("volumeBindingMode") == "WaitForFirstConsumer":
        return Finding("ok", subject, f"is Pending until its first pod; storage class {named} waits for it")
    return Finding(
        "warning",
        subject,
        f"is Pending: no volume is bound to it (storage class {named or 'none'})",
        "See its events: kubectl describe persistentvolumeclaim.",
    )


def _new_volume(subject: str, snapshot: Snapshot) -> Finding:
    named = snapshot.settings.storage_class
    classes = sorted(str(each["metadata"]["name"]) for each in snapshot.storage_classes)
    found = _class(snapshot, named)
    if found is None and named is not None:
        return Finding(
            "error",
            subject,
            f"is not there, and neither is storage class {named}",
            f"Correct storage_class in the settings; there is {some(classes) or 'none'}.",
        )
    if found is None:
        return Finding(
            "warning",
            subject,
            "is not there, and no storage class is the default: a claim waits until a volume is made for it",
            "Name storage_class in the settings, or make a PersistentVolume.",
        )
    state = f"will be made in storage class {found['metadata']['name']}"
    match _shares(found):
        case True:
            return Finding("ok", subject, state)
        case False:
            return _not_shared(subject, state, found)
        case None:
            name = found["metadata"]["name"]
            return Finding(
                "warning",
                subject,
                f"{state} by {found['provisioner']}, of which it is not known here whether it can do {SHARED}",
                f"If it can: kubectl annotate storageclass {name} {SHARED_ANNOTATION}=true; if not, {RWX_REMEDY}.",
            )


def _shares(storage_class: Object) -> bool | None:
    """Whether its volumes can be ReadWriteMany; None where nobody knows."""
    told = (storage_class["metadata"].get("annotations") or {}).get(SHARED_ANNOTATION)
    return told == "true" if told else PROVISIONERS.get(storage_class["provisioner"])


def _not_shared(subject: str, state: str, found: Object) -> Finding:
    return Finding(
        "error",
        subject,
        f"{state}, storage class {found['metadata']['name']} is of {found['provisioner']}, "
        f"which can't do {SHARED}: a volume of it is for one node",
        f"Name a storage class that can as storage_class in the settings: {RWX_REMEDY}.",
    )


def _class(snapshot: Snapshot, name: str | None) -> Object | None:
    """The storage class of a name; without one the default."""
    for each in snapshot.storage_classes:
        annotations = each["metadata"].get("annotations") or {}
        if each["metadata"]["name"] == name or (name is None and annotations.get(DEFAULT_CLASS_ANNOTATION) == "true"):
            return each
    return None


def _room(case: Case) -> Iterator[Finding]:
    """Whether the release's weights go on the volume, beside those that are kept."""
    if case.release is None:
        return
    subject, snapshot = f"room on {_subject(case.snapshot)}", case.snapshot
    storage = snapshot.settings.storage
    if snapshot.claim is not None:
        asked = snapshot.claim["spec"]["resources"]["requests"]
        storage = str(((snapshot.claim.get("status") or {}).get("capacity") or asked)["storage"])
    size, capacity = case.release.weights.size, float(quantity(storage))
    # Stable's, the one before, those kept beside them, and the new one.
    kept = case.spec.rollout.keep_weights + 3
    message = f"{storage}; the weights are {amount(size)}"
    if size > capacity:
        yield Finding("error", subject, message, "Enlarge the claim (spec.resources.requests.storage).")
    elif size * 2 > capacity:
        yield Finding("warning", subject, f"{message}: no room for the next release beside them", "Enlarge the claim.")
    elif size * kept > capacity:
        remedy = "Enlarge the claim, or lower rollout.keep_weights."
        told = f"{message}: {kept} releases of them (rollout.keep_weights {case.spec.rollout.keep_weights})"
        yield Finding("warning", subject, f"{told} do not go on it", remedy)
    else:
        yield Finding("ok", subject, message)


def _subject(snapshot: Snapshot) -> str:
    return f"volume {snapshot.settings.claim}"


SHARED_CHECK = "volume.shared"
CHECKS = (Check(SHARED_CHECK, "volume", ("claim", "storage_classes"), _claim),)
MODEL_CHECKS = (
    Check[Case](
        "volume.room", "room on the volume", ("claim",), _room, used=lambda case: case.spec.weights.strategy == "volume"
    ),
)
