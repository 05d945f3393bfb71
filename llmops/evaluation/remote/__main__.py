"""`python -m llmops.evaluation.remote`: the program of the Jobs that measure inside the cluster."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from llmops.errors import LlmopsError
from llmops.evaluation.evaluate import compare, measure
from llmops.evaluation.progress import quarters
from llmops.evaluation.proving import prove, watch
from llmops.evaluation.remote.answer import Answer, write_answer
from llmops.evaluation.remote.ending import Ending
from llmops.evaluation.remote.order import PART, Order, unpack
from llmops.evaluation.runners.fidelity import recognize


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out the order; returns the exit code (see `ending`)."""
    parser = argparse.ArgumentParser(prog="python -m llmops.evaluation.remote", description=__doc__)
    parser.add_argument("--order", type=Path, required=True, help="folder with the parts of the order")
    parser.add_argument("--termination-log", type=Path, help="file for the result, at most 4,096 bytes")
    options = parser.parse_args(arguments)
    ending = _run(options.order)
    _say(**ending.event())
    if options.termination_log is not None:
        options.termination_log.write_bytes(ending.model_dump_json().encode())
    return ending.exit_code


def _run(folder: Path) -> Ending:
    try:
        order = unpack((path.name, path.read_bytes()) for path in folder.glob(f"{PART}*"))
        started = time.monotonic()
        answer = _carry_out(order)
        lines, seal = write_answer(answer.model_copy(update={"seconds": round(time.monotonic() - started, 3)}))
    except LlmopsError as error:
        return Ending.of(error)
    except Exception as error:  # noqa: BLE001 - the last frame: the termination log has to name the error
        traceback.print_exc()
        return Ending.of(error)
    for line in lines:
        sys.stdout.write(f"{line}\n")
    return Ending(exit_code=0, message=f"{order.task}: done", seal=seal)


def _carry_out(order: Order) -> Answer:
    engine, rules = order.engine.endpoint(), order.evaluation
    match order.task:
        case "measure":
            measured = measure(engine, order.suites, rules.concurrency, quarters(_tell), rules=rules)
            return Answer(measurements=(measured,))
        case "compare":
            assert order.other is not None
            other = order.other.endpoint()
            return Answer(
                measurements=compare(engine, other, order.suites, rules.concurrency, quarters(_tell), rules=rules)
            )
        case "prove":
            return Answer(text=prove(engine, timeout=order.seconds))
        case "recognize":
            assert order.reference is not None
            replicas = [replace(engine, base_url=url) for url in order.replicas]
            return Answer(
                distances=tuple(recognize(replica, order.reference, rules.concurrency) for replica in replicas)
            )
        case "watch":
            watch(engine, seconds=order.seconds, check=lambda: _say(event="asking"), say=_tell)
            return Answer()


def _tell(line: str) -> None:
    _say(event="log", message=line)


def _say(**event: Any) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def _terminated(*_: object) -> None:
    # Process 1 of a container has no default action for SIGTERM. There is nothing to clean up.
    os._exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminated)
    sys.exit(main())
