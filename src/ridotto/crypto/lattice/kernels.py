"""Compiled loops of the lattice: they need numba, which is an extra (`speed`).

Each has a twin in NumPy (`ntt.multiply` and the steps of `kahe`) that gives the same bits and needs nothing.

The inverse transform sees an element as a square of 64 by 64 numbers. Its first six layers work inside the rows; there
the square is transposed, so that the innermost loop of every layer runs over 64 neighbours and the compiler can use
vector instructions. That is what makes it three times as fast as the same steps in order. Between layers numbers are
below 2q; `parameters.Prime` says why the products are exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ridotto.core.compile import compiled, types
from ridotto.crypto.lattice.parameters import DEGREE, Floats, Prime, Words

SIDE = 64
"""An element is a square of SIDE * SIDE coefficients."""

_SCALARS = "uint64,uint64,float64"
_INVERSE = f"void(uint64[::1],uint64[::1],uint64[::1],float64[::1],{_SCALARS})"
_PRODUCTS = f"void(uint64[:,::1],uint64[::1],float64[::1],uint64[::1],float64[::1],{_SCALARS},uint64[:,::1])"
_PLANES = (
    "void(uint64[:,::1],uint64[:,::1],uint64[:,::1],int16[:,::1],uint64,uint64,float64,uint64,uint64,"
    "uint32[:,::1],uint16[:,::1])"
)
_READ_ONLY = tuple(types.Array(word, 1, "C", readonly=True) for word in (types.uint32, types.uint16))
_FOLD = types.void(types.uint64[::1], *_READ_ONLY)
_FOLD_FOUR = types.void(types.uint64[::1], *(4 * _READ_ONLY))
"""Ciphertexts that came from somewhere may be bytes, which can't be written to; those that may be are taken as well."""


@dataclass(frozen=True)
class Tables:
    """Hold the factors of the inverse transform in the order in which `_inverse` reads them, and what it scales by."""

    factors: Words
    ratios: Floats
    scale: np.uint64
    scale_ratio: float


@cache
def tables(prime: Prime) -> Tables:
    """Return the tables of a prime."""
    powers = prime.inverse_powers
    factors = np.empty(DEGREE, np.uint64)
    begin, width = 0, 1
    while width < SIDE:
        blocks, groups = DEGREE // (2 * width), SIDE // (2 * width)
        # Of each group inside a row, the factors of all rows one after the other.
        factors[begin : begin + blocks] = powers[blocks : 2 * blocks].reshape(SIDE, groups).T.ravel()
        begin, width = begin + blocks, 2 * width
    factors[begin:] = powers[:SIDE]
    scale = np.array([pow(DEGREE, -1, prime.value)], np.uint64)
    return Tables(factors, prime.ratio(factors), scale[0], float(prime.ratio(scale)[0]))


@compiled(_INVERSE, nogil=True)
def _inverse(x, y, factors, ratios, q, scale, scale_ratio):  # type: ignore[no-untyped-def]
    """Replace values `x` (below 2q) by coefficients (below q). y: scratch, shape (4096,)."""
    twice = q + q
    for column in range(SIDE):
        for row in range(SIDE):
            y[column * SIDE + row] = x[row * SIDE + column]
    begin, width = 0, 1
    while width < SIDE:
        groups = SIDE // (2 * width)
        for group in range(groups):
            factor = begin + group * SIDE
            for place in range(width):
                low = (group * 2 * width + place) * SIDE
                high = low + width * SIDE
                for row in range(SIDE):
                    one, other = y[low + row], y[high + row]
                    total = one + other
                    y[low + row] = min(total, total - twice)
                    gap = one - other + twice
                    quotient = np.uint64(np.float64(gap) * ratios[factor + row])
                    y[high + row] = gap * factors[factor + row] - quotient * q
        begin += SIDE * groups
        width *= 2
    for row in range(SIDE):
        for column in range(SIDE):
            x[row * SIDE + column] = y[column * SIDE + row]
    blocks = SIDE // 2
    while blocks:
        width = DEGREE // (2 * blocks)
        for block in range(blocks):
            word, ratio = factors[begin + blocks + block], ratios[begin + blocks + block]
            low = 2 * width * block
            high = low + width
            for place in range(width):
                one, other = x[low + place], x[high + place]
                total = one + other
                x[low + place] = min(total, total - twice)
                gap = one - other + twice
                x[high + place] = gap * word - np.uint64(np.float64(gap) * ratio) * q
        blocks //= 2
    for place in range(DEGREE):
        value = x[place] * scale - np.uint64(np.float64(x[place]) * scale_ratio) * q
        x[place] = min(value, value - q)


