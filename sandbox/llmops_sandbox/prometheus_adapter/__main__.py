"""What the adapter's image stands for in the sandbox: it finds its account by KUBECONFIG, as all pods do here."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Become the adapter: first its program and the address to listen on, then its own arguments."""
    program, address, *rest = sys.argv[1:]
    account = os.environ["KUBECONFIG"]
    accounts = [f"--{use}-kubeconfig={account}" for use in ("lister", "authentication", "authorization")]
    os.execv(program, [program, f"--bind-address={address}", *accounts, *rest])  # noqa: S606


if __name__ == "__main__":
    main()
