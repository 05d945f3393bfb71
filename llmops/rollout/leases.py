"""The models' leases that this process holds, and the trials that it has open between two stages."""

from __future__ import annotations

import logging
from collections.abc import Callable

from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.lease import RolloutLease
from llmops.errors import ClusterCannot, LlmopsError

_log = logging.getLogger(__name__)


class Leases:
    """One lease per model, held through all stages of the run that this process runs.

    Args:
        connect: Gives a connection that is not guarded by the leases themselves.
    """

    def __init__(self, connect: Callable[[], Cluster]) -> None:
        self._connect = connect
        self._held: dict[str, RolloutLease] = {}
        self._open: dict[str, Callable[[], None]] = {}

    def of(self, model: str, run: str, *, ended: str | None = None) -> RolloutLease:
        """The lease of a model for a run, the same one in all stages that this process runs.

        Args:
            model: Name of the model.
            run: The holder.
            ended: A holder that has ended for certain.
        """
        if model not in self._held:
            self._held[model] = RolloutLease(self._connect(), model, run, ended=ended)
        return self._held[model]

    def free(self, model: str) -> None:
        """Give up the model's lease, and any trial that is open between two stages.

        A lease that cannot be given up runs out by itself: no error here hides the one that ended the stage.
        """
        self._open.pop(model, None)
        try:
            self._held.pop(model).stop(give_up=True)
        except LlmopsError as error:
            _log.warning("The lease of %s is not given up, and runs out by itself: %s", model, error)

    def hand_over(self, model: str) -> None:
        """Leave the model's lease to the run's next stage, in another process."""
        self._held.pop(model).stop(give_up=False)

    def leave_open(self, model: str, cancel: Callable[[], None]) -> None:
        """Note how to end a trial that this process's next stage should take up, in case it never begins."""
        self._open[model] = cancel

    def take_up(self, model: str) -> None:
        """Note that a stage has taken up the model's trial."""
        self._open.pop(model, None)

    def close(self) -> None:
        """End the trials that no stage took up: their run was cancelled between two stages. Free every lease."""
        try:
            for cancel in list(self._open.values()):
                cancel()
        finally:
            for model in list(self._held):
                self.free(model)

    def check(self) -> None:
        """Refuse to change anything once a lease is lost.

        Raises:
            ClusterCannot: One is.
        """
        for model, lease in self._held.items():
            if lease.lost():
                raise ClusterCannot(
                    f"the lease of {model} is lost, and another run may have it: this run changes nothing any more",
                    code="LeaseLost",
                    about=f"Lease {lease.name}",
                    remedy=f"See which run holds it: kubectl describe lease {lease.name}",
                )
