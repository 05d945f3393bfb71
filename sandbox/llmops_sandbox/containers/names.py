"""Names of the cluster: Services, and the pods of headless ones, for containers that ask the node over DNS.

Run as `python -m llmops_sandbox.containers.names --url URL --pki FOLDER`. It reads Services and EndpointSlices each
second.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import socket
import ssl
import struct
import threading
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmops_sandbox.containers.address import ADDRESS, CLUSTER_DOMAIN

Names = Mapping[str, tuple[str, ...]]
# RFC 1035 and 3596.
_A, _IN = 1, 1
_AUTHORITATIVE_ANSWER, _NO_SUCH_NAME = 0x8580, 3
_TTL_SECONDS = 2
_HEADER = struct.Struct(">2sHHHHH")


def names_of(services: Sequence[Mapping[str, Any]], slices: Sequence[Mapping[str, Any]]) -> Names:
    """IPv4 addresses of each name: of the Service, or where it has none of its endpoints."""
    names: dict[str, tuple[str, ...]] = {}
    headless: set[str] = set()
    for service in services:
        name = f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc.{CLUSTER_DOMAIN}"
        address = service["spec"].get("clusterIP")
        names[name] = (address,) if address not in (None, "", "None") else ()
        if not names[name]:
            headless.add(name)
    for part in slices:
        metadata = part["metadata"]
        service = (metadata.get("labels") or {}).get("kubernetes.io/service-name")
        name = f"{service}.{metadata['namespace']}.svc.{CLUSTER_DOMAIN}"
        if name not in headless:
            continue
        for endpoint in part.get("endpoints") or ():
            if (endpoint.get("conditions") or {}).get("ready") is not False:
                names[name] += tuple(endpoint["addresses"])
            if host := endpoint.get("hostname"):
                names[f"{host}.{name}"] = tuple(endpoint["addresses"])
    return names


def answer(question: bytes, names: Names) -> bytes:
    """The answer to one message.

    Raises:
        ValueError: It is no question.
    """
    labels, place = [], _HEADER.size
    try:
        while length := question[place]:
            labels.append(question[place + 1 : place + 1 + length].decode("ascii"))
            place += 1 + length
        (kind,) = struct.unpack_from(">H", question, place + 1)
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"a question of {len(question)} bytes that ends at {place}") from error
    known = names.get(".".join(labels).lower())
    addresses = (known or ()) if kind == _A else ()
    flags = _AUTHORITATIVE_ANSWER | (_NO_SUCH_NAME if known is None else 0)
    header = _HEADER.pack(question[:2], flags, 1, len(addresses), 0, 0)
    # 0xc00c points to the name in the question.
    records = (
        struct.pack(">HHHIH4s", 0xC00C, _A, _IN, _TTL_SECONDS, 4, ipaddress.IPv4Address(address).packed)
        for address in addresses
    )
    return header + question[_HEADER.size : place + 5] + b"".join(records)


class Server:
    """Answers on UDP port 53 of the node.

    Args:
        url: The API server.
        pki: Has the certificates of the API server's authority and of the administrator.
    """

    def __init__(self, url: str, pki: Path) -> None:
        self._url = url
        self._context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        self._context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
        self._names: Names = {}

    def run(self) -> None:
        """Serve until the process ends."""
        threading.Thread(target=self._follow, daemon=True).start()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as port:
            port.bind((ADDRESS, 53))
            while True:
                question, sender = port.recvfrom(4096)
                try:
                    port.sendto(answer(question, self._names), sender)
                except ValueError as error:
                    print(f"from {sender}: {error}", flush=True)  # noqa: T201 - to the log

    def _follow(self) -> None:
        while True:
            try:
                self._names = names_of(
                    self._items("/api/v1/services"), self._items("/apis/discovery.k8s.io/v1/endpointslices")
                )
            except OSError as error:
                print(f"the API server: {error}", flush=True)  # noqa: T201 - to the log
            time.sleep(1)

    def _items(self, path: str) -> list[dict[str, Any]]:
        with urllib.request.urlopen(self._url + path, context=self._context, timeout=5) as reply:  # noqa: S310 - https
            return json.load(reply)["items"]


def main() -> None:
    """Parse the arguments and serve."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--url", required=True, help="of the API server")
    arguments.add_argument("--pki", type=Path, required=True, help="folder with ca.crt and admin.crt")
    given = arguments.parse_args()
    Server(given.url, given.pki).run()


if __name__ == "__main__":
    main()
