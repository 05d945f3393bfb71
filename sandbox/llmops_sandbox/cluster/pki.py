"""Certificates of the sandbox: one authority, and one key pair for each client of the API server."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VALID = datetime.timedelta(days=3650)


@dataclass(frozen=True)
class Identity:
    """The holder of a certificate.

    Args:
        name: File name, without suffix.
        user: Common name; the API server takes it for the user.
        group: Organisation; the API server takes it for the group.
        hosts: Addresses and DNS names of a server certificate.
    """

    name: str
    user: str
    group: str = ""
    hosts: tuple[str, ...] = ()


def write_pki(folder: Path, identities: tuple[Identity, ...]) -> None:
    """Write the authority `ca` and a pair for each identity, unless they exist.

    A sandbox of an older version gets the pairs that it lacks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    authority, authority_key = _authority(folder)
    for identity in identities:
        path = folder / f"{identity.name}.crt"
        if not path.exists():
            key = ec.generate_private_key(ec.SECP256R1())
            _write_key(folder / f"{identity.name}.key", key)
            _write_certificate(path, _certificate(identity, key, authority, authority_key))


def write_accounts_key(folder: Path) -> None:
    """Write the pair `sa`, which signs the tokens of service accounts, unless it exists."""
    if not (folder / "sa.pub").exists():
        accounts = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        _write_key(folder / "sa.key", accounts)
        (folder / "sa.pub").write_bytes(
            accounts.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )


def _authority(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    path = folder / "ca.crt"
    if path.exists():
        key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return x509.load_pem_x509_certificate(path.read_bytes()), key
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _certificate(Identity("ca", "llmops-sandbox-ca"), key, None, key)
    _write_key(folder / "ca.key", key)
    _write_certificate(path, certificate)
    return certificate, key


def _write_certificate(path: Path, certificate: x509.Certificate) -> None:
    """Write it as a whole, after its key: a pair is complete once its certificate exists."""
    fresh = path.with_suffix(".new")
    fresh.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    fresh.rename(path)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )


def _certificate(
    identity: Identity,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    issuer_key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, identity.user)]
    if identity.group:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, identity.group))
    subject = x509.Name(attributes)
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + VALID)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        # RFC 5280, 4.2.1.3: an authority's certificate has it, and Python from 3.13 on takes none without.
        .add_extension(_usage(authority=issuer is None), critical=True)
    )
    if issuer is not None:
        builder = builder.add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
            critical=False,
        )
    if identity.hosts:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([_name(host) for host in identity.hosts]), critical=False
        )
    return builder.sign(issuer_key, hashes.SHA256())


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
