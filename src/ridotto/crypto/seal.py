"""Sign, agree on keys, and seal small messages: Ed25519, X25519 with HKDF, AES-GCM.

Everything is bound to what it is for. A signature covers a context word, so that one made for a key book can't be
shown as one for a receipt; an agreed key depends on the session's id, a label and the pair of names, so that a message
moved to another session, purpose or pair does not open.

Ephemeral `ExchangeKey`s give forward secrecy between sessions; `IdentityKey`s last and only sign.

Source: RFC 8032 (Ed25519), RFC 7748 (X25519), RFC 5869 (HKDF), NIST SP 800-38D (GCM).
"""

from __future__ import annotations

from functools import lru_cache
from typing import final

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ridotto.core.rng import Rng
from ridotto.errors import LocalProtocolError, ProtocolError

KEY_BYTES = 32
SIGNATURE_BYTES = 64
SEAL_OVERHEAD_BYTES = 16

_DOMAIN = b"ridotto/1 "
_NONCE = bytes(12)
_SHA256 = SHA256()

_P = 2**255 - 19
_ORDER_EIGHT = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_LOW_ORDER_Y = frozenset({0, 1, _P - 1, _ORDER_EIGHT, _P - _ORDER_EIGHT})
"""The y of Ed25519's eight points of low order. Under such a key anybody makes signatures over any message, so whoever
enrolled it could deny every one of its own. RFC 8032 leaves it to the verifier to refuse them."""


class SignatureError(ProtocolError):
    """Refuse a signature that its key did not make over this message in this context."""


class KeyExchangeError(ProtocolError):
    """Refuse a public key that gives no shared secret."""


class SealError(ProtocolError):
    """Refuse a sealed message that was changed, or sealed under another key or for another purpose."""


@final
class IdentityKey:
    """Sign as a party that is known by its Ed25519 public key."""

    __slots__ = ("_key", "public")

    public: bytes
    """The public key, 32 bytes: what the party is known by."""

    def __init__(self, private: bytes) -> None:
        _check_private(private)
        self._key = Ed25519PrivateKey.from_private_bytes(private)
        self.public = self._key.public_key().public_bytes_raw()

    def __repr__(self) -> str:
        return f"IdentityKey({self.public.hex()[:8]}...)"

    @classmethod
    def generate(cls, rng: Rng) -> IdentityKey:
        """Make a new identity from 32 bytes of `rng`, which must be secret."""
        return cls(rng.bytes(KEY_BYTES))

    @classmethod
    def from_bytes(cls, private: bytes) -> IdentityKey:
        """Restore an identity from `to_bytes`. Raises LocalProtocolError if it has not 32 bytes."""
        return cls(private)

    def to_bytes(self) -> bytes:
        """Return the private key, 32 bytes: a secret."""
        return self._key.private_bytes_raw()

    def sign(self, context: str, message: bytes) -> bytes:
        """Sign `message` for one purpose and return 64 bytes.

        context: a word that names the purpose and, with the message, decides what is signed; it has no NUL, which ends
        it. Signed is b"ridotto/1 " || context || 0x00 || message. Deterministic.
        Raises LocalProtocolError if the context is empty or contains NUL.
        """
        return self._key.sign(_in_context(context, message))


def verify(public: bytes, context: str, message: bytes, signature: bytes) -> None:
    """Return if `signature` is that of `public` (32 bytes) over `message` in `context`; raise SignatureError if not.

    Also raises SignatureError if the key or the signature is malformed, because both come from a peer, and
    LocalProtocolError on an impossible context, because that comes from us.
    """
    signed = _in_context(context, message)
    try:
        _parse_verifier(bytes(public)).verify(bytes(signature), signed)
    except (InvalidSignature, ValueError) as error:
        raise SignatureError(f"no valid signature of key {bytes(public[:4]).hex()}... for {context!r}") from error


