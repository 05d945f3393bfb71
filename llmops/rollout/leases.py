"""The models' leases that this process holds, and the trials that it has left between two stages."""

from __future__ import annotations

from collections.abc import Callable

from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.lease import RolloutLease
from llmops.errors import ClusterCannot


class Leases:
    """Holds one lease per model for as long as its run is at the model, through all stages that this process runs.

    Args:
        connect: Gives the connection that leases are kept by, which itself is bound to no lease.
    """

    def __init__(self, connect: Callable[[], Cluster]) -> None:
        self._connect = connect
        self._held: dict[str, RolloutLease] = {}
        self._open: dict[str, Callable[[], None]] = {}

    def of(self, model: str, run: str, *, ended: str | None = None) -> RolloutLease:
        """The lease of a model for a run, the same one in all stages that this process runs.

        Args:
            model: Name of the model.
            run: Who holds it.
            ended: A holder that is known to have ended.
        """
        if model not in self._held:
            self._held[model] = RolloutLease(self._connect(), model, run, ended=ended)
        return self._held[model]

    def free(self, model: str) -> None:
        """Let others roll the model out; a trial that was left open is theirs, too."""
        self._open.pop(model, None)
        self._held.pop(model).stop(give_up=True)

    def hand_over(self, model: str) -> None:
        """Keep the model's lease for the run's next stage, which another process runs."""
        self._held.pop(model).stop(give_up=False)

    def leave_open(self, model: str, cancel: Callable[[], None]) -> None:
        """Note what ends a trial that this process's next stage is to take up, in case that none begins."""
        self._open[model] = cancel

    def take_up(self, model: str) -> None:
        """Note that a stage sees to the model's trial again."""
        self._open.pop(model, None)

    def close(self) -> None:
        """End the trials that no stage took up, as their run was cancelled between two stages; free every lease."""
        try:
            for cancel in list(self._open.values()):
                cancel()
        finally:
            for model in list(self._held):
                self.free(model)

    def check(self) -> None:
        """See to it that what is changed now is still ours to change.

        Raises:
            ClusterCannot: A lease is lost.
        """
        for model, lease in self._held.items():
            if lease.lost():
                raise ClusterCannot(
                    f"the lease of {model} is lost, and another run may have it: this one changes nothing any more",
                    remedy="See which run holds it: kubectl describe lease " + lease.name,
                )
