"""The steps of the demo; each checks the stack and returns its figures."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmops_sandbox.users import Counted, ask, users

from demos.stack.world import CHAT, CODE, QUEUE_AT, World
from llmops.cli.rollouts import Ended, run_rollout
from llmops.config import names
from llmops.errors import LlmopsError

Figures = dict[str, Any]
SCALE_SECONDS = 240.0
# Enough users to make every replica of the sandbox queue requests.
CROWD = 4 * QUEUE_AT
SLOWER = 6.0


@dataclass(frozen=True)
class Step:
    """One step of the demo."""

    name: str
    run: Callable[[World], Figures]


def serve(world: World) -> Figures:
    """llmops rolls out both models, and the router serves them."""
    return {model: _rolled(world, model, "Passed") for model in (CHAT, CODE)}


def route(world: World) -> Figures:
    """One address answers for both models by name and for an alias, and refuses requests without a key."""
    listed = _models_of_the_router(world)
    answers = {name: asyncio.run(ask(world.users_of(name), 4)).outcome for name in (CHAT, CODE, "assistant")}
    stranger = asyncio.run(ask(_without_key(world), 4))
    _check("every name is answered", set(answers.values()) == {"completed"}, answers)
    _check("a stranger is refused", stranger.outcome == "failed" and "401" in stranger.why, stranger.why)
    world.timeline.add("seen", f"the router answers for {', '.join(listed)}, and refuses requests without a key")
    return {"models": listed, "answers": answers, "without a key": stranger.why[:80]}


def examine(world: World) -> Figures:
    """`llmops doctor` finds no error."""
    program = str(Path(sys.executable).with_name("llmops"))
    began = time.monotonic()
    ended = subprocess.run([program, "doctor", "--json"], capture_output=True, text=True, check=False)
    seconds = round(time.monotonic() - began, 2)
    _check("the doctor finds no error", ended.returncode == 0, f"{ended.stdout[-2000:]}{ended.stderr[-2000:]}")
    findings: list[dict[str, Any]] = json.loads(ended.stdout)["findings"]
    counted = {kind: sum(finding["severity"] == kind for finding in findings) for kind in ("ok", "warning", "unknown")}
    world.timeline.add("seen", f"the doctor: {counted} in {seconds} s")
    return {"seconds": seconds, **counted, "not ok": [finding for finding in findings if finding["severity"] != "ok"]}


def promote(world: World) -> Figures:
    """A good release gets users' requests in steps, and then all of them; no request fails."""
    world.commit(CHAT)
    with _crowd(world, CHAT) as counted:
        figures = _rolled(world, CHAT, "Passed")
    return figures | _unharmed(world, counted)


def abort(world: World) -> Figures:
    """Metrics abort a release that is slow under users' requests; stable takes over again, and no request fails."""
    stable = world.records.state(CHAT).stable
    world.commit(CHAT, ttft_factor=SLOWER)
    with _crowd(world, CHAT) as counted:
        figures = _rolled(world, CHAT, "Failed")
        time.sleep(5)
    state = world.records.state(CHAT)
    _check("stable serves", state.stable == stable and state.canary_percent == 0, state)
    _check("traffic decided", figures["stage"] == "traffic", figures)
    return figures | _unharmed(world, counted)


def scale(world: World) -> Figures:
    """The HPA adds replicas while requests wait, and removes them afterwards; no request fails."""
    before = _replicas(world)
    with _crowd(world, CODE, count=CROWD, pause=0.0) as counted:
        out = _wait_for_replicas(world, lambda replicas: replicas > before, "more replicas under load")
    back = _wait_for_replicas(world, lambda replicas: replicas == before, "as many replicas as before")
    return {"replicas": before, "seconds out": out, "seconds in": back} | _unharmed(world, counted)


STEPS: Sequence[Step] = (
    Step("serve", serve),
    Step("route", route),
    Step("examine", examine),
    Step("promote", promote),
    Step("abort", abort),
    Step("scale", scale),
)


def _crowd(world: World, model: str, *, count: int | None = None, pause: float = 0.2) -> Any:
    few = world.engine == "vllm"
    return users(world.users_of(model), count=count or (2 if few else 6), tokens=4 if few else 16, pause=pause)


def _unharmed(world: World, counted: Counted) -> Figures:
    _check("no request fails", counted.failed == 0 and counted.started > 0, counted.troubles)
    world.timeline.add("seen", f"{counted.started} requests of users during the step, {counted.failed} failed")
    return {"requests": counted.started, "failed": counted.failed}


def _rolled(world: World, model: str, verdict: str) -> Figures:
    ended: Ended = run_rollout(world.records, model, engine_version=None, revision=None, retry=False)
    world.timeline.add("dagster", ended.line)
    record = ended.record
    _check(f"{model} is {verdict}", record is not None and record.verdict == verdict, ended.line)
    assert record is not None
    seconds = {stage: round(value, 1) for stage, value in record.stages.items()}
    return {
        "release": record.release,
        "verdict": record.verdict,
        "stage": record.stage,
        "reason": record.reason,
        "seconds": seconds,
    }


def _models_of_the_router(world: World) -> list[str]:
    endpoint = world.users_of(CHAT)
    request = urllib.request.Request(f"{endpoint.root}/v1/models", headers={"Authorization": f"Bearer {world.key}"})  # noqa: S310 - our own http URL
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        return sorted(card["id"] for card in json.load(answer)["data"])


def _without_key(world: World) -> Any:
    from dataclasses import replace

    return replace(world.users_of(CHAT), api_key="sk-nobody")


def _replicas(world: World) -> int:
    deployment = world.cluster.get("Deployment", names.engine_name(CODE, "stable"))
    return int((deployment or {}).get("status", {}).get("readyReplicas", 0))


def _wait_for_replicas(world: World, enough: Callable[[int], bool], what: str) -> float:
    began = time.monotonic()
    while not enough(replicas := _replicas(world)):
        if time.monotonic() - began > SCALE_SECONDS:
            hpa = world.cluster.get("HorizontalPodAutoscaler", names.engine_name(CODE, "stable"))
            raise LlmopsError(
                f"{what}: {replicas} after {SCALE_SECONDS:.0f} s; the HorizontalPodAutoscaler's status: "
                f"{(hpa or {}).get('status')}",
                code="TimedOut",
                about=f"Deployment {names.engine_name(CODE, 'stable')}",
            )
        time.sleep(0.5)
    seconds = round(time.monotonic() - began, 1)
    world.timeline.add("seen", f"{what}: {replicas} after {seconds} s")
    return seconds


def _check(what: str, holds: bool, seen: object) -> None:
    if not holds:
        raise LlmopsError(f"{what}: does not hold: {seen}", code="CheckFailed")