@final
class ExchangeKey:
    """Agree on symmetric keys with others: an X25519 key pair, for one session."""

    __slots__ = ("_key", "public")

    public: bytes
    """The public key, 32 bytes."""

    def __init__(self, private: bytes) -> None:
        _check_private(private)
        self._key = X25519PrivateKey.from_private_bytes(private)
        self.public = self._key.public_key().public_bytes_raw()

    def __repr__(self) -> str:
        return f"ExchangeKey({self.public.hex()[:8]}...)"

    @classmethod
    def generate(cls, rng: Rng) -> ExchangeKey:
        """Make a new key pair from 32 bytes of `rng`, which must be secret."""
        return cls(rng.bytes(KEY_BYTES))

    @classmethod
    def from_bytes(cls, private: bytes) -> ExchangeKey:
        """Restore a key pair from `to_bytes`. Raises LocalProtocolError if it has not 32 bytes."""
        return cls(private)

    def to_bytes(self) -> bytes:
        """Return the private key, 32 bytes: a secret."""
        return self._key.private_bytes_raw()

    def agree(
        self, peer_public: bytes, sid: bytes, label: str, info: bytes, length: int = KEY_BYTES, second: bytes = b""
    ) -> bytes:
        """Return the key of `length` bytes that only this side and the peer can compute.

        sid: the session's id. label: what the key is for. info: who the two are, in the same order. Both sides get the
        same key if all three agree: HKDF-SHA256(X25519(own, peer), salt=sid, info=label || 0x00 || info).
        The key does not depend on the direction. Where both sides seal, the label or `info` must name the sender.
        second: another secret of 32 bytes that only the two know (`crypto.kem`), put before X25519's; the key is secret
        while one of them is, if `info` names what carried the second one.
        Raises KeyExchangeError if the peer's key is malformed or of low order: its shared secret would be all zeros,
        and known to everybody (RFC 7748, section 6.1). LocalProtocolError if sid or label is empty, label has a NUL,
        or there is a second secret that has not 32 bytes.
        """
        if len(second) not in (0, KEY_BYTES):
            raise LocalProtocolError(f"a second secret has {KEY_BYTES} bytes, not {len(second)}")
        if not sid:
            raise LocalProtocolError("an agreed key belongs to a session: sid is empty")
        full_info = _terminated(label, "label") + info
        try:
            # OpenSSL refuses the all-zero secret itself; a test shows it every point of low order.
            shared = self._key.exchange(X25519PublicKey.from_public_bytes(bytes(peer_public)))
        except ValueError as error:
            raise KeyExchangeError(f"public key {bytes(peer_public[:4]).hex()}... gives no shared secret") from error
        return HKDF(_SHA256, length, sid, full_info).derive(second + shared)


def seal(key: bytes, plaintext: bytes, associated: bytes) -> bytes:
    """Encrypt and authenticate `plaintext`, authenticate `associated`; return 16 bytes more than `plaintext`.

    key: 16 or 32 bytes. Precondition: this key seals exactly one message, ever. Then the nonce may be fixed at zero,
    needs no room on the wire and no state that a restart could lose. A second message under the key would reveal the
    XOR of the two and allow forgeries; so derive a key per sender, receiver and message, as `ExchangeKey.agree` lets
    you. Sealing the same message again, as a replayed machine does, gives the same bytes and harms nothing.
    Raises LocalProtocolError if the key has another length.
    """
    return _cipher(key).encrypt(_NONCE, plaintext, associated)


def open_sealed(key: bytes, ciphertext: bytes, associated: bytes) -> bytes:
    """Return the plaintext that `seal` took with the same `key` and `associated`.

    Raises SealError if anything differs, without telling what; LocalProtocolError if the key has not 16 or 32 bytes.
    """
    cipher = _cipher(key)
    try:
        return cipher.decrypt(_NONCE, ciphertext, associated)
    except (InvalidTag, ValueError) as error:
        raise SealError("a sealed message does not open: it was changed, or sealed for another purpose") from error


# A coordinator verifies every request of a participant under the same key. Public keys only; the bound keeps an
# attacker who shows many keys from filling the memory.
@lru_cache(maxsize=4096)
def _parse_verifier(public: bytes) -> Ed25519PublicKey:
    key = Ed25519PublicKey.from_public_bytes(public)
    # The top bit is the sign of x; y may be written unreduced.
    if (int.from_bytes(public, "little") & (2**255 - 1)) % _P in _LOW_ORDER_Y:
        raise ValueError("a key of low order")
    return key


def _cipher(key: bytes) -> AESGCM:
    if len(key) not in (16, 32):
        raise LocalProtocolError(f"a sealing key has 16 or 32 bytes, not {len(key)}")
    return AESGCM(key)


def _in_context(context: str, message: bytes) -> bytes:
    return _DOMAIN + _terminated(context, "context") + message


def _terminated(word: str, what: str) -> bytes:
    # NUL ends the word. One inside it would let two different (word, message) pairs be the same bytes.
    if not word or "\0" in word:
        raise LocalProtocolError(f"a {what} is a word without NUL, not {word!r}")
    return word.encode() + b"\0"


def _check_private(private: bytes) -> None:
    if len(private) != KEY_BYTES:
        raise LocalProtocolError(f"a private key has {KEY_BYTES} bytes, not {len(private)}")
