"""Whether this process reaches an engine's Service, as it would have to in order to measure it."""

from __future__ import annotations

import http.client
import json
import time
from typing import Any

from llmops.evaluation.endpoint import Endpoint

CONNECT_SECONDS = 2.0
AGAIN_SECONDS = 0.25
LONGEST_ANSWER = 1 << 20


def why_unreachable(endpoint: Endpoint, weights: str, *, patience: float) -> str | None:
    """Why the engine cannot be reached from here; None if it can.

    The engine has to say itself that it serves these weights under this name. Less would be no sign: the cluster's
    address of a Service is a private one, that another network may have given to somebody else.

    Args:
        endpoint: The engine's Service, ready.
        weights: Folder of the weights that it serves, relative to the volume's root.
        patience: Seconds for which it is asked again: routes to a pod lag behind its readiness.
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
    # A connection of its own: what the environment says of proxies is about other networks.
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
    return f"{endpoint.root} answers (HTTP {answer.status}), but not as an engine that serves {endpoint.model} does"


def serves(body: bytes, model: str, weights: str) -> bool:
    """Whether an answer of `/v1/models` says that a model is served from a folder of weights."""
    try:
        content: Any = json.loads(body)
        cards: list[Any] = content["data"]
        return any(card["id"] == model and str(card["root"]).rstrip("/").endswith(f"/{weights}") for card in cards)
    except (ValueError, KeyError, TypeError):
        return False
