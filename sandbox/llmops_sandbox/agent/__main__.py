"""`python -m llmops_sandbox.agent --dir DIR`: the node agent as a process.

SIGTERM or SIGINT ends the agent and all processes of its pods. SIGHUP ends the agent alone: pods run on, and the next
agent adopts them, as after a SIGKILL. `--stop-pods` starts no agent: it ends the processes that a killed one left.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import logging
import signal
import sys
from pathlib import Path

from llmops.errors import LlmopsError
from llmops_sandbox.agent.agent import Agent
from llmops_sandbox.agent.teardown import kill_all

STOP_SECONDS = 3.0


async def serve(folder: Path) -> None:
    """Run an agent until a signal."""
    loop = asyncio.get_running_loop()
    stop, leave = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, leave.set)
    agent = Agent(folder)
    running = asyncio.create_task(agent.run())
    signals = [asyncio.create_task(event.wait()) for event in (stop, leave)]
    await asyncio.wait([running, *signals], return_when=asyncio.FIRST_COMPLETED)
    if stop.is_set():
        await agent.stop_pods(STOP_SECONDS)
    for task in (running, *signals):
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    if stop.is_set():
        await asyncio.to_thread(kill_all, folder)


def main() -> None:
    """Parse the arguments, and run the agent."""
    parser = argparse.ArgumentParser(prog="llmops_sandbox.agent", description=__doc__)
    parser.add_argument("--dir", type=Path, required=True, help="the sandbox's folder")
    parser.add_argument("--stop-pods", action="store_true", help="end the processes that a killed agent left")
    parser.add_argument("--log-level", default="INFO")
    arguments = parser.parse_args()
    folder: Path = arguments.dir.resolve()
    logging.basicConfig(level=arguments.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    with (folder / "agent.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"{folder}: another agent serves this sandbox")
        if arguments.stop_pods:
            kill_all(folder)
            return
        try:
            asyncio.run(serve(folder))
        except LlmopsError as error:
            sys.exit(str(error))


if __name__ == "__main__":
    main()
