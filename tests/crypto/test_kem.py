"""Encapsulated secrets come out again, wrong ones are refused by size and otherwise become other secrets."""

import hashlib

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from ridotto.core.rng import insecure_seeded_rng
from ridotto.crypto import kem
from ridotto.crypto.kem import DecapsulationKey, check_encapsulation_key, encapsulate, require_kem
from ridotto.crypto.seal import KeyExchangeError
from ridotto.errors import ConfigError, LocalProtocolError

KEY = DecapsulationKey.generate(insecure_seeded_rng(1))
Q = 3329


def test_what_is_encapsulated_comes_out_again() -> None:
    secret, ciphertext = encapsulate(KEY.public)
    assert (len(KEY.public), len(secret), len(ciphertext)) == (1184, 32, 1088)
    assert KEY.decapsulate(ciphertext) == secret


def test_every_encapsulation_is_another() -> None:
    assert encapsulate(KEY.public) != encapsulate(KEY.public)


def test_a_key_is_that_of_its_seed() -> None:
    again = DecapsulationKey(insecure_seeded_rng(1).bytes(64))
    secret, ciphertext = encapsulate(again.public)
    assert again.public == KEY.public
    assert KEY.decapsulate(ciphertext) == secret


@given(st.integers(0, 1087), st.integers(1, 255))
def test_a_ciphertext_that_was_changed_gives_the_secret_of_implicit_rejection(place: int, flip: int) -> None:
    """FIPS 203, algorithm 18, step 7: SHAKE256(z || ciphertext), whatever was changed."""
    secret, ciphertext = encapsulate(KEY.public)
    changed = bytearray(ciphertext)
    changed[place] ^= flip
    rejected = hashlib.shake_256(insecure_seeded_rng(1).bytes(64)[32:] + changed).digest(32)
    assert KEY.decapsulate(bytes(changed)) == rejected != secret


def test_a_ciphertext_for_another_key_gives_another_secret() -> None:
    other = DecapsulationKey.generate(insecure_seeded_rng(2))
    secret, ciphertext = encapsulate(other.public)
    assert KEY.decapsulate(ciphertext) != secret


@pytest.mark.parametrize("length", [0, 1087, 1089])
def test_refuses_ciphertexts_of_other_length(length: int) -> None:
    with pytest.raises(KeyExchangeError, match=f"{length} bytes are no ML-KEM-768 ciphertext"):
        KEY.decapsulate(bytes(length))


@pytest.mark.parametrize("public", [b"", KEY.public[:-1], KEY.public + b"\0", b"\xff" * 1184])
def test_refuses_keys_that_are_none(public: bytes) -> None:
    for use in (check_encapsulation_key, encapsulate):
        with pytest.raises(KeyExchangeError, match="none of ML-KEM-768"):
            use(public)


def test_refuses_a_key_with_a_coefficient_that_is_not_reduced() -> None:
    """FIPS 203, section 7.2: q itself, in the first 12 bits, is 0 written otherwise."""
    public = bytes([Q & 0xFF, KEY.public[1] & 0xF0 | Q >> 8]) + KEY.public[2:]
    with pytest.raises(KeyExchangeError, match="none of ML-KEM-768"):
        check_encapsulation_key(public)


@pytest.mark.parametrize("length", [0, 32, 63, 65])
def test_refuses_private_keys_of_other_length(length: int) -> None:
    with pytest.raises(LocalProtocolError, match=f"64 bytes, not {length}"):
        DecapsulationKey(bytes(length))


def test_shows_no_secret() -> None:
    assert repr(KEY) == f"DecapsulationKey({KEY.public.hex()[:8]}...)"


def test_says_what_to_install_where_the_library_has_no_ml_kem(monkeypatch: pytest.MonkeyPatch) -> None:
    require_kem()

    def refuse(*_: object) -> None:
        raise UnsupportedAlgorithm("ML-KEM-768 is not supported by this backend.")

    monkeypatch.setattr(MLKEM768PrivateKey, "from_seed_bytes", refuse)
    monkeypatch.setattr(kem.MLKEM768PublicKey, "from_public_bytes", refuse)
    kem.forget_keys()
    for use in (require_kem, lambda: check_encapsulation_key(KEY.public), lambda: encapsulate(KEY.public)):
        with pytest.raises(ConfigError, match=r"OpenSSL.*\(3\.5 is the first.*pip install .*--only-binary"):
            use()
