"""Certificates for TLS between parties that know each other: self-signed, one a party, pinned byte for byte.

There is no authority: whoever runs a party hands its certificate to the others, and a connection's other end is who
owns that certificate, or nobody. A certificate is valid for ten years: a pin ends when it is taken away, not by date.
"""

from __future__ import annotations

import datetime
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from ridotto.errors import ConfigError, StorageError

VALID = datetime.timedelta(days=3650)
CLOCK_SKEW = datetime.timedelta(days=1)


def make_certificate(name: str, folder: Path) -> tuple[Path, Path]:
    """Make a key and its certificate for `name`; return the paths of both: folder/name.pem and folder/name.key.

    The key is Ed25519 in PKCS #8, mode 0600; it is never overwritten.
    Raises StorageError if a file is there already or can't be written.
    """
    key = Ed25519PrivateKey.generate()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + VALID)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, None)
    )
    paths = folder / f"{name}.pem", folder / f"{name}.key"
    _write(paths[1], key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    _write(paths[0], certificate.public_bytes(Encoding.PEM), 0o644)
    return paths


def read_certificate(path: Path) -> bytes:
    """Return the certificate in a PEM file as DER: what is compared with what the other end shows.

    Raises ConfigError if it can't be read or is no certificate.
    """
    try:
        return x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(Encoding.DER)
    except OSError as error:
        raise ConfigError(f"the certificate {path} can't be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is no certificate in PEM") from error


def _write(path: Path, data: bytes, mode: int) -> None:
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
    except OSError as error:
        raise StorageError(f"{path} can't be written: {error.strerror or error}") from error
