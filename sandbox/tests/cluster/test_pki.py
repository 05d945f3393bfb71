from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path

import pytest
from cryptography import x509
from llmops_sandbox.cluster.controlplane import IDENTITIES
from llmops_sandbox.cluster.pki import Identity, write_pki


@pytest.fixture
def pki(tmp_path: Path) -> Path:
    write_pki(tmp_path, IDENTITIES)
    return tmp_path


def test_a_client_that_is_strict_about_certificates_takes_them(pki: Path) -> None:
    """Python is so by default from 3.13 on: it refuses an authority without key usage."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pki / "apiserver.crt", pki / "apiserver.key")
    server.load_verify_locations(pki / "ca.crt")
    server.verify_mode = ssl.CERT_REQUIRED
    server.verify_flags |= ssl.VERIFY_X509_STRICT
    client = ssl.create_default_context(cafile=str(pki / "ca.crt"))
    client.load_cert_chain(pki / "admin.crt", pki / "admin.key")
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    near, far = socket.socketpair()

    def serve() -> None:
        with server.wrap_socket(far, server_side=True) as connection:
            connection.sendall(connection.recv(1))

    thread = threading.Thread(target=serve)
    thread.start()
    with client.wrap_socket(near, server_hostname="kubernetes.default.svc") as connection:
        connection.sendall(b"x")
        assert connection.recv(1) == b"x"
    thread.join()


def test_only_the_authority_signs_certificates(pki: Path) -> None:
    signs = {
        path.stem: x509.load_pem_x509_certificate(path.read_bytes())
        .extensions.get_extension_for_class(x509.KeyUsage)
        .value.key_cert_sign
        for path in pki.glob("*.crt")
    }
    assert [name for name, may in signs.items() if may] == ["ca"]
    assert set(signs) == {"ca", *(identity.name for identity in IDENTITIES)}


def test_a_folder_of_an_older_version_gets_the_pairs_that_it_lacks(pki: Path) -> None:
    before = (pki / "admin.crt").read_bytes()
    write_pki(pki, (*IDENTITIES, Identity("proxy", "system:kube-proxy")))
    assert (pki / "proxy.crt").exists()
    assert (pki / "admin.crt").read_bytes() == before
