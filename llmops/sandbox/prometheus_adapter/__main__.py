"""What the adapter's image stands for in the sandbox: it finds its account by KUBECONFIG, as all pods do here."""

from __future__ import annotations

import os
import sys

from llmops.sandbox.prometheus_adapter.program import find_or_build


def main() -> None:
    """Become the adapter; the first argument is the address to listen on, further ones are its own."""
    program = find_or_build()
    account = os.environ["KUBECONFIG"]
    accounts = [f"--{use}-kubeconfig={account}" for use in ("lister", "authentication", "authorization")]
    os.execv(program, [str(program), f"--bind-address={sys.argv[1]}", *accounts, *sys.argv[2:]])  # noqa: S606


if __name__ == "__main__":
    main()
