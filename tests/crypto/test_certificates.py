"""Self-signed certificates: files, modes, and what is refused."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from ridotto.crypto.certificates import make_certificate, read_certificate
from ridotto.errors import ConfigError, StorageError


def test_makes_a_pair_that_tls_takes(tmp_path: Path) -> None:
    certificate, key = make_certificate("alice", tmp_path)
    assert key.stat().st_mode & 0o777 == 0o600
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    assert read_certificate(certificate) == ssl.PEM_cert_to_DER_cert(certificate.read_text())


def test_never_overwrites_a_key(tmp_path: Path) -> None:
    _, key = make_certificate("alice", tmp_path)
    before = key.read_bytes()
    with pytest.raises(StorageError, match=r"alice\.key can't be written"):
        make_certificate("alice", tmp_path)
    assert key.read_bytes() == before


def test_refuses_what_is_no_certificate(tmp_path: Path) -> None:
    (tmp_path / "text.pem").write_text("hello")
    with pytest.raises(ConfigError, match="is no certificate"):
        read_certificate(tmp_path / "text.pem")
    with pytest.raises(ConfigError, match="can't be read"):
        read_certificate(tmp_path / "absent.pem")
