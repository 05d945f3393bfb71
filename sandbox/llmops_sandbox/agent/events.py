"""Events about pods, as a kubelet records them: a repeated event raises its count."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Literal

from llmops.errors import LlmopsError
from llmops_sandbox.agent.api import Api, ApiError, Object, until_answered
from llmops_sandbox.agent.pods.status import rfc3339

REMEMBERED = 4096

log = logging.getLogger(__name__)


class Recorder:
    """Writes events in the background, in order; `run` must be running.

    Args:
        api: The client.
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self._queue: asyncio.Queue[Object] = asyncio.Queue()
        self._known: dict[tuple[str, ...], tuple[str, int]] = {}

    def record(
        self, pod: Object, kind: Literal["Normal", "Warning"], reason: str, message: str, field_path: str = ""
    ) -> None:
        """Record an event of a pod, or of its container at `field_path`."""
        metadata = pod["metadata"]
        now = rfc3339(time.time())
        node = pod["spec"].get("nodeName", "")
        self._queue.put_nowait({
            "metadata": {
                "name": f"{metadata['name']}.{time.time_ns():x}",
                "namespace": metadata["namespace"],
            },
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Pod",
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
                **({"fieldPath": field_path} if field_path else {}),
            },
            "type": kind,
            "reason": reason,
            "message": message,
            "source": {"component": "kubelet", "host": node},
            "reportingComponent": "kubelet",
            "reportingInstance": node,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        })  # fmt: skip

    async def run(self) -> None:
        """Write the recorded events, until cancelled."""
        while True:
            event = await self._queue.get()
            try:
                await self._write(event)
            except LlmopsError as error:
                # A terminating namespace refuses events; those of others must still be written.
                log.info("event %s not written: %s", event["reason"], error)

    async def _write(self, event: Object) -> None:
        about = event["involvedObject"]
        key = (about["uid"], about.get("fieldPath", ""), event["type"], event["reason"], event["message"])
        path = f"/api/v1/namespaces/{about['namespace']}/events"
        name, count = self._known.get(key, ("", 0))
        if name:
            change = {"count": count + 1, "lastTimestamp": event["lastTimestamp"]}
            try:
                await until_answered(lambda: self._api.patch(f"{path}/{name}", change))
            except ApiError as error:
                if error.status != 404:
                    raise
                name, count = "", 0
        if not name:
            name = event["metadata"]["name"]
            await until_answered(lambda: self._api.create(path, event))
        self._known[key] = (name, count + 1)
        if len(self._known) > REMEMBERED:
            self._known.pop(next(iter(self._known)))
