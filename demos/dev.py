"""The Dagster UI on the sandbox of `make demo`: `make dev`. It shows the rollouts of the demo."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from llmops_sandbox.sandbox import Sandbox, default_folder
from llmops_sandbox.seeding import seed

MODEL = "smollm2-135m"


def main() -> None:
    """Bring the sandbox up, and run `dg dev` on it in place of this process."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--dir", type=Path, default=default_folder("demo"), help="folder of the sandbox")
    arguments.add_argument("--host", default="127.0.0.1")
    arguments.add_argument("--port", type=int, default=3000)
    options = arguments.parse_args()
    sandbox = Sandbox(options.dir)
    sandbox.up(lambda done, total, what: None)
    if not (sandbox.hub_store.root / "repos").exists():
        seed(sandbox, MODEL, "simulated")
    os.environ.update(sandbox.environment())
    dg = Path(sys.executable).with_name("dg")
    os.execv(  # noqa: S606 - an argument list, no shell
        dg, [str(dg), "dev", "--use-active-venv", "--host", options.host, "--port", str(options.port)]
    )


if __name__ == "__main__":
    main()
