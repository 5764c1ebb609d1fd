"""Sealed boxes and signatures in libsodium's formats, against libsodium's own calls."""

from __future__ import annotations

import pytest
from nacl.public import PrivateKey, PublicKey, SealedBox
from nacl.signing import SigningKey as NaclKey

from ridotto.core.rng import insecure_seeded_rng
from ridotto.crypto.seal import SealError, SignatureError
from ridotto.crypto.sodium import SEAL_BYTES, BoxKey, SigningKey, seal, verify_signed
from ridotto.errors import LocalProtocolError

RNG = insecure_seeded_rng(1)
ORDER_8 = bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800")
LOW_ORDER = [bytes(32), b"\1" + bytes(31), ORDER_8]
"""Points of X25519 with which every shared secret is zero."""


@pytest.mark.parametrize("size", [0, 1, 32, 5000])
def test_boxes_are_those_of_libsodium(size: int) -> None:
    key, message = BoxKey.generate(RNG), RNG.bytes(size)
    box = seal(message, key.public, RNG)
    assert len(box) == size + SEAL_BYTES
    assert key.open(box) == message
    assert SealedBox(PrivateKey(key.to_bytes())).decrypt(box) == message
    assert key.open(SealedBox(PublicKey(key.public)).encrypt(message)) == message


def test_the_same_randomness_seals_the_same_box() -> None:
    key = BoxKey(b"k" * 32)
    assert seal(b"message", key.public, insecure_seeded_rng(2)) == seal(b"message", key.public, insecure_seeded_rng(2))


def test_refuses_boxes_that_were_changed_or_are_for_others() -> None:
    key = BoxKey.generate(RNG)
    box = seal(b"message", key.public, RNG)
    for place in range(len(box)):
        changed = bytearray(box)
        changed[place] ^= 1
        with pytest.raises(SealError, match="does not open"):
            key.open(bytes(changed))
    for wrong in (b"", box[:47], box[:-1], box + b"x"):
        with pytest.raises(SealError):
            key.open(wrong)
    with pytest.raises(SealError, match="does not open"):
        BoxKey.generate(RNG).open(box)
    with pytest.raises(SealError, match="does not open"):
        key.open(bytes(32) + box[32:])


@pytest.mark.parametrize("receiver", [*LOW_ORDER, b"", bytes(31)])
def test_refuses_receivers_that_anyone_could_be(receiver: bytes) -> None:
    with pytest.raises(SealError):
        seal(b"message", receiver, RNG)


def test_signatures_are_those_of_libsodium() -> None:
    key = SigningKey.generate(RNG)
    signature = key.sign(b"message")
    assert SigningKey(bytes(32)).sign(b"message") == NaclKey(bytes(32)).sign(b"message").signature
    verify_signed(key.public, signature + b"message")
    for public, signed in (
        (key.public, signature + b"massage"),
        (bytes(32), signature + b"message"),
        (b"", signature + b"message"),
        (key.public, b""),
        (key.public, bytes(64)),
    ):
        with pytest.raises(SignatureError):
            verify_signed(public, signed)


def test_refuses_private_keys_of_other_lengths_and_shows_none() -> None:
    for kind in (BoxKey, SigningKey):
        with pytest.raises(LocalProtocolError, match="32 bytes, not 31"):
            kind(bytes(31))
        assert (b"k" * 32).hex()[8:] not in repr(kind(b"k" * 32))
