"""The sensor that delivers alerts: it runs beside the pipeline, which never waits for it."""

from __future__ import annotations

import dagster as dg

from llmops.alerts.delivery import deliver
from llmops.alerts.outbox import Outbox
from llmops.errors import Unavailable
from llmops.rollout.platform import Platform

SECONDS = 15
CLUSTER_SECONDS = 10.0
"""A tick has a minute in all; what waits is sent by the next one."""


@dg.sensor(
    name="alerts",
    description="Sends alerts to the targets of the settings.",
    minimum_interval_seconds=SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def alerts_sensor(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SkipReason:
    """Deliver what waits in the outbox; a tick starts no run."""
    try:
        done = deliver(Outbox(platform.cluster.patient(CLUSTER_SECONDS)), platform.settings)
    except Unavailable as error:
        # Nothing is lost by it, and there is nobody to tell while the outbox cannot be read.
        return dg.SkipReason(f"the outbox cannot be read: {error}")
    for line in done.lines:
        context.log.warning(line)
    return dg.SkipReason(f"{done.sent} sent" + "".join(f"; {line}" for line in done.lines))
