from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmops_sandbox.containers.names import answer, names_of

SERVICES = [
    {"metadata": {"name": "web", "namespace": "a"}, "spec": {"clusterIP": "10.96.0.9"}},
    {"metadata": {"name": "db", "namespace": "a"}, "spec": {"clusterIP": "None"}},
]
SLICES = [
    {
        "metadata": {"namespace": "a", "labels": {"kubernetes.io/service-name": name}},
        "endpoints": [
            {"addresses": ["10.244.0.7"], "hostname": "db-0", "conditions": {"ready": True}},
            {"addresses": ["10.244.0.8"], "hostname": "db-1", "conditions": {"ready": False}},
        ],
    }
    for name in ("db", "web")
]
NAMES = names_of(SERVICES, SLICES)
A, AAAA = 1, 28


def question(name: str, kind: int = A) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack(">2sHHHHH", b"id", 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", kind, 1)


def addresses(reply: bytes) -> tuple[int, list[str]]:
    """The code of the answer, and its addresses."""
    _, flags, _, count, _, _ = struct.unpack_from(">2sHHHHH", reply)
    records = reply[len(reply) - 16 * count :]
    return flags & 15, [".".join(map(str, records[16 * n + 12 : 16 * n + 16])) for n in range(count)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("web.a.svc.cluster.local", (0, ["10.96.0.9"])),
        ("WEB.a.svc.Cluster.local", (0, ["10.96.0.9"])),
        ("db.a.svc.cluster.local", (0, ["10.244.0.7"])),
        ("db-1.db.a.svc.cluster.local", (0, ["10.244.0.8"])),
        ("web.b.svc.cluster.local", (3, [])),
        ("example.com", (3, [])),
    ],
)
def test_services_and_pods_of_headless_ones_have_names(name: str, expected: tuple[int, list[str]]) -> None:
    assert addresses(answer(question(name), NAMES)) == expected


def test_a_known_name_without_such_an_address_is_not_unknown() -> None:
    """Resolvers that ask for IPv6 first would else give up."""
    assert addresses(answer(question("web.a.svc.cluster.local", AAAA), NAMES)) == (0, [])


@given(st.binary(max_size=80))
def test_no_message_stops_the_server(message: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert answer(message, NAMES)[:2] == message[:2]
