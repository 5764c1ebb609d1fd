"""Speak libsodium's formats where another implementation has fixed them: sealed boxes and bare Ed25519 signatures.

The only module that imports PyNaCl, which is an extra (`xaynet`). Our own protocols use `crypto.seal`, which binds
everything to a context; these formats do not, so whoever uses them must say in the message what it is for.

    sealed box     epk (32) || crypto_box(message, nonce, receiver, esk),  nonce = BLAKE2b-24(epk || receiver)

`crypto_box` is X25519, HSalsa20 and XSalsa20-Poly1305. A fresh key pair (epk, esk) seals one message.

Source: libsodium's documentation, "Sealed boxes" and "Public-key signatures"; Bernstein, "Cryptography in NaCl", 2009;
RFC 8032.
"""

from __future__ import annotations

import hashlib
from typing import final

from ridotto.core.rng import Rng
from ridotto.crypto.seal import SealError, SignatureError
from ridotto.errors import LocalProtocolError, MissingExtraError

try:
    from nacl import bindings
    from nacl.exceptions import CryptoError
except ModuleNotFoundError as error:
    raise MissingExtraError("pynacl", "xaynet") from error

KEY_BYTES = 32
SIGNATURE_BYTES = 64
SEAL_BYTES = 48
"""What a sealed box is longer than its message: the ephemeral key and the tag."""

NONCE_BYTES = 24


@final
class BoxKey:
    """Receive sealed boxes: an X25519 key pair from 32 secret bytes. Raises LocalProtocolError on another length."""

    __slots__ = ("_private", "public")

    public: bytes
    """The public key, 32 bytes."""

    def __init__(self, private: bytes) -> None:
        _check_private(private)
        self._private = private
        self.public = bindings.crypto_scalarmult_base(private)

    def __repr__(self) -> str:
        return f"BoxKey({self.public.hex()[:8]}...)"

    @classmethod
    def generate(cls, rng: Rng) -> BoxKey:
        """Make a new key pair from 32 bytes of `rng`, which must be secret."""
        return cls(rng.bytes(KEY_BYTES))

    def to_bytes(self) -> bytes:
        """Return the private key, 32 bytes: a secret."""
        return self._private

    def open(self, box: bytes) -> bytes:
        """Return the message of a sealed box for this key.

        Raises SealError if it was changed, or sealed for another key, or is too short to be one.
        """
        if len(box) < SEAL_BYTES:
            raise SealError(f"a sealed box has at least {SEAL_BYTES} bytes, not {len(box)}")
        try:
            message: bytes = bindings.crypto_box_seal_open(bytes(box), self.public, self._private)
        except (CryptoError, ValueError, RuntimeError) as error:
            raise SealError("a sealed box does not open: it was changed, or sealed for another key") from error
        return message


def seal(message: bytes, receiver: bytes, rng: Rng) -> bytes:
    """Seal `message` for `receiver` (32 bytes): 48 bytes more than the message.

    rng: 32 fresh secret bytes are drawn for the ephemeral key; drawing the same ones twice would reveal the messages.
    Raises SealError if the receiver's key is malformed or of low order: anyone could open such a box.
    """
    if len(receiver) != KEY_BYTES:
        raise SealError(f"a receiver's key has {KEY_BYTES} bytes, not {len(receiver)}")
    ephemeral = BoxKey.generate(rng)
    nonce = hashlib.blake2b(ephemeral.public + receiver, digest_size=NONCE_BYTES).digest()
    try:
        box: bytes = bindings.crypto_box_easy(bytes(message), nonce, receiver, ephemeral.to_bytes())
    except (CryptoError, ValueError, RuntimeError) as error:
        raise SealError(f"public key {receiver[:4].hex()}... gives no shared secret") from error
    return ephemeral.public + box


@final
class SigningKey:
    """Sign bytes as they are, with Ed25519, from a seed of 32 secret bytes. Deterministic.

    Raises LocalProtocolError if the seed has another length.
    """

    __slots__ = ("_secret", "public")

    public: bytes
    """The public key, 32 bytes."""

    def __init__(self, seed: bytes) -> None:
        _check_private(seed)
        self.public, self._secret = bindings.crypto_sign_seed_keypair(seed)

    def __repr__(self) -> str:
        return f"SigningKey({self.public.hex()[:8]}...)"

    @classmethod
    def generate(cls, rng: Rng) -> SigningKey:
        """Make a new key from 32 bytes of `rng`, which must be secret."""
        return cls(rng.bytes(KEY_BYTES))

    def sign(self, message: bytes) -> bytes:
        """Return the signature of `message`, 64 bytes."""
        signed: bytes = bindings.crypto_sign(bytes(message), self._secret)
        return signed[:SIGNATURE_BYTES]


def verify_signed(public: bytes, signed: bytes) -> None:
    """Return if `signed` is a signature (64 bytes) of `public` (32 bytes) followed by what it signs.

    Accepts exactly what libsodium accepts: no key of low order, no number out of its range.
    Raises SignatureError otherwise.
    """
    try:
        bindings.crypto_sign_open(bytes(signed), bytes(public))
    except (CryptoError, ValueError, RuntimeError) as error:
        raise SignatureError(f"no valid signature of key {bytes(public[:4]).hex()}...") from error


def _check_private(private: bytes) -> None:
    if len(private) != KEY_BYTES:
        raise LocalProtocolError(f"a private key has {KEY_BYTES} bytes, not {len(private)}")
