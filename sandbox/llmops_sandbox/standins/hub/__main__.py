"""Serve a folder of repositories as a hub: `python -m llmops_sandbox.standins.hub --root DIR --ready-file FILE`."""

from __future__ import annotations

from pathlib import Path

from llmops_sandbox.standins.hub import HubServer, HubStore
from llmops_sandbox.standins.standin import parser, run_process


def main() -> None:
    """Parse the arguments and serve until SIGTERM."""
    arguments = parser(__doc__)
    arguments.add_argument("--root", type=Path, required=True, help="folder of the store")
    given = arguments.parse_args()
    run_process(HubServer(HubStore(given.root), given.host, given.port), given.ready_file)


if __name__ == "__main__":
    main()
