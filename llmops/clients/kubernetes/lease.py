"""One rollout per model at a time, across processes, machines and Dagster instances."""

from __future__ import annotations

import datetime as dt
import logging
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, TypeVar

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random

from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.problems import AlreadyExists, Conflict
from llmops.clients.kubernetes.watch import Object, version_of
from llmops.config import names
from llmops.errors import ClusterCannot, LlmopsError

RETRY_SECONDS = 1.0
ATTEMPTS = 10
"""A slower contender sees the winner at its next attempt: many conflicts mean that another program is broken."""
LONGEST_PAUSE_SECONDS = 0.2

_Result = TypeVar("_Result")
_log = logging.getLogger(__name__)


class LeaseHeld(ClusterCannot):
    """Another live holder has the lease."""


class LeaseContested(ClusterCannot):
    """Other writers change the lease again and again, each time between this process's read and write."""


class RolloutLease:
    """The right to change what serves a model: one holder has it, and a thread renews it.

    The stages of one run share the lease, in several processes at once if need be. A contender takes over from a dead
    holder when the lease has run out and nobody renews it for one more period: the time alone proves nothing, because
    clocks of two machines may differ. As in client-go (tools/leaderelection), a lease also runs out when the contender
    sees no renewal for the lease's duration, whatever time the holder wrote. Two contenders cannot both win: each write
    names the version of the lease that it is based on.

    Args:
        cluster: The cluster. `lease` in its settings has the duration and the pause between renewals.
        model: Name of the model.
        holder: The Dagster run.
        release: The release that the holder rolls out, for people who look at the lease.
        ended: A holder that has ended for certain. Its lease need not run out first; a contender still watches for a
            renewal for one period.
    """

    def __init__(
        self, cluster: Cluster, model: str, holder: str, *, release: str = "", ended: str | None = None
    ) -> None:
        self._cluster = cluster
        self._times = cluster.settings.lease
        self._brief = cluster.patient(self._times.renew_seconds)
        self._model = model
        self.name = names.lease_name(model)
        """Of the Lease."""
        self._holder = holder
        self._release = release
        self._ended = ended
        self._valid_until = 0.0
        self._seen: tuple[str, float] = ("", 0.0)
        """Version of another holder's lease, and when this process saw it first."""
        self._taken_away = False
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self) -> None:
        """Take the lease, or join the same holder's, and renew it until `stop`. A lease that we hold stays ours.

        Raises:
            LeaseHeld: Another holder has it; says who and since when.
            LeaseContested: Others change it again and again.
        """
        if self._thread is not None:
            if not self.lost():
                return
            self._end_renewals()
        self._contend(self._take)
        self._stopped.clear()
        self._taken_away = False
        self._thread = threading.Thread(target=self._renew, name=f"lease of {self._model}", daemon=True)
        self._thread.start()

    def lost(self) -> bool:
        """Whether another holder may have the lease: then this process must change nothing more in the cluster.

        A lease that ran out while the API server was away is not lost: nobody could take it. This call renews it,
        unless another holder was faster.
        """
        if self._taken_away or not self._valid_until:
            return True
        return time.monotonic() > self._valid_until and not self._reclaim()

    def stop(self, *, give_up: bool) -> None:
        """End the renewals.

        Args:
            give_up: Free the lease for others. Otherwise it waits for the holder's next stage, `handover_seconds`.
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
            else {"renewTime": _now(), "leaseDurationSeconds": self._times.handover_seconds}
        )
        try:
            self._change(self._cluster, current, change)
        except Conflict:
            # Another process of this holder has just renewed it, and frees it later.
            return

    def _end_renewals(self) -> None:
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout=self._times.renew_seconds * 2)
            self._thread = None

    def __enter__(self) -> RolloutLease:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(give_up=True)

    def _contend(self, decide: Callable[[], _Result]) -> _Result:
        """Read, decide and write; do it again if somebody else changes the lease in between.

        Raises:
            LeaseContested: They did so at each attempt.
        """
        retrying = Retrying(
            retry=retry_if_exception_type((AlreadyExists, Conflict)),
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_random(0, LONGEST_PAUSE_SECONDS),
            reraise=True,
        )
        try:
            return retrying(decide)
        except (AlreadyExists, Conflict) as error:
            namespace = self._cluster.namespace
            raise LeaseContested(
                f"Lease {self.name} in namespace {namespace} cannot be written for {self._holder}: somebody else "
                f"changed it between each read and write, {ATTEMPTS} times",
                about=f"Lease {self.name}",
                remedy="See who changes it: kubectl get lease --show-managed-fields -o yaml "
                f"--namespace {namespace} {self.name}",
            ) from error

    def _take(self) -> None:
        started = time.monotonic()
        current = self._cluster.get("Lease", self.name)
        if current is None:
            self._create()
        else:
            spec = _spec(current)
            holder = spec.get("holderIdentity")
            if holder == self._holder:
                self._change(self._cluster, current, self._renewal())
            elif holder and ((holder != self._ended and self._is_live(current)) or self._is_renewed(current)):
                raise self._refused(current)
            else:
                self._succeed(self._cluster, current)
        self._valid_until = started + self._times.duration_seconds

    def _reclaim(self) -> bool:
        """Renew a lease that has run out, as patiently as any other call; False if another holder may have it."""
        try:
            if self._contend(lambda: self._renew_once(self._cluster)):
                return True
        except LlmopsError as error:
            _log.warning("The lease of %s has run out, and nobody knows whose it is now: %s", self._model, error)
            return False
        self._taken_away = True
        return False

    def _renew_once(self, cluster: Cluster) -> bool:
        """Renew the lease; False if another holder has it, dead or alive: a renewal never replaces a holder."""
        started = time.monotonic()
        ran_out = started > self._valid_until
        current = cluster.get("Lease", self.name)
        holder = _spec(current).get("holderIdentity") if current is not None else None
        if current is not None and holder == self._holder:
            self._change(cluster, current, self._renewal())
        elif holder or ran_out:
            # It ran out and is free: another holder may have had it meanwhile and changed the cluster.
            return False
        elif current is None:
            self._create()
        else:
            # Another process of this holder gave it up while this one still works.
            self._succeed(cluster, current)
        self._valid_until = started + self._times.duration_seconds
        return True

    def _is_live(self, current: Object) -> bool:
        """Whether another holder's lease has not run out: by its times, and by the renewals that this process sees."""
        version, now = version_of(current), time.monotonic()
        if self._seen[0] != version:
            self._seen = (version, now)
        seen_for = now - self._seen[1]
        return is_live(current) and seen_for <= float(_spec(current).get("leaseDurationSeconds") or 0)

    def _is_renewed(self, current: Object) -> bool:
        """Whether its holder renews a lease that has run out by our clock."""
        version = version_of(current)
        patience = self._times.renew_seconds + RETRY_SECONDS
        watch = self._cluster.open_watch("Lease", name=self.name, timeout=patience)
        return any(event.object and version_of(event.object) != version for event in watch)

    def _refused(self, current: Object) -> LeaseHeld:
        spec = _spec(current)
        release = (current["metadata"].get("annotations") or {}).get(names.RELEASE_LABEL)
        what = f", for release {release}" if release else ""
        return LeaseHeld(
            f"{self._model} is being rolled out by {spec.get('holderIdentity')} since {spec.get('acquireTime')}{what}"
            f" (Lease {self.name} in namespace {self._cluster.namespace})",
            about=f"Lease {self.name}",
            remedy="Wait until that run has ended, or end it; a dead run's lease runs out by itself.",
        )

    def _renewal(self) -> Object:
        return {
            "holderIdentity": self._holder,
            "leaseDurationSeconds": self._times.duration_seconds,
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
                    "annotations": names.KEPT_ANNOTATIONS | self._marks(),
                },
                "spec": {**renewal, "acquireTime": renewal["renewTime"], "leaseTransitions": 0},
            }
        )

    def _succeed(self, cluster: Cluster, current: Object) -> None:
        renewal = self._renewal()
        transitions = int(_spec(current).get("leaseTransitions") or 0) + 1
        spec = {**renewal, "acquireTime": renewal["renewTime"], "leaseTransitions": transitions}
        # Otherwise the previous holder's release would look like this holder's.
        self._change(cluster, current, spec, {names.RELEASE_LABEL: None})

    def _change(self, cluster: Cluster, current: Object, spec: Object, marks: Object | None = None) -> None:
        """Change the lease unless another writer has changed it since `current` was read."""
        meta = {
            "resourceVersion": version_of(current),
            "annotations": {**names.KEPT_ANNOTATIONS, **(marks or {}), **self._marks()},
        }
        cluster.patch("Lease", self.name, {"metadata": meta, "spec": spec})

    def _renew(self) -> None:
        """Run in a thread: renew until stopped, or until another holder has the lease."""
        pause = self._times.renew_seconds
        while not self._stopped.wait(pause):
            try:
                if not self._contend(lambda: self._renew_once(self._brief)):
                    break
                pause = self._times.renew_seconds
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
        and is_live(lease)
    }


def _spec(lease: Mapping[str, Any]) -> dict[str, Any]:
    return lease.get("spec") or {}


def run_out(lease: Mapping[str, Any]) -> dt.datetime | None:
    """The time at which a lease runs out or ran out; None if nobody holds it.

    No holder has renewed a lease later than the API server wrote it: the clock of the holder's machine may be ahead.
    """
    spec = _spec(lease)
    renewed = spec.get("renewTime")
    if not renewed or not spec.get("holderIdentity"):
        return None
    since = dt.datetime.fromisoformat(str(renewed))
    writes = [dt.datetime.fromisoformat(str(entry["time"]))
              for entry in lease["metadata"].get("managedFields") or () if entry.get("time")]  # fmt: skip
    if writes:
        # The API server notes whole seconds.
        since = min(since, max(writes) + dt.timedelta(seconds=1))
    return since + dt.timedelta(seconds=float(spec.get("leaseDurationSeconds") or 0))


def is_live(lease: Mapping[str, Any]) -> bool:
    """Whether a lease has not run out, by this machine's clock."""
    ends = run_out(lease)
    return ends is not None and dt.datetime.now(dt.UTC) <= ends


def _now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
