"""Encrypt vectors such that the sum of ciphertexts opens under the sum of keys, and under nothing less.

    key          s, 4096 discrete Gaussians of width 4.5
    ciphertext   c = a * s + T * e + m  in the ring mod Q, for each ring element of the vector
    sum          of ciphertexts: a * (sum of s) + T * (sum of e) + (sum of m)

a is public and belongs to one session; e is fresh noise of width 6.364; m holds several entries per coefficient (see
`fields`). With S, the sum of the keys, v = c - a * S is small, so its lowest bits are the sum of the messages and the
others the sum of the noises. That sum is Gaussian of a known width. With a wrong key v is uniform mod Q, and its upper
bits are far too large: `Noise.check` sees it, and nothing but the right key opens anything.

A ciphertext is four planes of little-endian words, all coefficients in order: the lower 32 bits of the residues mod q1
(uint32), their upper 16 bits (uint16), and the same for q2. A key and its noise may be used for one vector only: two
ciphertexts under one key and one a give away the difference of the vectors.

Source: Bell, Gascon, Lepoint, Li, Meiklejohn, Raykova, Yun, "ACORN: Input Validation for Secure Aggregation", USENIX
Security 2023, section 3 and 4 for the encryption and the packing. The check of the noise is ours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from types import ModuleType

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray

from ridotto.core.fixedpoint import IntVector, container
from ridotto.core.machine import Buffer
from ridotto.crypto.lattice import ntt
from ridotto.crypto.lattice.fields import Shape, join, noise_limit, split
from ridotto.crypto.lattice.loops import LOOPS, Loops
from ridotto.crypto.lattice.parameters import (
    DEGREE,
    FIELDS,
    LARGEST_KEY,
    MODULUS,
    PRIMES,
    SIGMA_KEY,
    SIGMA_NOISE,
    Floats,
    Prime,
    Words,
)
from ridotto.crypto.lattice.samplers import gaussian
from ridotto.errors import DataError, LocalProtocolError, ProtocolError

LIFT = 128
"""Added to each noise so that it is positive; no noise of one contribution is larger than 76."""

FOLDS_PER_PRODUCT = 8
"""Adding an element to a sum takes about an eighth of the time of encrypting it."""

LEAST_SPREAD, SPREAD_SIGMAS = 0.05, 6.0
"""The width of the noise may be off by 5 % or by 6 of its own standard deviations, whichever is more."""

STEP_ELEMENTS = 4
"""Ring elements that are encrypted at once."""

FOUR = 4
"""Ciphertexts that are added at once where there are as many: the sum goes through memory for all of them together."""

FOLDS_PER_PRODUCT = 8
"""Adding an element to a sum takes about an eighth of the time of encrypting it."""

LEAST_SPREAD, SPREAD_SIGMAS = 0.05, 6.0
"""The width of the noise may be off by 5 % or by 6 of its own standard deviations, whichever is more."""

STEP_ELEMENTS = 4
"""Ring elements that are encrypted at once."""

STEP_COEFFICIENTS = 1 << 14
"""Coefficients of all ciphertexts of a batch that are added at once: their sums, 128 KiB, stay in the cache."""

Key = NDArray[np.int64]
"""Coefficients of a key or of a sum of keys, signed, shape (4096,)."""


class NoiseError(ProtocolError):
    """Refuse a sum whose noise is not that of its contributions: a key is wrong, or one of them is no ciphertext."""


@dataclass(frozen=True)
class Noise:
    """Describe the noise found in an opened sum. spread: root of its mean square. largest: magnitude."""

    spread: float
    largest: int
    coefficients: int

    def check(self, contributions: int) -> None:
        """Return if this is the noise of so many contributions; raise NoiseError if not.

        An honest sum is refused with probability below 2^-28 for its spread and 2^-40 for its largest. A wrong key
        leaves noise that is uniform in Q / T, with a spread of at least 1,180 where 204 belongs (at 1,024
        contributions): for 4,096 coefficients it never passes.
        """
        expected = SIGMA_NOISE * contributions**0.5
        room = max(LEAST_SPREAD, SPREAD_SIGMAS / (2 * self.coefficients) ** 0.5) * expected
        if abs(self.spread - expected) > room:
            raise NoiseError(f"the noise of the sum has a spread of {self.spread:.1f}, expected {expected:.1f}")
        if self.largest > noise_limit(contributions):
            raise NoiseError(f"the noise of the sum reaches {self.largest}, at most {noise_limit(contributions)}")


def generate_key(seed: bytes) -> Key:
    """Return the key of a seed (32 secret bytes, for one vector alone), int64, shape (4096,)."""
    return gaussian(SIGMA_KEY).sample(seed, "key", DEGREE).astype(np.int64)


def bound_seed(seed: bytes, vector: IntVector) -> bytes:
    """Return 32 secret bytes that depend on a seed (32 secret bytes, for this alone) and on a vector.

    For keys that must differ where the vector does. The vector goes through GMAC, at ten times the speed of SHA-256; a
    tag under a secret key that nobody sees is the same for two vectors of 4 MB with probability 2^-110.
    """
    tag = AESGCM(seed).encrypt(bytes(12), b"", np.ascontiguousarray(vector).data.cast("B"))
    return hashlib.blake2b(tag, key=seed, digest_size=len(seed)).digest()


def largest_key_sum(contributions: int) -> int:
    """Return what no coefficient of a sum of so many honest keys exceeds in magnitude."""
    return LARGEST_KEY * contributions


def encrypt(vector: IntVector, key: Key, seed: bytes, public: Words, shape: Shape, loops: Loops = LOOPS) -> memoryview:
    """Return the ciphertext of a vector, `shape.size` bytes.

    vector: see `fields`; not changed. key: of `generate_key`. seed: 32 secret bytes; gives the noise, and may be that
    of the key. public: `samplers.public_elements` of the session, shape (2, shape.elements, 4096).
    Raises LocalProtocolError if something has another shape.
    """
    _check_public(public, shape)
    noise = gaussian(SIGMA_NOISE).sample(seed, "noise", shape.coefficients).reshape(-1, DEGREE)
    out = np.empty(shape.size, np.uint8)
    planes, keys = _planes(out, shape), [_factor(key, prime) for prime in FIELDS]
    kernels = loops.for_elements(shape.elements)
    # Some elements at a time: fresh memory costs more than the arithmetic on it.
    for begin in range(0, shape.elements, STEP_ELEMENTS):
        some = range(begin, min(begin + STEP_ELEMENTS, shape.elements))
        part, message = slice(some.start, some.stop), join(vector, shape, some)
        for prime, factor, values, (lower, upper) in zip(FIELDS, keys, public, planes, strict=True):
            masks = _product(values[part], factor, prime, kernels)
            _write(prime, masks, message, noise[part], shape, (lower[part], upper[part]), kernels)
    return out.data


class CipherSum:
    """Add up ciphertexts of one shape, and open the sum with the sum of their keys.

    total: residues mod q1 and q2, not reduced, uint64, shape (2, coefficients): all that has to be kept.
    """

    def __init__(self, shape: Shape, total: Words | None = None, loops: Loops = LOOPS) -> None:
        self.shape = shape
        self.total: Words = np.zeros((len(PRIMES), shape.coefficients), np.uint64) if total is None else total
        self._loops = loops
        if self.total.shape != (len(PRIMES), shape.coefficients) or self.total.dtype != np.uint64:
            raise DataError(f"a sum of ciphertexts of {shape.coefficients} coefficients has another shape")

    def add(self, ciphertext: Buffer) -> None:
        """Add one ciphertext. At most `shape.contributions` may be in the sum. Raises DataError on another size."""
        self.add_all([ciphertext])

    def add_all(self, ciphertexts: Sequence[Buffer]) -> None:
        """Add several ciphertexts: faster than one by one, since the sum goes through memory once.

        Raises DataError, before anything is added, if one has another size.
        """
        batch = [_planes(self._octets(ciphertext), self.shape) for ciphertext in ciphertexts]
        kernels = self._loops.for_elements(len(batch) * self.shape.elements // FOLDS_PER_PRODUCT)
        for index, total in enumerate(self.total):
            planes = [[plane.reshape(-1) for plane in both[index]] for both in batch]
            while kernels is not None and len(planes) >= FOUR:
                kernels.fold_four(total, *chain.from_iterable(planes[:FOUR]))
                planes = planes[FOUR:]
            for lower, upper in planes:
                if kernels is not None:
                    kernels.fold(total, lower, upper)
                else:
                    np.add(total, lower, out=total)
                    np.add(total, upper.astype(np.uint64) << np.uint64(32), out=total)

    def remove(self, ciphertext: Buffer) -> None:
        """Take one ciphertext out that was added before. Raises DataError on another size."""
        octets = self._octets(ciphertext)
        for total, (lower, upper) in zip(self.total, _planes(octets, self.shape), strict=True):
            np.subtract(total, lower.reshape(-1), out=total)
            np.subtract(total, upper.reshape(-1).astype(np.uint64) << np.uint64(32), out=total)

    def open(self, key: Key, contributions: int, public: Words) -> tuple[IntVector, Noise]:
        """Return the sum of the vectors, dtype `container(bits)`, shape (length,), and its noise.

        key: the sum of the keys. contributions: how many are in the sum, 1 to `shape.contributions`. The sum is right
        if `Noise.check(contributions)` passes and the vectors kept to what `fields` asks.
        Raises LocalProtocolError if an argument does not fit.
        """
        _check_public(public, self.shape)
        if not 1 <= contributions <= self.shape.contributions:
            raise LocalProtocolError(f"{contributions} contributions can't be in this sum")
        offset = join(np.zeros(self.shape.length, container(self.shape.bits)), self.shape)
        residues = [
            self._open_residues(index, key, contributions, offset, public[index]) for index in range(len(PRIMES))
        ]
        low, high, above = _recombine(residues[0], residues[1], self.shape)
        noise = above.astype(np.int64) - self._centre()
        spread = float(np.sqrt(np.mean(np.square(noise.astype(np.float64)))))
        return split(low, high, self.shape), Noise(spread, int(np.abs(noise).max()), noise.size)

    def _open_residues(
        self, index: int, key: Key, contributions: int, offset: tuple[Words, Words], public: Words
    ) -> Words:
        """Return v plus T * centre, with one offset of the fields left in it, mod one prime."""
        prime, shape = FIELDS[index], self.shape
        q = np.uint64(prime.value)
        low, high = offset
        one = prime.once(low + prime.scaled(high, 1 << shape.half))
        surplus = prime.scaled(one, contributions - 1)
        centre = np.uint64((self._centre() << shape.message_bits) % prime.value)
        kernels = self._loops.for_elements(len(public))
        masks = _product(public, _factor(key, prime), prime, kernels)
        value = (self.total[index] % q).reshape(-1, DEGREE) + (q - masks)
        return prime.once(prime.once(value) + prime.once((q - surplus) + centre))

    def _centre(self) -> int:
        """Return what is added to the noise so that it is positive: the half of Q / T."""
        return MODULUS >> (self.shape.message_bits + 1)

    def _octets(self, ciphertext: Buffer) -> NDArray[np.uint8]:
        octets = np.frombuffer(ciphertext, np.uint8)
        if octets.size != self.shape.size:
            raise DataError(f"a ciphertext has {self.shape.size} bytes, not {octets.size}")
        return octets


def _check_public(public: Words, shape: Shape) -> None:
    if public.shape != (len(PRIMES), shape.elements, DEGREE):
        raise LocalProtocolError(f"{shape.elements} public ring elements are needed, not {public.shape}")


def _planes(octets: NDArray[np.uint8], shape: Shape) -> list[tuple[NDArray[np.uint32], NDArray[np.uint16]]]:
    """Return views of a ciphertext's planes, per prime (lower, upper), shape (elements, 4096) each."""
    count, planes = shape.coefficients, []
    for index in range(len(PRIMES)):
        begin = 6 * count * index
        lower, upper = octets[begin : begin + 4 * count], octets[begin + 4 * count : begin + 6 * count]
        planes.append((lower.view("<u4").reshape(-1, DEGREE), upper.view("<u2").reshape(-1, DEGREE)))
    return planes


