"""Draw discrete Gaussians and public ring elements from AES streams, exactly.

A discrete Gaussian of width sigma has P(x) proportional to exp(-x^2 / (2 sigma^2)) on the integers, here cut off at 12
sigma. It is drawn by inversion: of a uniform u of 80 bits the upper 16 are drawn for everybody and say in which of
65,536 cells u lies; a table says which x that is. Only where a step of the cumulative table falls into the cell are
the other 64 bits drawn and compared. So no number is drawn by floating-point arithmetic. Every probability is right to
2^-80 times the number of values, which for 153 of them is a statistical distance below 2^-72, and the tail that is cut
off weighs less than 2^-100.

Nothing here runs in constant time. Who can measure the time on the participant's own device is out of scope.

Source: inversion with a guide table: Chen, Asau, "On Generating Random Variates from an Empirical Distribution", AIIE
Transactions 6, 1974; Devroye, "Non-Uniform Random Variate Generation", 1986, III.2.4. Rejection for residues: the same,
II.3.
"""

from __future__ import annotations

from decimal import Decimal, localcontext
from functools import cache
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ridotto.crypto.lattice.parameters import DEGREE, FIELDS, RESIDUE_BITS, TAIL, Words
from ridotto.crypto.prg import Mask, add_masks

CELL_BITS, FINE_BITS = 16, 64
TABLE_BITS = CELL_BITS + FINE_BITS
WEIGHT_BITS = 120
"""Weights are integers, exp(...) * 2^120 rounded, from decimals of 60 digits: the same on every platform."""

UNDECIDED = np.iinfo(np.int16).min
"""Stands in the guide for a cell that needs the other 64 bits."""

SALT = b"ridotto/1 lattice"

_RESIDUE = np.uint64((1 << RESIDUE_BITS) - 1)


class GaussianTable:
    """Hold the cumulative table of one discrete Gaussian and draw from it.

    sigma: width, > 0. cumulative: F(x) = floor(2^80 * P(X <= x)) for x = first, first + 1, ...
    """

    def __init__(self, sigma: float) -> None:
        self.last = int(TAIL * sigma)
        self.first = -self.last
        weights = [gaussian_weight(sigma, value) for value in range(self.first, self.last + 1)]
        total = sum(weights)
        self.cumulative = [(partial << TABLE_BITS) // total for partial in accumulate(weights)]
        steps = self.cumulative[:-1]
        cells = np.array([step >> FINE_BITS for step in steps], np.int64)
        self._fine = np.array([step & ((1 << FINE_BITS) - 1) for step in steps], np.uint64)
        # Steps of cell c are begin[c] to begin[c + 1].
        self._begin = np.searchsorted(cells, np.arange((1 << CELL_BITS) + 1))
        decided = self._begin[:-1] == self._begin[1:]
        self._guide = np.where(decided, self._begin[:-1] + self.first, UNDECIDED).astype(np.int16)

    def sample(self, seed: bytes, label: str, count: int) -> NDArray[np.int16]:
        """Return `count` independent samples, int16, shape (count,).

        seed: 32 secret bytes. label: what they are for; the same seed and label give the same samples.
        """
        coarse = stream(seed, f"{label} cells", count, np.uint16)
        samples = self._guide.take(coarse)
        where = np.flatnonzero(samples == UNDECIDED)
        fine = stream(seed, f"{label} fine", where.size, np.uint64)
        samples[where] = self._search(coarse[where].astype(np.int64), fine)
        return samples

    def _search(self, cells: NDArray[np.int64], fine: Words) -> NDArray[np.int64]:
        """Count the steps at or below each u = cells * 2^64 + fine; return the values they lead to."""
        steps, end = self._begin[cells], self._begin[cells + 1]
        active = np.arange(cells.size)
        while active.size:
            passed = self._fine[steps[active]] <= fine[active]
            active = active[passed]
            steps[active] += 1
            active = active[steps[active] < end[active]]
        return steps + self.first


def gaussian_weight(sigma: float, value: int) -> int:
    """Return exp(-value^2 / (2 sigma^2)) * 2^120, rounded down."""
    with localcontext() as context:
        context.prec = 60
        exponent = -Decimal(value * value) / (2 * Decimal(repr(sigma)) ** 2)
        return int(exponent.exp() * 2**WEIGHT_BITS)


@cache
def gaussian(sigma: float) -> GaussianTable:
    """Return the table of a width, made once."""
    return GaussianTable(sigma)


def public_elements(seed: bytes, count: int) -> Words:
    """Return `count` uniform ring elements mod q1 and mod q2, as values at the roots: shape (2, count, 4096).

    seed: 32 public bytes, of one session alone. For each prime a stream of 64-bit words is cut to 48 bits, and words
    from q on are left out. As values at the roots and as coefficients, uniform is the same.
    """
    elements = np.zeros((len(FIELDS), count, DEGREE), np.uint64)
    for index, field in enumerate(FIELDS):
        label, words = f"public q{index + 1}", elements[index].reshape(-1)
        _fill(words, seed, label)
        words &= _RESIDUE
        # One word in 2^32 is left out, so this is nearly always all there is to do.
        if words.size and words.max() >= field.value:
            words[...] = _kept(seed, label, words.size, field.value)
    return elements


def _kept(seed: bytes, label: str, needed: int, prime: int) -> Words:
    """Return the first words of a stream that are below a prime."""
    drawn = needed + DEGREE
    while True:
        words: Words = stream(seed, label, drawn, np.uint64) & _RESIDUE
        words = words[words < prime]
        if len(words) >= needed:
            return words[:needed]
        drawn += DEGREE


def stream(seed: bytes, label: str, count: int, dtype: DTypeLike) -> NDArray[Any]:
    """Return `count` uniform words of an unsigned type: the stream of `crypto.prg` under this seed and label."""
    words = np.zeros(count, dtype)
    _fill(words, seed, label)
    return words


def _fill(zeros: NDArray[Any], seed: bytes, label: str) -> None:
    """Write a stream over zeros."""
    add_masks(zeros, [Mask(seed, 1)], SALT, label)
