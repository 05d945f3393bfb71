"""A rollout behind the router, on the sandbox: real LiteLLM pods get a new configuration while users ask."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from llmops_sandbox.programs.litellm import LiteLlm
from llmops_sandbox.sandbox import Sandbox

from llmops.cli.exits import Exit
from llmops.config import names
from llmops.rollout.ops.routing.router import apply_router, routes
from tests.opt_in.stack.proxy import MASTER, bearer
from tests.opt_in.stack.reachable import router_url
from tests.support.world import Model, new_model


class Users:
    """The result of each request: its status, or its error."""

    def __init__(self) -> None:
        self.ended: Counter[str] = Counter()


@contextmanager
def users(url: str, model: str, count: int = 6) -> Generator[Users]:
    """Half of them keep their connection, half connect for each request; none retries."""
    users, stop = Users(), threading.Event()
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}

    def ask(kept: bool) -> None:
        with httpx2.Client(headers=bearer(MASTER), timeout=60) as client:
            while not stop.is_set():
                try:
                    close = {} if kept else {"Connection": "close"}
                    answer = client.post(f"{url}/v1/chat/completions", json=body, headers=close)
                    users.ended[str(answer.status_code)] += 1
                except httpx2.HTTPError as error:
                    users.ended[repr(error)] += 1
                time.sleep(0.05)

    threads = [threading.Thread(target=ask, args=(index % 2 == 0,)) for index in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield users
    finally:
        stop.set()
        for thread in threads:
            thread.join(70)


def secret(model: Model) -> dict[str, object]:
    meta = {"name": "llmops-router", "namespace": model.cluster.namespace}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"master-key": MASTER}}


@pytest.mark.timeout(1500)
def test_the_router_follows_a_promotion_and_a_change_of_it_fails_nobody(
    sandbox: Sandbox, lite_llm: LiteLlm, tmp_path: Path
) -> None:
    lite_llm.add_to(sandbox.images)
    with new_model(sandbox, tmp_path) as model:
        settings = json.loads(model.settings_file.read_text())
        settings["router"] = {
            "enabled": True,
            "replicas": 1,
            "cpu": "100m",
            "memory": "1Gi",
            "unroute_seconds": 2,
            "drain_seconds": 60,
        }
        model.settings_file.write_text(json.dumps(settings))
        model.cluster.apply(secret(model))
        ended = model.rollout()
        assert ended.code == Exit.DONE, ended.line
        url = router_url(model.cluster)
        (route,) = routes(model.platform)
        assert (route.name, route.leads_to, route.known) == (model.name, f"{model.name}.stable", True)
        before = model.cluster.get("Deployment", names.ROUTER)
        # The states are unchanged: nothing changes, and no step waits.
        assert not apply_router(model.platform)
        model.declare(routing={"aliases": ["gpt-4o"]})
        with users(url, model.name) as requests:
            time.sleep(3)
            began = time.monotonic()
            assert apply_router(model.platform)
            seconds = time.monotonic() - began
            time.sleep(3)
        assert requests.ended.keys() == {"200"}, requests.ended
        assert requests.ended["200"] > 50
        print(f"a change took {seconds:.1f} s; {requests.ended['200']} requests meanwhile")
        after = model.cluster.get("Deployment", names.ROUTER)
        assert before is not None
        assert after is not None
        assert after["metadata"]["generation"] == before["metadata"]["generation"] + 1
        assert {route.name: route.known for route in routes(model.platform)} == {model.name: True, "gpt-4o": True}
        # Only the state sets a canary's share.
        model.records.update_state(model.name, canary_percent="0")
        assert not apply_router(model.platform)
        for kind in ("Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"):
            model.cluster.delete(kind, names.ROUTER)
