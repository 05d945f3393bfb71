"""Waits until the router's Service leads to a pod."""

from __future__ import annotations

import time

import httpx2

from llmops.clients.kubernetes.client import Cluster
from llmops.config import names
from llmops.manifests.router import READY_PATH


def router_url(cluster: Cluster, *, within: float = 60.0) -> str:
    """The address of the router, once it answers.

    A Service follows its pods a moment after they are ready. A new router has no older pod that takes requests until
    then.
    """
    url = cluster.endpoint(names.ROUTER, names.ROUTER_PORT)
    deadline = time.monotonic() + within
    while True:
        try:
            httpx2.get(url + READY_PATH, timeout=10).raise_for_status()
        except httpx2.HTTPError:
            assert time.monotonic() < deadline, f"the router does not answer at {url}"
            time.sleep(0.1)
        else:
            return url
