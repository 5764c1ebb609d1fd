"""Noise that is correlated over rounds, in integers only: DP-FTRL's mechanism as a computer really runs it.

`privacy.ftrl` has the mathematics in real numbers: n = C^-1 z, C lower triangular, Toeplitz, banded. Here

    A = 2^10 C      the coefficients of the banded square root, rounded to whole numbers; A_0 = 2^10
    Z_t             independent discrete Gaussians of sigma 2^10 s
    m_t             = round((Z_t - A_1 m_(t-1) - ... - A_(b-1) m_(t-b+1)) / 2^10), whole numbers, halves up
    released        x_t + m_t, where x_t is round t's exact sum of integers

Why that is private. Look at W_t = A_0 x_t + ... + A_(b-1) x_(t-b+1) + Z_t: whole numbers with discrete Gaussian noise,
so nothing is lost between mathematics and machine. Everything released follows from W: x_t is whole, so
x_t + m_t = round((W_t - sum over j >= 1 of A_j (x_(t-j) + m_(t-j))) / 2^10), by what was released before. One
participant whose rounds are at least b apart, k of them, with l2 norms of at most D, moves the W of all rounds by at
most D sqrt(k) |A|, because columns of A that far apart have no row in common. A discrete Gaussian is a rounding of a
real one (`rounds.noise`), for which x_t may depend on what was released before (Denisov et al., theorem 2.1), so here
it may, too. That A is not quite the square root costs a little accuracy and no privacy: |A| is that of A itself.

Rounding m_t adds less than a unit to the noise of a round. Neighbouring relation: the accountant's. Trusted: whoever
draws Z and keeps m; whoever sees them can take the noise off.
Source: Kalinin, Lampert, "Banded Square Root Matrix Factorization for Differentially Private Model Training", NeurIPS
2024; Denisov et al., "Improved Differential Privacy for SGD via Optimal Private Linear Operators on Adaptive Streams",
NeurIPS 2022. The rounding inside the recursion is ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from ridotto.errors import LocalProtocolError
from ridotto.privacy.ftrl import BandedSquareRoot
from ridotto.privacy.noise.discrete_gaussian import DiscreteGaussian
from ridotto.privacy.noise.words import Words

GRID_BITS = 10
"""Fraction bits of the coefficients: the largest for which the finest noise, 2^30 units, is within a sampler's 2^40."""

LONGEST_SERIES = 1 << 14
"""Rounds over which the growth of the noise is added up. Coefficients that only fall make a polynomial without a zero
in the unit circle, so what follows vanishes, faster than what is added for it."""


@dataclass(frozen=True)
class BandedNoise:
    """Draw the noise of one round after the other. bands: b >= 1. sigma: s, of z_t, in units of the sums, >= 1/2."""

    bands: int
    sigma: float

    @property
    def coefficients(self) -> tuple[int, ...]:
        """Return A_0 to A_(b-1)."""
        return whole_coefficients(self.bands)

    @cached_property
    def fresh(self) -> DiscreteGaussian:
        """Return the distribution of Z_t."""
        return DiscreteGaussian(math.ldexp(self.sigma, GRID_BITS))

    def row(self, number: int, past: Sequence[NDArray[np.int64]], words: Words, count: int) -> NDArray[np.int64]:
        """Return m_t, int64, shape (count,).

        number: t, from 0. past: m of the rounds before, the latest first, at least min(t, b - 1). words: secret, of
        this round alone.
        Raises LocalProtocolError if the past is too short: the noise would not be what privacy was claimed for.
        """
        needed = min(number, self.bands - 1)
        if len(past) < needed:
            raise LocalProtocolError(f"round {number} needs the noise of {needed} rounds before it, not {len(past)}")
        noise = self.fresh.sample(words, count)
        for coefficient, before in zip(self.coefficients[1 : needed + 1], past, strict=False):
            noise -= coefficient * before
        noise += 1 << (GRID_BITS - 1)
        noise >>= GRID_BITS
        return noise


@lru_cache(maxsize=64)
def whole_coefficients(bands: int) -> tuple[int, ...]:
    """Return A_0 to A_(b-1); the last ones are the smallest, and above 0 for up to 2^18 bands."""
    real = BandedSquareRoot(bands, bands).coefficients
    return tuple(round(math.ldexp(float(coefficient), GRID_BITS)) for coefficient in real)


@lru_cache(maxsize=64)
def column_norm(bands: int) -> float:
    """Return |C|, the l2 norm of the coefficients that are used, rounded up: what one participation of norm 1 moves."""
    return math.ldexp(math.sqrt(sum(whole**2 for whole in whole_coefficients(bands))) * (1 + 2.0**-50), -GRID_BITS)


@lru_cache(maxsize=64)
def growth(bands: int) -> float:
    """Return by how much the noise of a late round is larger than that of the first: the l2 norm of C^-1's column."""
    tail = np.array(whole_coefficients(bands)[1:], np.float64) / (1 << GRID_BITS)
    series = np.zeros(LONGEST_SERIES)
    series[0] = 1.0
    for index in range(1, LONGEST_SERIES if bands > 1 else 1):
        reach = min(index, bands - 1)
        series[index] = -(tail[:reach] @ series[index - reach : index][::-1])
    return math.sqrt(float(np.square(series).sum())) * (1 + 1e-6)