def _factor(key: Key, prime: Prime) -> tuple[Words, Floats]:
    """Return a key's values at the roots, and their ratios."""
    values = ntt.transform(np.mod(key, prime.value).astype(np.uint64), prime)
    return values, prime.ratio(values)


def _product(public: Words, factor: tuple[Words, Floats], prime: Prime, kernels: ModuleType | None) -> Words:
    """Return the product of every public element with a key, as coefficients mod one prime."""
    multiply = ntt.multiply if kernels is None else kernels.multiply
    product: Words = multiply(public, *factor, prime)
    return product


def _write(
    prime: Prime,
    masks: Words,
    message: tuple[Words, Words],
    noise: NDArray[np.int16],
    shape: Shape,
    planes: tuple[NDArray[np.uint32], NDArray[np.uint16]],
    kernels: ModuleType | None,
) -> None:
    """Write masks + T * noise + message mod one prime into its planes.

    With m = low + 2^half * high and T = 2^(2 half), T * e + m = low + 2^half * (high + 2^half * e): one product.
    """
    low, high = message
    undo = -(LIFT << shape.message_bits) % prime.value
    if kernels is not None:
        kernels.write_planes(prime, masks, low, high, noise, undo, shape.half, *planes)
        return
    lifted = high + ((noise + np.int16(LIFT)).astype(np.uint64) << np.uint64(shape.half))
    value = prime.once(masks + prime.scaled(lifted, 1 << shape.half))
    value = prime.once(prime.once(value + low) + np.uint64(undo))
    planes[0][...] = (value & np.uint64(0xFFFF_FFFF)).astype(np.uint32)
    planes[1][...] = (value >> np.uint64(32)).astype(np.uint16)


