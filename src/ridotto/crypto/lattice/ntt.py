"""Multiply in the ring by the negacyclic number-theoretic transform: the reference, in NumPy.

Place i of a transformed element holds its value at psi^(2 * brv(i) + 1), where brv reverses 12 bits. Products are then
products place by place. Every step works on whole arrays of elements, so this is also a usable road without numba: a
vector of a million entries takes some tenths of a second.

Source: Longa, Naehrig, "Speeding up the Number Theoretic Transform for Faster Ideal Lattice-Based Cryptography", CANS
2016, algorithms 1 and 2. The products are ours, see `parameters.Prime`.
"""

from __future__ import annotations

import numpy as np

from ridotto.crypto.lattice.parameters import DEGREE, Floats, Prime, Words

STEP = 8
"""Elements at once: their scratch memory, some 256 KiB an array, stays in the cache."""


def transform(elements: Words, prime: Prime) -> Words:
    """Return the values of ring elements at the roots. elements: residues, shape (..., 4096)."""
    rows = elements.reshape(-1, DEGREE)
    ratios = prime.ratio(prime.powers)
    blocks, width = 1, DEGREE
    while blocks < DEGREE:
        width //= 2
        pairs = rows.reshape(-1, blocks, 2, width)
        factor, ratio = _column(prime.powers, blocks), _column(ratios, blocks)
        product = prime.times(pairs[:, :, 1], factor, ratio)
        rows = _pairs(pairs[:, :, 0] + product, pairs[:, :, 0] + (np.uint64(prime.value) - product), prime)
        blocks *= 2
    return rows.reshape(elements.shape)


def inverse(values: Words, prime: Prime) -> Words:
    """Return the ring elements that have these values; undoes `transform`. values: residues, shape (..., 4096)."""
    rows = values.reshape(-1, DEGREE)
    ratios = prime.ratio(prime.inverse_powers)
    blocks, width = DEGREE // 2, 1
    while blocks:
        pairs = rows.reshape(-1, blocks, 2, width)
        one, other = pairs[:, :, 0], pairs[:, :, 1]
        factor, ratio = _column(prime.inverse_powers, blocks), _column(ratios, blocks)
        difference = prime.times(one + (np.uint64(prime.value) - other), factor, ratio)
        rows = np.stack([prime.once(one + other), difference], axis=2)
        blocks, width = blocks // 2, 2 * width
    return prime.scaled(rows, pow(DEGREE, -1, prime.value)).reshape(values.shape)


def multiply(values: Words, key: Words, ratio: Floats, prime: Prime) -> Words:
    """Return the product of ring elements with one element, as coefficients.

    values: transformed elements, shape (elements, 4096). key, ratio: the transformed one, and `prime.ratio` of it.
    """
    out = np.empty_like(values)
    for begin in range(0, len(values), STEP):
        part = slice(begin, begin + STEP)
        out[part] = inverse(prime.times(values[part], key, ratio), prime)
    return out


def _column(table: np.ndarray, blocks: int) -> np.ndarray:
    return table[blocks : 2 * blocks, np.newaxis]


def _pairs(one: Words, other: Words, prime: Prime) -> Words:
    return np.stack([prime.once(one), prime.once(other)], axis=2)
