"""Identities stay private on disk, and a request's header proves who sent exactly this request."""

import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from ridotto.core.rng import insecure_seeded_rng
from ridotto.core.wire import digest
from ridotto.crypto import identity as identity_module
from ridotto.crypto.identity import RequestAuthError, load_or_create_identity, sign_request, verify_request
from ridotto.crypto.seal import IdentityKey
from ridotto.errors import ConfigError, LocalProtocolError, StorageError

NOW = 1_800_000_000
BODY = digest(b"a frame")
posix_only = pytest.mark.skipif(os.name != "posix", reason="file modes are a POSIX matter")


def key(seed: int = 1) -> IdentityKey:
    return IdentityKey.generate(insecure_seeded_rng(seed))


def header(method: str = "POST", target: str = "/v1/messages?attempt=3", time: int = NOW) -> str:
    return sign_request(key(), method, target, time, BODY)


def check(text: str, now: float = NOW) -> bytes:
    return verify_request(text, "POST", "/v1/messages?attempt=3", BODY, now)


def test_identity_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "identity.pem"
    made = load_or_create_identity(path)
    assert load_or_create_identity(path).public == made.public
    assert path.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----\n")
    assert [entry.name for entry in path.parent.iterdir()] == ["identity.pem"]


@posix_only
def test_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "identity.pem"
    before = os.umask(0)
    try:
        load_or_create_identity(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@posix_only
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644, 0o601])
def test_refuses_file_that_others_may_touch(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "identity.pem"
    load_or_create_identity(path)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=f"mode 0{mode:o}.*chmod 600"):
        load_or_create_identity(path)


def test_two_processes_at_once_get_one_identity(tmp_path: Path) -> None:
    path = tmp_path / "identity.pem"
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(load_or_create_identity, [path] * 8))
    assert len({identity.public for identity in made}) == 1
    assert list(tmp_path.iterdir()) == [path]


def private_pem(key_type: type[Ed25519PrivateKey] | type[X25519PrivateKey], password: bytes | None = None) -> bytes:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    return key_type.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        private_pem(X25519PrivateKey),
        private_pem(Ed25519PrivateKey, b"password"),
        b"\n" * 5000 + private_pem(Ed25519PrivateKey),
    ],
    ids=["empty", "garbage", "bad PEM", "other kind", "encrypted", "long"],
)
def test_refuses_file_that_is_no_identity_and_leaves_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "identity.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="not a ridotto identity"):
        load_or_create_identity(path)
    assert path.read_bytes() == content


def test_refuses_place_where_no_file_can_be(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch(0o600)
    for path in (tmp_path / "folder", tmp_path / "file" / "identity.pem"):
        with pytest.raises(ConfigError):
            load_or_create_identity(path)


def test_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(identity_module.os, "fsync", full)
    with pytest.raises(StorageError, match="the disk is full: make room"):
        load_or_create_identity(tmp_path / "identity.pem")
    assert not list(tmp_path.iterdir())


def test_signed_request_names_its_sender() -> None:
    assert check(header()) == key().public


def test_header_has_its_documented_form() -> None:
    text = header()
    assert text.startswith(f'Ridotto key="{key().public.hex()}", time="{NOW}", signature="')
    assert text.endswith('=="')


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("GET", "/v1/messages?attempt=3", BODY),
        ("POST", "/v1/messages?attempt=4", BODY),
        ("POST", "/v1/messages", BODY),
        ("POST", "/v1/messages?attempt=3", digest(b"another frame")),
        ("post", "/v1/messages?attempt=3", BODY),
        ("POST", "/v1/\nmessages", BODY),
        ("POST", "", BODY),
        ("POST", "/v1/messages?attempt=3", b""),
    ],
)
def test_refuses_header_of_another_request(method: str, target: str, body: bytes) -> None:
    with pytest.raises(RequestAuthError, match="not over this request"):
        verify_request(header(), method, target, body, NOW)


def test_refuses_changed_key_and_time() -> None:
    text = header()
    with pytest.raises(RequestAuthError, match="not over this request"):
        check(text.replace(str(NOW), str(NOW + 1)))
    with pytest.raises(RequestAuthError, match="not over this request"):
        check(text.replace(key().public.hex(), key(2).public.hex()))


@pytest.mark.parametrize("off", [-300, 0, 300])
def test_tolerates_small_clock_skew(off: int) -> None:
    assert check(header(time=NOW + off)) == key().public


@pytest.mark.parametrize(("off", "words"), [(-412, "412 s behind ours"), (301, "301 s ahead of ours")])
def test_tells_large_clock_skew(off: int, words: str) -> None:
    with pytest.raises(RequestAuthError, match=words) as caught:
        check(header(time=NOW + off))
    assert caught.value.skew_s == off


def test_narrower_tolerance_holds() -> None:
    with pytest.raises(RequestAuthError, match="at most 5 s"):
        verify_request(header(time=NOW - 6), "POST", "/v1/messages?attempt=3", BODY, NOW, tolerance_s=5)


def test_refuses_clock_that_is_no_number() -> None:
    with pytest.raises(RequestAuthError):
        check(header(), float("nan"))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: text + "\n",
        lambda text: " " + text,
        lambda text: text.replace("Ridotto", "ridotto"),
        lambda text: text.replace("Ridotto", "Bearer"),
        lambda text: text.replace(", ", ","),
        lambda text: text.replace('time="', 'time="0'),
        lambda text: text.replace('time="', 'time="-'),
        lambda text: text.replace(str(NOW), "\u0661\u0668"),
        lambda text: text.replace(key().public.hex(), key().public.hex().upper()),
        lambda text: text.replace(key().public.hex(), key().public.hex()[:-2]),
        lambda text: text.replace('=="', '"'),
        lambda text: text + ', more="1"',
        lambda text: text + text,
    ],
)
def test_refuses_malformed_header(change: Callable[[str], str]) -> None:
    with pytest.raises(RequestAuthError, match="header is not"):
        check(change(header()))


def test_refuses_second_spelling_of_signature() -> None:
    text = header()
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = text[-4]
    with pytest.raises(RequestAuthError, match="canonical"):
        check(text[:-4] + digits[digits.index(last) + 1] + '=="')


@pytest.mark.fuzz
@given(st.text(max_size=300), st.text(max_size=5), st.text(max_size=20), st.binary(max_size=33))
def test_only_auth_errors_leave_verify(text: str, method: str, target: str, body: bytes) -> None:
    for candidate in (text, header()):
        with pytest.raises(RequestAuthError):
            verify_request(candidate, method, target, body, NOW)


@pytest.mark.parametrize(
    ("method", "target", "time", "body"),
    [
        ("post", "/", NOW, BODY),
        ("", "/", NOW, BODY),
        ("POST", "v1", NOW, BODY),
        ("POST", "/a b", NOW, BODY),
        ("POST", "/\n", NOW, BODY),
        ("POST", "/\u00e9", NOW, BODY),
        ("POST", "/", -1, BODY),
        ("POST", "/", 10**12, BODY),
        ("POST", "/", NOW, b"short"),
    ],
)
def test_refuses_to_sign_ambiguous_request(method: str, target: str, time: int, body: bytes) -> None:
    with pytest.raises(LocalProtocolError):
        sign_request(key(), method, target, time, body)