def _recombine(one: Words, other: Words, shape: Shape) -> tuple[Words, Words, Words]:
    """Return a number below Q, given mod q1 and mod q2, as its lower and upper half of a message and the bits above.

    By Garner: x = one + q1 * ((other - one) / q1 mod q2), in two words of 64 bits.
    Source: Garner, "The Residue Number System", 1959.
    """
    first, second = FIELDS
    gap = second.once(other + np.uint64(second.value) - second.once(one))
    digit = second.scaled(gap, pow(first.value, -1, second.value))
    lower, upper = _wide_product(digit, first.value)
    with np.errstate(over="ignore"):
        total = lower + one
    upper += (total < lower).astype(np.uint64)
    half, bits = np.uint64(shape.half), shape.message_bits
    mask = np.uint64((1 << shape.half) - 1)
    middle = (total >> half) | (upper << np.uint64(64 - shape.half))
    return total & mask, middle & mask, upper >> np.uint64(bits - 64)


def _wide_product(values: Words, factor: int) -> tuple[Words, Words]:
    """Return the lower and upper 64 bits of values * factor, both below 2^48."""
    bits32 = np.uint64(32)
    a1, a0 = values >> bits32, values & np.uint64(0xFFFF_FFFF)
    b1, b0 = np.uint64(factor >> 32), np.uint64(factor & 0xFFFF_FFFF)
    with np.errstate(over="ignore"):
        lower = values * np.uint64(factor)
    return lower, a1 * b1 + ((a1 * b0 + a0 * b1 + ((a0 * b0) >> bits32)) >> bits32)
