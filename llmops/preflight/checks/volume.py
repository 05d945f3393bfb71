"""Whether pods on many nodes can share the weights' volume, and it has room for another release."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from llmops.clients.kubernetes.quantity import quantity
from llmops.config.names import SHARED_ANNOTATION
from llmops.preflight.checks.case import Case, Check, amount, names_of
from llmops.preflight.finding import Finding
from llmops.preflight.snapshot import Object, Snapshot

DEFAULT_CLASS_ANNOTATION = "storageclass.kubernetes.io/is-default-class"
SHARED = "ReadWriteMany"

# By kubernetes-csi.github.io/docs/drivers.html ("Supported Access Modes"), and for drivers outside that table by their
# own documentation. True: ReadWriteMany as a file system.
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
    """Whether the claim, or the storage class that it will have, allows pods on many nodes."""
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
            f"is {', '.join(modes)}: pods on several nodes cannot share it",
            f"Set claim in the settings to a claim with {SHARED} (NFS, CephFS, EFS, Filestore).",
        )
    elif phase == "Pending":
        yield _pending(subject, claim, snapshot)
    else:
        yield Finding("ok", subject, f"is {phase}, {', '.join(modes)}")


def _pending(subject: str, claim: Object, snapshot: Snapshot) -> Finding:
    class_name = claim["spec"].get("storageClassName")
    storage_class = _class(snapshot, class_name)
    if storage_class is not None and _shares(storage_class) is False:
        return _not_shared(subject, "is Pending", storage_class)
    if storage_class is not None and storage_class.get("volumeBindingMode") == "WaitForFirstConsumer":
        return Finding("ok", subject, f"is Pending: storage class {class_name} binds it to its first pod")
    return Finding(
        "warning",
        subject,
        f"is Pending: no volume is bound to it (storage class {class_name or 'none'})",
        "See its events: kubectl describe persistentvolumeclaim.",
    )


def _new_volume(subject: str, snapshot: Snapshot) -> Finding:
    class_name = snapshot.settings.storage_class
    storage_class = _class(snapshot, class_name)
    if storage_class is None and class_name is not None:
        return Finding(
            "error",
            subject,
            f"does not exist, and neither does storage class {class_name}",
            f"Correct storage_class in the settings: the cluster has {names_of(snapshot.storage_classes)}.",
        )
    if storage_class is None:
        return Finding(
            "warning",
            subject,
            "does not exist, and the cluster has no default storage class: a new claim stays Pending",
            "Set storage_class in the settings, or create a PersistentVolume.",
        )
    name = storage_class["metadata"]["name"]
    state = f"will be created in storage class {name}"
    match _shares(storage_class):
        case True:
            return Finding("ok", subject, state)
        case False:
            return _not_shared(subject, state, storage_class)
        case None:
            return Finding(
                "warning",
                subject,
                f"{state} of {storage_class['provisioner']}; llmops does not know whether that supports {SHARED}",
                f"If it does: kubectl annotate storageclass {name} {SHARED_ANNOTATION}=true; if not, {RWX_REMEDY}.",
            )


def _shares(storage_class: Object) -> bool | None:
    """Whether its volumes can be ReadWriteMany; None if unknown."""
    annotation = (storage_class["metadata"].get("annotations") or {}).get(SHARED_ANNOTATION)
    return annotation == "true" if annotation else PROVISIONERS.get(storage_class["provisioner"])


def _not_shared(subject: str, state: str, storage_class: Object) -> Finding:
    return Finding(
        "error",
        subject,
        f"{state}; {storage_class['provisioner']} of storage class {storage_class['metadata']['name']} does not "
        f"support {SHARED}: one node at a time",
        f"Set storage_class in the settings to a class with {SHARED}: {RWX_REMEDY}.",
    )


def _class(snapshot: Snapshot, name: str | None) -> Object | None:
    """The storage class of that name; without a name, the default."""
    for storage_class in snapshot.storage_classes:
        metadata = storage_class["metadata"]
        default = (metadata.get("annotations") or {}).get(DEFAULT_CLASS_ANNOTATION) == "true"
        if metadata["name"] == name or (name is None and default):
            return storage_class
    return None


def _room(case: Case) -> Iterator[Finding]:
    """Whether the volume has room for the release's weights beside those that llmops keeps."""
    if case.release is None:
        return
    subject, snapshot = f"room on {_subject(case.snapshot)}", case.snapshot
    storage = snapshot.settings.storage
    if snapshot.claim is not None:
        requests = snapshot.claim["spec"]["resources"]["requests"]
        storage = str(((snapshot.claim.get("status") or {}).get("capacity") or requests)["storage"])
    size, capacity = case.release.weights.size, float(quantity(storage))
    # stable's, the previous release's, those of rollout.keep_weights, and the new release's.
    releases = case.spec.rollout.keep_weights + 3
    message = f"{storage}; the weights are {amount(size)}"
    if size > capacity:
        yield Finding("error", subject, message, "Enlarge the claim (spec.resources.requests.storage).")
    elif size * 2 > capacity:
        yield Finding("warning", subject, f"{message}: no room for the next release beside them", "Enlarge the claim.")
    elif size * releases > capacity:
        remedy = "Enlarge the claim, or lower rollout.keep_weights."
        keep = case.spec.rollout.keep_weights
        yield Finding(
            "warning", subject, f"{message}: no room for {releases} releases (rollout.keep_weights {keep})", remedy
        )
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
