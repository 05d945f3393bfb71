"""The program of the adapter's image in the sandbox: passes on the account in KUBECONFIG, which every pod has here."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Become the adapter. Arguments: its program, the address to listen on, its own arguments."""
    program, address, *rest = sys.argv[1:]
    account = os.environ["KUBECONFIG"]
    accounts = [f"--{use}-kubeconfig={account}" for use in ("lister", "authentication", "authorization")]
    os.execv(program, [program, f"--bind-address={address}", *accounts, *rest])  # noqa: S606


if __name__ == "__main__":
    main()
