"""One rollout per model at a time, across processes, machines and Dagster instances."""

from __future__ import annotations

import datetime as dt
import logging
import threading
import time
from types import TracebackType
from typing import Any

from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.problems import AlreadyExists, Conflict
from llmops.clients.kubernetes.watch import Object, version_of
from llmops.config import names
from llmops.errors import ClusterCannot, LlmopsError

HANDOVER_SECONDS = 300
"""How long a lease that is kept waits for its holder's next stage, which may first need a pod of its own: on a busy
machine its process alone was seen to take 108 s."""

RETRY_SECONDS = 1.0

_log = logging.getLogger(__name__)


class LeaseHeld(ClusterCannot):
    """Another holder has the lease, and lives."""


class RolloutLease:
    """The right to change what serves a model, held by one holder and renewed in a thread.

    The same holder may hold it in several processes at once, so that the stages of one run share it. A holder that
    died is succeeded once its lease has run out and no renewal was seen for a whole period: the clocks of two
    machines may differ, so that a time alone is no proof. Two contenders cannot both win, since each change names
    the version that it was decided on.

    Args:
        cluster: Where.
        model: Name of the model.
        holder: Who: the Dagster run.
        release: Release that is rolled out, for people who look at the lease.
        duration: Seconds without a renewal after which it runs out.
        renew_every: Seconds between renewals.
        ended: A holder that is known to have ended: what is left of its time is not waited for. It is looked at all
            the same for as long as one who lives takes to renew.
    """

    def __init__(
        self,
        cluster: Cluster,
        model: str,
        holder: str,
        *,
        release: str = "",
        duration: float = 15,
        renew_every: float = 5,
        ended: str | None = None,
    ) -> None:
        self._cluster = cluster
        self._brief = cluster.patient(renew_every)
        self._model = model
        self.name = names.lease_name(model)
        """Of the Lease."""
        self._holder = holder
        self._release = release
        self._duration = duration
        self._renew_every = renew_every
        self._ended = ended
        self._valid_until = 0.0
        self._taken_away = False
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self) -> None:
        """Take the lease, or join the same holder's, and go on renewing it until `stop`; held already, it stays so.

        Raises:
            LeaseHeld: Another holder has it; says who and since when.
        """
        if self._thread is not None:
            if not self.lost():
                return
            self._end_renewals()
        while True:
            started = time.monotonic()
            try:
                self._take()
            except (AlreadyExists, Conflict):
                # Somebody was faster: look again at who it is.
                continue
            self._valid_until = started + self._duration
            break
        self._stopped.clear()
        self._taken_away = False
        self._thread = threading.Thread(target=self._renew, name=f"lease of {self._model}", daemon=True)
        self._thread.start()

    def lost(self) -> bool:
        """Whether somebody else may hold the lease by now: then nothing more may be changed in the cluster.

        One that has run out because the API server was away is not lost by that: nobody could take it meanwhile. It is
        renewed here, and goes on, unless somebody else was faster.
        """
        if self._taken_away or not self._valid_until:
            return True
        return time.monotonic() > self._valid_until and not self._reclaim()

    def stop(self, *, give_up: bool) -> None:
        """End the renewals.

        Args:
            give_up: Free the lease for others; else it is kept for the holder's next stage, for `HANDOVER_SECONDS`.
        """
        self._end_renewals()
        if self.lost():
            return
        current = self._cluster.get("Lease", self.name)
        if current is None or _spec(current).get("holderIdentity") != self._holder:
            return
        change: Object = (
            {"holderIdentity": None, "acquireTime": None, "renewTime": None, "leaseDurationSeconds": None}
            if give_up
            else {"renewTime": _now(), "leaseDurationSeconds": HANDOVER_SECONDS}
        )
        try:
            self._change(self._cluster, current, change)
        except Conflict:
            # Another process of this holder renewed it just now, and is the one to free it.
            return

    def _end_renewals(self) -> None:
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout=self._renew_every * 2)
            self._thread = None

    def __enter__(self) -> RolloutLease:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(give_up=True)

    def _take(self) -> None:
        current = self._cluster.get("Lease", self.name)
        if current is None:
            self._create()
            return
        spec = _spec(current)
        holder = spec.get("holderIdentity")
        if holder == self._holder:
            self._change(self._cluster, current, self._renewal())
            return
        if holder and ((holder != self._ended and is_live(spec)) or self._is_renewed(current)):
            raise self._refused(current)
        self._succeed(self._cluster, current)

    def _reclaim(self) -> bool:
        """Renew a lease that has run out, as patiently as any other call; False if it is not known to be ours."""
        while True:
            try:
                if self._renew_once(self._cluster):
                    return True
            except (AlreadyExists, Conflict):
                continue
            except LlmopsError as error:
                _log.warning("The lease of %s has run out, and whose it is now is not known: %s", self._model, error)
                return False
            self._taken_away = True
            return False

    def _renew_once(self, cluster: Cluster) -> bool:
        """Renew the lease; False if another holder has it, who is never pushed out here, dead or alive."""
        started = time.monotonic()
        ran_out = started > self._valid_until
        current = cluster.get("Lease", self.name)
        holder = _spec(current).get("holderIdentity") if current is not None else None
        if current is not None and holder == self._holder:
            self._change(cluster, current, self._renewal())
        elif holder or ran_out:
            # Free after it had run out: somebody may have had it, and have changed what this holder goes by.
            return False
        elif current is None:
            self._create()
        else:
            # Another process of this holder gave it up although this one still works.
            self._succeed(cluster, current)
        self._valid_until = started + self._duration
        return True

    def _is_renewed(self, current: Object) -> bool:
        """Whether a lease that has run out by our clock is renewed all the same."""
        seen = version_of(current)
        watch = self._cluster.open_watch("Lease", name=self.name, timeout=self._renew_every + RETRY_SECONDS)
        return any(event.object and version_of(event.object) != seen for event in watch)

    def _refused(self, current: Object) -> LeaseHeld:
        spec = _spec(current)
        release = (current["metadata"].get("annotations") or {}).get(names.RELEASE_LABEL)
        what = f", for release {release}" if release else ""
        return LeaseHeld(
            f"{self._model} is being rolled out by {spec.get('holderIdentity')} since {spec.get('acquireTime')}{what}"
            f" (Lease {self.name} in namespace {self._cluster.namespace})",
            remedy="Wait until that run has ended, or end it; a dead run's lease runs out by itself.",
        )

    def _renewal(self) -> Object:
        return {
            "holderIdentity": self._holder,
            "leaseDurationSeconds": max(1, round(self._duration)),
            "renewTime": _now(),
        }

    def _marks(self) -> Object:
        release = {names.RELEASE_LABEL: self._release} if self._release else {}
        return {names.RUN_LABEL: self._holder, **release}

    def _create(self) -> None:
        renewal = self._renewal()
        self._brief.create(
            {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {
                    "name": self.name,
                    "namespace": self._cluster.namespace,
                    "labels": {names.MODEL_LABEL: self._model},
                    "annotations": self._marks(),
                },
                "spec": {**renewal, "acquireTime": renewal["renewTime"], "leaseTransitions": 0},
            }
        )

    def _succeed(self, cluster: Cluster, current: Object) -> None:
        renewal = self._renewal()
        transitions = int(_spec(current).get("leaseTransitions") or 0) + 1
        spec = {**renewal, "acquireTime": renewal["renewTime"], "leaseTransitions": transitions}
        # The release of the holder before must not be taken for this one's.
        self._change(cluster, current, spec, {names.RELEASE_LABEL: None})

    def _change(self, cluster: Cluster, current: Object, spec: Object, marks: Object | None = None) -> None:
        """Change the lease if nobody else has since it was read."""
        meta = {"resourceVersion": version_of(current), "annotations": {**(marks or {}), **self._marks()}}
        cluster.patch("Lease", self.name, {"metadata": meta, "spec": spec})

    def _renew(self) -> None:
        """Run in a thread: renew until stopped, or until somebody else has it."""
        pause = self._renew_every
        while not self._stopped.wait(pause):
            try:
                if not self._renew_once(self._brief):
                    break
                pause = self._renew_every
            except (AlreadyExists, Conflict):
                pause = 0.0
            except LlmopsError as error:
                _log.warning("The lease of %s is not renewed: %s", self._model, error)
                pause = RETRY_SECONDS
        else:
            return
        _log.warning("The lease of %s is lost", self._model)
        self._taken_away = True


def holders(cluster: Cluster) -> dict[str, str]:
    """Who rolls out which model now: holders of leases that have not run out, by this machine's clock."""
    return {
        str(model): str(_spec(lease)["holderIdentity"])
        for lease in cluster.list("Lease")
        if (model := (lease["metadata"].get("labels") or {}).get(names.MODEL_LABEL))
        and _spec(lease).get("holderIdentity")
        and is_live(_spec(lease))
    }


def _spec(lease: Object) -> dict[str, Any]:
    return lease.get("spec") or {}


def run_out(spec: Object) -> dt.datetime | None:
    """When a lease runs out, or has run out; None if nobody holds it."""
    renewed = spec.get("renewTime")
    if not renewed or not spec.get("holderIdentity"):
        return None
    return dt.datetime.fromisoformat(str(renewed)) + dt.timedelta(seconds=float(spec.get("leaseDurationSeconds") or 0))


def is_live(spec: Object) -> bool:
    """Whether a lease has not run out, by this machine's clock."""
    ends = run_out(spec)
    return ends is not None and dt.datetime.now(dt.UTC) <= ends


def _now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
