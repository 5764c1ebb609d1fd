"""Skellam noise: the difference of two Poisson variables, sampled exactly. A sum of Skellam variables is one again.

Closed under sums is its advantage over the discrete Gaussian: the noise that n participants add has exactly the
distribution that the accountant reckons with, whoever is missing. Its price is a worse epsilon at small variance, a
sensitivity that needs the l1 norm as well, and two tables per sample.

How exact. Each of the two Poisson tables holds all values whose probability is above 2^-100 of the largest; the mass
beyond is below 2^-90. Weights are 256-bit integers that are off by less than 2^-200, and the table rounds to 80 bits.
The statistical distance of a sample is `distance`, always below 2^-64.

Source: Agarwal, Kairouz, Liu, "The Skellam Mechanism for Differentially Private Federated Learning", NeurIPS 2021;
Valovich, Alda, "Computational Differential Privacy from Lattice-Based Cryptography", 2017.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from ridotto.core.fixedpoint import IntVector
from ridotto.errors import PlanError
from ridotto.privacy.noise.table import InversionTable, pieces
from ridotto.privacy.noise.words import Words

MAX_VARIANCE = 2.0**21
"""Sigma 1,448. Beyond, a table would have more than 2^15 values; the discrete Gaussian goes further."""

WEIGHT_BITS = 256
TAIL_BITS = 100
TAIL_MASS = 2.0**-90


@dataclass(frozen=True)
class Skellam:
    """Draw X - Y with X, Y independent Poisson variables of mean variance / 2.

    variance: > 0, at most 2^21, in squared units of the integers it is added to: mu of the paper, for one party.
    Raises PlanError if it is not such a number.
    """

    variance: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.variance) and 0 < self.variance <= MAX_VARIANCE):
            raise PlanError(f"the variance of Skellam noise is above 0 and at most 2^21, not {self.variance}")

    @cached_property
    def _table(self) -> InversionTable:
        return _poisson(Fraction(self.variance) / 2)

    @property
    def distance(self) -> float:
        """Return a bound on the statistical distance of one sample to the Skellam distribution."""
        return 2 * (self._table.distance + TAIL_MASS)

    def sample(self, words: Words, count: int) -> NDArray[np.int64]:
        """Return `count` independent samples, int64, shape (count,). Same words, same samples.

        words: of the participant alone, used for nothing else.
        """
        samples = np.zeros(count, np.int64)
        self.add_to(samples.view(np.uint64), words)
        return samples

    def add_to(self, total: IntVector, words: Words) -> None:
        """Add an independent sample to every entry, mod 2^w, w its container's width. Same words, same samples.

        total: uint8 to uint64, shape (count,), changed in place. words: as for `sample`.
        """
        for piece in pieces(total):
            self._table.add_to(piece, words, "positive")
            self._table.add_to(piece, words, "negative", -1)


@lru_cache(maxsize=16)
def _poisson(mean: Fraction) -> InversionTable:
    """Return the table of a Poisson variable less the integer part of its mean, which a difference does not see."""
    mode = math.floor(mean)
    least = 1 << (WEIGHT_BITS - TAIL_BITS)
    above, weight = [1 << WEIGHT_BITS], 1 << WEIGHT_BITS
    while weight >= least:
        weight = weight * mean.numerator // (mean.denominator * (mode + len(above)))
        above.append(weight)
    below: list[int] = []
    weight = 1 << WEIGHT_BITS
    while weight >= least and len(below) < mode:
        weight = weight * mean.denominator * (mode - len(below)) // mean.numerator
        below.append(weight)
    return InversionTable(below[::-1] + above, -len(below))
