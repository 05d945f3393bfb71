"""Whether this process reaches an engine's Service, and can measure it."""

from __future__ import annotations

import http.client
import time
from typing import Any

from llmops.evaluation.endpoint import Endpoint
from llmops.worker.foreign import parse_json

CONNECT_SECONDS = 2.0
AGAIN_SECONDS = 0.25
LONGEST_ANSWER = 1 << 20


def why_unreachable(endpoint: Endpoint, weights: str, *, patience: float) -> str | None:
    """Why the engine cannot be reached from here; None if it can.

    The answer has to name these weights and this model. An open port is no proof: a Service has a private address,
    which may belong to another server in this process's network.

    Args:
        endpoint: The engine's Service; the engine is ready.
        weights: Folder of the served weights, relative to the volume's root.
        patience: Seconds to try: routes to a pod lag behind its readiness.
    """
    deadline = time.monotonic() + patience
    while True:
        why = _ask(endpoint, weights)
        if why is None or time.monotonic() > deadline:
            return why
        time.sleep(AGAIN_SECONDS)


def _ask(endpoint: Endpoint, weights: str) -> str | None:
    host, port, _ = endpoint.address
    headers = {"Authorization": f"Bearer {endpoint.api_key}"} if endpoint.api_key else {}
    # http.client ignores proxy variables: proxies do not lead into the cluster.
    connection = http.client.HTTPConnection(host, port, timeout=CONNECT_SECONDS)
    try:
        connection.request("GET", "/v1/models", headers=headers)
        answer = connection.getresponse()
        body = answer.read(LONGEST_ANSWER)
    except (OSError, http.client.HTTPException) as error:
        return f"{endpoint.root}: {error or type(error).__name__}"
    finally:
        connection.close()
    if answer.status == 200 and serves(body, endpoint.model, weights):
        return None
    return f"{endpoint.root} answers with HTTP {answer.status}, but does not serve {endpoint.model}"


def serves(body: bytes, model: str, weights: str) -> bool:
    """Whether an answer of `/v1/models` lists a model with a folder of weights."""
    try:
        content: Any = parse_json(body)
        cards: list[Any] = content["data"]
        return any(card["id"] == model and str(card["root"]).rstrip("/").endswith(f"/{weights}") for card in cards)
    except (ValueError, KeyError, TypeError):
        return False
