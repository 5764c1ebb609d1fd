"""Read vectors with nothing of ours: hashes, ciphers and curves as `cryptography` and the standard library have them.

Numbers are Python's. Slow and short, so that a reader can hold each function against the page that it follows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

PRIME = 2**31 - 1


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def be32(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(4, "big") for number in numbers)


def hkdf(key: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    return HKDF(SHA256(), length, salt, info).derive(key)


def agree(
    private: str, public: bytes, sid: bytes, label: bytes, info: bytes, length: int = 32, before: bytes = b""
) -> bytes:
    shared = X25519PrivateKey.from_private_bytes(bytes.fromhex(private)).exchange(
        X25519PublicKey.from_public_bytes(public)
    )
    return hkdf(before + shared, sid, label + b"\x00" + info, length)


def public_of(private: str) -> bytes:
    return X25519PrivateKey.from_private_bytes(bytes.fromhex(private)).public_key().public_bytes_raw()


def identity_of(private: str) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(private)).public_key().public_bytes_raw()


LOW_ORDER = ("01", "ec" + "ff" * 30 + "7f", "00", "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")
"""Encodings of points of order 1, 2, 4 and 8 of Ed25519; the other one of order 8 has the negated y."""


def check_signature(public: bytes, context: str, statement: bytes, signature: bytes) -> None:
    p = 2**255 - 19
    low = {int.from_bytes(bytes.fromhex(one), "little") for one in LOW_ORDER}
    if (int.from_bytes(public, "little") % 2**255) % p in low | {p - y for y in low}:
        raise ValueError("libraries take this key, and wire.md does not")
    signed = b"ridotto/1 " + context.encode() + b"\x00" + statement
    Ed25519PublicKey.from_public_bytes(public).verify(signature, signed)


def open_box(key: bytes, box: bytes, associated: bytes) -> bytes:
    return AESGCM(key).decrypt(bytes(12), box, associated)


def stream(key: bytes, start: int, length: int) -> bytes:
    """AES-CTR in chunks of 2^20 bytes, one block after the other."""
    found = b""
    while len(found) < length:
        chunk, offset = divmod(start + len(found), 1 << 20)
        counter = chunk.to_bytes(12, "big") + (2 + offset // 16).to_bytes(4, "big")
        block = Cipher(algorithms.AES(key), modes.CTR(counter)).encryptor().update(bytes(16))
        found += block[offset % 16 :]
    return found[:length]


def container(bits: int) -> int:
    return next(width for width in (8, 16, 32, 64) if bits <= width)


def mask(seed: bytes, sid: bytes, bits: int, count: int, label: bytes = b"mask") -> list[int]:
    """The elements of a mask, each of as many bits as the container of `bits` has."""
    size = container(bits) // 8
    data = stream(hkdf(seed, sid, label, 16), 0, size * count)
    return [int.from_bytes(data[size * i : size * (i + 1)], "little") for i in range(count)]


def packed(values: Iterable[int], bits: int) -> bytes:
    number, count = 0, 0
    for value in values:
        number |= value << (bits * count)
        count += 1
    return number.to_bytes((bits * count + 7) // 8, "little")


def unpacked(data: bytes, bits: int, count: int) -> list[int]:
    number = int.from_bytes(data, "little")
    return [(number >> (bits * i)) % 2**bits for i in range(count)]


def decode(header: str) -> list[object]:
    """The fields of a frame without attachment, its type first."""
    frame = bytes.fromhex(header)
    assert frame[0] == 1
    assert int.from_bytes(frame[1:5], "little") == len(frame) - 5
    found: list[object] = msgspec.msgpack.decode(frame[5:])
    return found


def share_words(share: bytes) -> list[int]:
    assert len(share) == 36
    return [int.from_bytes(share[4 * i : 4 * i + 4], "little") for i in range(9)]


def reconstruct(shares: Mapping[int, bytes]) -> bytes:
    """Lagrange's interpolation at zero, limb by limb, of all shares that are given."""
    number = 0
    for limb in range(9):
        value = 0
        for point, share in shares.items():
            weight = 1
            for other in shares:
                if other != point:
                    weight = weight * other * pow(other - point, -1, PRIME) % PRIME
            value += weight * share_words(share)[limb]
        number |= (value % PRIME) << (30 * limb)
    return number.to_bytes(32, "little")


def share_at(secret: bytes, coefficients: Sequence[Sequence[int]], point: int) -> bytes:
    """The share of a secret at a point. coefficients: of x, x^2, ..., each nine."""
    number = int.from_bytes(secret, "little")
    limbs = [(number >> (30 * i)) % 2**30 for i in range(9)]
    values = [
        limb + sum(row[i] * pow(point, power, PRIME) for power, row in enumerate(coefficients, 1))
        for i, limb in enumerate(limbs)
    ]
    return b"".join((value % PRIME).to_bytes(4, "little") for value in values)


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962, section 2.1."""
    if len(leaves) < 2:
        return sha256(b"\x00", leaves[0]) if leaves else sha256()
    split = 1
    while 2 * split < len(leaves):
        split *= 2
    return sha256(b"\x01", merkle_root(leaves[:split]), merkle_root(leaves[split:]))
