"""The discrete Gaussian N_Z(0, sigma^2), sampled exactly: P(k) is proportional to exp(-k^2 / 2 sigma^2).

Privacy. An integer-valued function of l2 sensitivity D with this noise on every entry satisfies D^2 / (2 sigma^2)-zCDP
(Canonne, Kamath, Steinke, theorem 4 and its multivariate form), as with the continuous Gaussian; here it is also
true of what a computer really does, because only integers are drawn, from tables, by AES words.

How exact. The samples' statistical distance to N_Z(0, sigma^2) is at most `distance` each, always below 2^-66:

- sigma <= 200: one table of the integers up to 10.6 sigma. Its weights are 256-bit integers, k off by at most
  2 k^2 + 2 k units (see `gaussian_weights`), which is below 2^-230; the mass beyond the table is below 2^-80; and the
  table rounds to 80 bits: (number of values) * 2^-81 (see `table.py`).
- larger sigma, up to 2^40: X = B * Y + Z with Y, Z discrete Gaussians of parameters s1, s2 such that
  sigma^2 = B^2 s1^2 + s2^2 exactly, as fractions. Then P(X = x) is exp(-x^2 / (2 sigma^2)) times
  sum over y of exp(-(y - c)^2 / (2 t^2)) for some c that depends on x, with t = s1 s2 / sigma. By Poisson's summation
  formula this sum is t sqrt(2 pi) (1 + e), |e| <= 2.01 exp(-2 pi^2 t^2), for every c. We take t >= 2.1, so that |e| is
  below 2^-123, and with it the distance of the sum. Y may be made of two such variables again: 2 tables up to
  sigma = 16,000, 3 up to 2^20, 7 up to 2^40.

A vector of d entries is within d * distance of exact noise, so a delta grows by at most (1 + e^epsilon) d * distance:
less than 2^-40 for d = 2^25 and small epsilon.

Source: Canonne, Kamath, Steinke, "The Discrete Gaussian for Differential Privacy", NeurIPS 2020; sums that are Gaussian
again: Peikert, "An Efficient and Parallel Gaussian Sampler for Lattices", CRYPTO 2010, theorem 3.1, and Micciancio,
Walter, "Gaussian Sampling over the Integers", CRYPTO 2017, section 4. We differ: CKS sample by rejection from a
geometric distribution, with no distance at all but one sample at a time; tests hold ours against the probabilities.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ridotto.core.fixedpoint import IntVector
from ridotto.errors import PlanError
from ridotto.privacy.noise.table import InversionTable, pieces
from ridotto.privacy.noise.words import Words

MAX_SIGMA = 2.0**40
"""Samples and their sums stay far inside an int64: 2^40 * 20 is below 2^45."""

TABLE_SIGMA = 200
"""The largest sigma of one table. Then 5 % of the samples need the other 64 bits; a second table would cost more."""

TAIL = Fraction(106, 10)
"""Tables end at this many sigma: the mass beyond, 2 * exp(-10.6^2 / 2) at most, is below 2^-80."""
TAIL_MASS = 2.0**-80

RATIO = Fraction(5, 2)
"""s2 / B. With s1 >= 4, t is at least 1 / sqrt(1 / 4^2 + 1 / 2.5^2) = 2.12."""

WEIGHT_BITS = 256
DIGITS = 90
"""Decimal digits of exp, 298 bits: exact to the last of `WEIGHT_BITS`."""


@dataclass(frozen=True)
class DiscreteGaussian:
    """Draw from N_Z(0, sigma^2). sigma: > 0, at most 2^40, in units of the integers it is added to.

    Raises PlanError if sigma is not such a number.
    """

    sigma: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.sigma) and 0 < self.sigma <= MAX_SIGMA):
            raise PlanError(f"the sigma of a discrete Gaussian is above 0 and at most 2^40, not {self.sigma}")

    @property
    def _parts(self) -> tuple[_Part, ...]:
        return _decompose(self.sigma)

    @property
    def distance(self) -> float:
        """Return a bound on the statistical distance of one sample to N_Z(0, sigma^2)."""
        return sum(part.table.distance + TAIL_MASS for part in self._parts) + (len(self._parts) - 1) * 2.0**-120

    @property
    def variance(self) -> float:
        """Return sigma^2. The true variance is at most that; from sigma = 1 on, the two differ by less than 1e-6."""
        return self.sigma**2

    def rho(self, sensitivity: float) -> float:
        """Return the zCDP of adding this to integers of the given l2 sensitivity, > 0. Not for a sum of several.

        Raises PlanError if the sensitivity is no positive number.
        """
        if not (math.isfinite(sensitivity) and sensitivity > 0):
            raise PlanError(f"a sensitivity is a positive number, not {sensitivity}")
        return sensitivity**2 / (2 * self.sigma**2)

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
        # A piece at a time, so that it is in the cache for all parts.
        for piece in pieces(total):
            for index, part in enumerate(self._parts):
                part.table.add_to(piece, words, f"{index}", part.factor)


@dataclass(frozen=True)
class _Part:
    """Hold one table of N_Z(0, variance) and the integer that its samples are multiplied by."""

    factor: int
    variance: Fraction
    table: InversionTable


@lru_cache(maxsize=64)
def _decompose(sigma: float) -> tuple[_Part, ...]:
    """Write N_Z(0, sigma^2) as a sum of multiples of table variables of about the same size, the widest first."""
    variance, tables = Fraction(sigma) ** 2, 1
    while variance > (TABLE_SIGMA**tables / RATIO ** (tables - 1)) ** 2:
        tables += 1
    factor, parts = 1, []
    for rest in range(tables, 1, -1):
        size = (math.sqrt(variance) * float(RATIO) ** (rest - 1)) ** (1 / rest)
        step = math.ceil(size / RATIO)
        narrow = math.ceil(step * RATIO)
        parts.append(_Part(factor, Fraction(narrow) ** 2, _table(Fraction(narrow) ** 2)))
        variance = (variance - narrow**2) / step**2
        factor *= step
    parts.append(_Part(factor, variance, _table(variance)))
    return tuple(parts[::-1])


@lru_cache(maxsize=64)
def _table(variance: Fraction) -> InversionTable:
    weights = gaussian_weights(variance, math.ceil(TAIL * Fraction(math.sqrt(variance))) + 1)
    return InversionTable(weights[:0:-1] + weights, 1 - len(weights))


def gaussian_weights(variance: Fraction, last: int) -> list[int]:
    """Return exp(-k^2 / (2 variance)) * 2^256 for k = 0 to `last`, each off by at most 2 k^2 + 2 k.

    With q = exp(-1 / (2 variance)), the weight k + 1 is the weight k times q^(2k + 1). Each product of two numbers up
    to 1 is rounded down once and carries the errors of both: after k steps the ratio is off by at most 4k + 1 and the
    weight by the sum of these.
    """
    context = Context(prec=DIGITS)
    exponent = context.divide(Decimal(-variance.denominator), Decimal(2 * variance.numerator))
    # Scaled by an exact power of two, in a context wide enough not to round the product.
    ratio = int(Context(prec=2 * DIGITS).multiply(context.exp(exponent), Decimal(1 << WEIGHT_BITS)))
    square = (ratio * ratio) >> WEIGHT_BITS
    weight, weights = 1 << WEIGHT_BITS, []
    for _ in range(last + 1):
        weights.append(weight)
        weight = (weight * ratio) >> WEIGHT_BITS
        ratio = (ratio * square) >> WEIGHT_BITS
    return weights
