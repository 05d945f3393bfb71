"""etcd holds every Secret of the sandbox: it answers only with TLS, and only the API server."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from llmops_sandbox.cluster.controlplane import ControlPlane


def ask(url: str, context: ssl.SSLContext | None = None) -> int:
    with urllib.request.urlopen(url, context=context, timeout=5) as answer:
        return answer.status


def trusting(authority: Path, pair: Path | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority))
    # etcd's authority has no keyUsage, which Python 3.13 asks for.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if pair is not None:
        context.load_cert_chain(f"{pair}.crt", f"{pair}.key")
    return context


@pytest.mark.parametrize("port", ["etcd", "etcd-peer"])
def test_etcd_answers_the_api_server_alone(plane: ControlPlane, port: str) -> None:
    address = f"127.0.0.1:{plane.network().ports[port]}/version"
    pki = plane.folder / "pki"
    authority = pki / "etcd" / "ca.crt"
    with pytest.raises((urllib.error.URLError, OSError)):
        ask(f"http://{address}")
    for pair in (None, pki / "admin", pki / "kubelet", pki / "front-proxy"):
        with pytest.raises((urllib.error.URLError, OSError)):
            ask(f"https://{address}", trusting(authority, pair))
    assert ask(f"https://{address}", trusting(authority, pki / "etcd" / "client")) == 200
