"""The inner loops in NumPy: the readable definition of each, and what runs where numba is not installed.

Words are uint64 and wrap mod 2^64. A *plane* holds one bit of many values, 64 values a word, value i at bit i mod 64 of
word i // 64; what fills the last word means nothing. `first` is true for party 0, which alone adds public constants.

Matrix products go through float64 BLAS in limbs of 22 bits, which is some times faster than NumPy's integer product.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
"""Ring elements or planes: uint64."""


class Tagging(Protocol):
    """A party that computes on tags: what stands for `first` then, see `infer.macs`."""

    @property
    def delta(self) -> np.uint64:
        """Return its share of the key of bits."""

    def constant(self, values: Words) -> Any:
        """Return its share of the tags of public words."""


Side: TypeAlias = bool | Tagging
"""Which half of a protocol runs: party 0's (True), party 1's (False), or either's on tags."""

LIMB_BITS = 22
LIMB_DEPTH = 512
"""Sums of 512 products of two 22-bit limbs stay below 2^53, where float64 is exact."""

SMALL_PRODUCT = 1 << 14
"""Below so many multiplications the integer product is faster than preparing limbs (measured)."""

ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
ONE = np.uint64(1)
LOW_63 = np.uint64((1 << 63) - 1)


def words_of(count: int) -> int:
    """Return how many words a plane of `count` bits has."""
    return -(-count // 64)


def constant(side: Side, values: Words) -> Words:
    """Return this side's additive share of public words."""
    if isinstance(side, bool):
        return values if side else np.zeros_like(values)
    tags: Words = side.constant(values)
    return tags


def constant_plane(side: Side, plane: Words) -> Words:
    """Return this side's XOR share of a public plane; of tags, a word for each bit."""
    if isinstance(side, bool):
        return plane if side else np.zeros_like(plane)
    return expand(plane) & side.delta


def ones(side: Side) -> np.uint64:
    """Return this side's XOR share of a word of ones; of tags, that of one bit."""
    if isinstance(side, bool):
        return ALL if side else np.uint64(0)
    return side.delta


def expand(plane: Words) -> Words:
    """Return a word of zeros or ones for each bit of planes. plane: (.., w). Returns (.., 64 w)."""
    bits = np.unpackbits(np.ascontiguousarray(plane).view(np.uint8), axis=-1, bitorder="little")
    words: Words = -bits.astype(np.uint64)
    return words


def matmul(left: Words, right: Words) -> Words:
    """Return left @ right mod 2^64. left: (m, k); right: (k, n)."""
    if left.shape[0] * left.shape[1] * right.shape[1] < SMALL_PRODUCT:
        return left @ right
    total = np.zeros((left.shape[0], right.shape[1]), np.uint64)
    for start in range(0, left.shape[1], LIMB_DEPTH):
        _add_product(total, left[:, start : start + LIMB_DEPTH], right[start : start + LIMB_DEPTH])
    return total


def transpose_bits(values: Words, count: int) -> Words:
    """Return bits 0 to count - 1 of `values` as planes. values: (n,). Returns (count, words)."""
    padded = np.zeros(words_of(values.size) * 64, np.uint64)
    padded[: values.size] = values
    bits = np.unpackbits(padded.view(np.uint8).reshape(-1, 8), axis=1, bitorder="little")[:, :count]
    return np.packbits(np.ascontiguousarray(bits.T), axis=1, bitorder="little").view(np.uint64)


def unpack(plane: Words, count: int) -> Words:
    """Return the first `count` bits of a plane as words of 0 or 1, (count,)."""
    return np.unpackbits(plane.view(np.uint8), bitorder="little", count=count).astype(np.uint64)


def split(plane: Words, count: int) -> Words:
    """Return the first `count` bits of a plane of shares one by one, as words whose lowest bit counts."""
    return unpack(plane, count)


def pack(bits: Words) -> Words:
    """Return planes of the lowest bits of words. bits: (.., 64 w). Returns (.., w)."""
    low = (bits & ONE).astype(np.uint8)
    planes: Words = np.packbits(low, axis=-1, bitorder="little").view(np.uint64)
    return planes


def monomials(planes: Words) -> Words:
    """Return all products of the bits of each digit of 4 bits. planes: (4 D, w). Returns (D, 15, w), set S at S - 1."""
    digits = planes.reshape(-1, 4, planes.shape[1])
    out = np.empty((digits.shape[0], 15, planes.shape[1]), np.uint64)
    for subset in range(1, 16):
        low = (subset & -subset).bit_length() - 1
        rest = subset & (subset - 1)
        out[:, subset - 1] = digits[:, low] & out[:, rest - 1] if rest else digits[:, low]
    return out


def digits(public: Words, shares: Words, first: Side) -> tuple[Words, Words]:
    """Return shares of [public digit < secret digit] and of equality, of all digits of 4 bits, without a message.

    public: planes of the public number, (4 D, w). shares: XOR shares of the secret's monomials, (D, 15, w).
    Returns two arrays (D, w), digit 0 the lowest. From the top bit on, with s_i = NOT public_i:
    less = XOR over i of s_i secret_i PRODUCT over j > i of (s_j XOR secret_j).
    """
    flipped = ~public.reshape(-1, 4, public.shape[1])
    equal = [np.full_like(flipped[:, 0], ones(first)), *(shares[:, subset] for subset in range(15))]
    less = np.zeros_like(flipped[:, 0])
    for bit in (3, 2, 1, 0):
        s, size = flipped[:, bit], 1 << bit
        # `equal[S]` is the share of the product over the bits above, times the monomial S of the bits not yet used.
        less ^= s & equal[size]
        equal = [s & equal[subset] ^ equal[subset | size] for subset in range(size)]
    return less, equal[0]


def fold(opened: Words, table: Words, first: Side) -> Words:
    """Return a share of the product of E masked bits. opened: their masked values, (E, w). Returns (w,).

    table: shares of the products of their masks, (2^E - 1, w), set S at S - 1.
    """
    shares = [np.full(opened.shape[1], ones(first), np.uint64), *table]
    return _fold(opened, shares)


def fold_group(opened: Words, table: Words, less: Words, equals: int, first: Side) -> Words:
    """Return a share of [number < secret] of a group of digits, from masked digits.

    opened: masked equalities from the top digit down, then masked "less" of all digits but the top one, from above.
    equals: how many equalities. less: share of the top digit's "less", (w,). table: shares of products of masks: all
    sets of equalities' masks (2^equals - 1), then for each lower "less" c = 0, 1.. its mask times each set of the first
    c + 1 equalities' masks, the empty one first.
    """
    total = less.copy()
    place = (1 << equals) - 1
    one = np.full(opened.shape[1], ones(first), np.uint64)
    for c in range(opened.shape[0] - equals):
        size = 1 << (c + 1)
        masked = opened[equals + c]
        sets = [masked & (table[s - 1] if s else one) ^ table[place + s] for s in range(size)]
        total ^= _fold(opened[: c + 1], sets)
        place += size
    return total


def select_narrow(d: Words, bits: Words, r: Words, rho: Words, rho_r: Words, base: Words, first: Side) -> Words:
    """Return base + a share of b (d - r). d: public, (n,); b = bit of `bits` XOR rho; r, rho, rho_r, base: shares."""
    chosen = rho * d - rho_r
    whole = constant(first, d) - r
    return base + np.where(unpack(bits, d.size).astype(bool), whole - chosen, chosen)


def truncated_public(y: Words, fraction_bits: int) -> Words:
    """Return the public part of y >> f from the masked wide wire y: ((y mod 2^63) >> f) + 2^(63-f) y_63 - 2^(62-f)."""
    f = np.uint64(fraction_bits)
    top = (y >> np.uint64(63)) << np.uint64(63 - fraction_bits)
    return ((y & LOW_63) >> f) + top - (ONE << np.uint64(62 - fraction_bits))


def truncated_secret(y: Words, a: Words, b: Words) -> Words:
    """Return the secret part of y >> f: -a + b where y_63 = 0, -a - b where it is 1."""
    return np.where((y >> np.uint64(63)).astype(bool), -b, b) - a


def truncated(y: Words, a: Words, b: Words, fraction_bits: int, first: Side) -> Words:
    """Return a share of y >> f, where y is masked: see `infer.truncate`."""
    secret = truncated_secret(y, a, b)
    return secret + constant(first, truncated_public(y, fraction_bits))


def select_wide(
    y: Words, bits: Words, material: tuple[Words, ...], base: Words, fraction_bits: int, first: Side
) -> Words:
    """Return base + a share of b (y >> f). material: shares of a, b, rho, rho a, rho b, each (n,)."""
    a, b, rho, rho_a, rho_b = material
    public = truncated_public(y, fraction_bits)
    chosen = rho * public + truncated_secret(y, rho_a, rho_b)
    whole = truncated(y, a, b, fraction_bits, first)
    return base + np.where(unpack(bits, y.size).astype(bool), whole - chosen, chosen)


def select_pair(
    y0: Words, y1: Words, bits: Words, material: tuple[Words, ...], base: Words, fraction_bits: int, first: Side
) -> Words:
    """Return base + shares of z0 + b (z1 - z0) with z = y >> f.

    material: shares of a0, b0, a1, b1, rho, rho (a1 - a0), rho b0, rho b1, each (n,).
    """
    a0, b0, a1, b1, rho, rho_a, rho_b0, rho_b1 = material
    public = truncated_public(y1, fraction_bits) - truncated_public(y0, fraction_bits)
    zero = np.zeros_like(rho_a)
    chosen = rho * public + truncated_secret(y1, rho_a, rho_b1) - truncated_secret(y0, zero, rho_b0)
    z0 = truncated(y0, a0, b0, fraction_bits, first)
    whole = truncated(y1, a1, b1, fraction_bits, first) - z0
    return base + z0 + np.where(unpack(bits, y0.size).astype(bool), whole - chosen, chosen)


def _fold(opened: Words, sets: list[Words]) -> Words:
    """Evaluate PRODUCT of (opened_j XOR m_j) from shares of what the sets of masks m multiply to (2^E of them)."""
    for masked in opened:
        sets = [masked & sets[s] ^ sets[s + 1] for s in range(0, len(sets), 2)]
    return sets[0]


def _limbs(values: Words) -> list[NDArray[np.float64]]:
    mask = np.uint64((1 << LIMB_BITS) - 1)
    return [((values >> np.uint64(LIMB_BITS * i)) & mask).astype(np.float64) for i in range(3)]


def _add_product(total: Words, left: Words, right: Words) -> None:
    a, b = _limbs(left), np.concatenate(_limbs(right), axis=1)
    width = right.shape[1]
    for i in range(3):
        # Limbs i and j meet at bit 22 (i + j); from 66 on nothing is left of them.
        product = (a[i] @ b[:, : (3 - i) * width]).astype(np.uint64)
        for j in range(3 - i):
            total += product[:, j * width : (j + 1) * width] << np.uint64(LIMB_BITS * (i + j))