@compiled(_PRODUCTS, nogil=True)
def _products(values, key, key_ratio, factors, ratios, q, scale, scale_ratio, out):  # type: ignore[no-untyped-def]
    scratch = np.empty(DEGREE, np.uint64)
    for element in range(values.shape[0]):
        source, x = values[element], out[element]
        for place in range(DEGREE):
            value = source[place]
            x[place] = value * key[place] - np.uint64(np.float64(value) * key_ratio[place]) * q
        _inverse(x, scratch, factors, ratios, q, scale, scale_ratio)


@compiled(_PLANES, nogil=True)
def _planes(masks, low, high, noise, q, step, step_ratio, undo, half, lower, upper):  # type: ignore[no-untyped-def]
    for element in range(masks.shape[0]):
        for place in range(DEGREE):
            lifted = high[element, place] + (np.uint64(noise[element, place] + 128) << half)
            value = lifted * step - np.uint64(np.float64(lifted) * step_ratio) * q
            value = min(value, value - q)
            total = masks[element, place] + low[element, place] + value + undo
            total = min(total, total - q - q)
            total = min(total, total - q)
            lower[element, place] = np.uint32(total)
            upper[element, place] = np.uint16(total >> np.uint64(32))


@compiled(_FOLD, nogil=True)
def fold(total, lower, upper):  # type: ignore[no-untyped-def]
    """Add the residues that two planes hold to `total`, in place. All of shape (length,)."""
    for place in range(total.shape[0]):
        total[place] += np.uint64(lower[place]) | (np.uint64(upper[place]) << np.uint64(32))


@compiled(_FOLD_FOUR, nogil=True)
def fold_four(total, lower1, upper1, lower2, upper2, lower3, upper3, lower4, upper4):  # type: ignore[no-untyped-def]
    """Do the same with four ciphertexts: the sum, larger than each of them, goes through memory once."""
    for place in range(total.shape[0]):
        low = np.uint64(lower1[place]) + np.uint64(lower2[place]) + np.uint64(lower3[place]) + np.uint64(lower4[place])
        high = np.uint64(upper1[place]) + np.uint64(upper2[place]) + np.uint64(upper3[place]) + np.uint64(upper4[place])
        total[place] += low + (high << np.uint64(32))


def multiply(values: Words, key: Words, ratio: Floats, prime: Prime) -> Words:
    """Do what `ntt.multiply` does. values: shape (elements, 4096), contiguous."""
    table, out = tables(prime), np.empty_like(values)
    q = np.uint64(prime.value)
    _products(values, key, ratio, table.factors, table.ratios, q, table.scale, table.scale_ratio, out)
    return out


def write_planes(
    prime: Prime,
    masks: Words,
    low: Words,
    high: Words,
    noise: NDArray[np.int16],
    undo: int,
    half: int,
    lower: NDArray[np.uint32],
    upper: NDArray[np.uint16],
) -> None:
    """Write masks + low + 2^half * (high + 2^half * (noise + 128)) + undo mod one prime into its two planes."""
    step = np.array([1 << half], np.uint64)
    ratio = float(prime.ratio(step)[0])
    q, shift = np.uint64(prime.value), np.uint64(half)
    _planes(masks, low, high, noise, q, step[0], ratio, np.uint64(undo), shift, lower, upper)
