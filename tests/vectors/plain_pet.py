"""PET as docs/protocols/xaynet.md has it, with libsodium, OpenSSL and Python's integers, and nothing of ours."""

from __future__ import annotations

import hashlib
import math
import struct
from fractions import Fraction
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from nacl import bindings

from tests.vectors.files import load

FILE = load("xaynet.json")
ORDERS = {config: (int(order, 16), number, draw) for config, order, number, draw in FILE["orders"]}


def shifts(config: str) -> tuple[int, int, int]:
    """A, E and M by the page's table. Without a bound, A is the largest magnitude of the type."""
    _, data, bound, models = bytes.fromhex(config)
    largest = {0: int(3.4028234663852886e38), 1: int(1.7976931348623157e308), 2: 2**31, 3: 2**63}
    digits = {0: 45, 1: 324, 2: 10, 3: 10} if bound == 255 else {0: 10, 1: 20, 2: 10, 3: 10}
    return largest[data] if bound == 255 else 10**bound, 10 ** digits[data], 10**models


def probably_prime(number: int) -> bool:
    """Fermat's test, with bases enough for numbers that nobody chose to deceive."""
    return all(pow(base, number - 1, number) == 1 for base in (2, 3, 5, 7, 11, 13, 17) if number % base)


class Stream:
    """The ChaCha20 stream of a seed; a draw uses up whole words of 32 bits."""

    def __init__(self, seed: bytes) -> None:
        self._cipher = Cipher(algorithms.ChaCha20(seed, bytes(16)), None).encryptor()

    def read(self, size: int) -> bytes:
        return self._cipher.update(bytes(-(-size // 4) * 4))[:size]

    def element(self, config: str) -> int:
        order, _, draw = ORDERS[config]
        while (number := int.from_bytes(self.read(draw), "little")) >= order:
            pass
        return number


def mask_of(seed: bytes, row: dict[str, Any], length: int) -> tuple[int, list[int]]:
    stream = Stream(seed)
    unit = stream.element(row["unit_config"])
    return unit, [stream.element(row["vect_config"]) for _ in range(length)]


def encode(weight: float, scalar: Fraction, config: str) -> int:
    largest, scale, _ = shifts(config)
    clamped = min(max(Fraction(weight) * scalar, Fraction(-largest)), Fraction(largest))
    return math.floor((clamped + largest) * scale)


def mean_of(row: dict[str, Any], total: list[int], mask: list[int], unit: int, unit_mask: int) -> list[Fraction]:
    largest, scale, _ = shifts(row["unit_config"])
    k = row["models"]
    scalars = Fraction((unit - unit_mask) % ORDERS[row["unit_config"]][0], scale) - k * largest
    bound, units, _ = shifts(row["vect_config"])
    order = ORDERS[row["vect_config"]][0]
    numbers = [Fraction((a - b) % order, units) - k * bound for a, b in zip(total, mask, strict=True)]
    assert row.get("scalars", str(scalars)) == str(scalars)
    return [number / scalars for number in numbers]


def is_chosen(signature: bytes, chance: float) -> bool:
    number = int.from_bytes(hashlib.sha256(signature).digest(), "little")
    return Fraction(number, 2**256 - 1) <= Fraction(chance)


def role_of(private: bytes, seed: bytes, chances: tuple[float, float]) -> tuple[str, bytes, bytes]:
    key = Ed25519PrivateKey.from_private_bytes(private)
    sums, updates = key.sign(seed + b"sum"), key.sign(seed + b"update")
    role = "sum" if is_chosen(sums, chances[0]) else "update" if is_chosen(updates, chances[1]) else "none"
    return role, sums, updates


def unseal(box: bytes, private: bytes) -> bytes:
    found: bytes = bindings.crypto_box_seal_open(box, bindings.crypto_scalarmult_base(private), private)
    return found


def model_body(weights: list[Fraction]) -> bytes:
    body = struct.pack("<Q", len(weights))
    for weight in weights:
        for number in (weight.numerator, weight.denominator):
            digits = [abs(number) >> (32 * i) & 0xFFFFFFFF for i in range(math.ceil(abs(number).bit_length() / 32))]
            body += struct.pack(f"<bQ{len(digits)}I", (number > 0) - (number < 0), len(digits), *digits)
    return body
