"""Fix the numbers of ring-LWE: parameter set R96.

The ring is Z_Q[X] / (X^4096 + 1) with Q the product of two primes of 48 bits, both 1 mod 8192 so that it splits.

Security. The primal attack on ring-LWE of dimension 4096 with Q of 96 bits and Gaussians of width 3.18 needs BKZ with
blocks of about 406: 2^119 classically and 2^108 with a quantum computer by the core-SVP count of 2016, 2^151 with the
overhead that the homomorphic-encryption standard counts, which allows 109 bits of Q at 128 bits of security. The
widths here are larger, because whoever opens a sum learns the sum of all keys and the sum of all noises: with at least
two honest contributions this hint costs at most half the variance, so 4.5 = sqrt(2) * 3.18 remains as 3.18.

Nobody outside of the project has reviewed this choice.

Source: parameter sizes as in Google's secure-aggregation library (Willow): n = 4096 with two 48-bit primes for its
additive encryption, sigma 4.5 for keys and sqrt(2) * 4.5 for noise. Alkim et al., "Post-quantum key exchange - a new
hope", USENIX Security 2016, section 6, for the estimate; Albrecht et al., "Homomorphic Encryption Standard", 2018,
table 1; Bell et al., "ACORN: Input Validation for Secure Aggregation", USENIX Security 2023, section 3, for the hint.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

DEGREE = 4096
"""n: coefficients of one ring element."""

PRIMES = (281474976694273, 281474976636929)
"""q1 and q2, each below 2^48 and 1 mod 2 * 4096."""

MODULUS = PRIMES[0] * PRIMES[1]
"""Q, just below 2^96."""

RESIDUE_BITS = 48
RESIDUE_BYTES = RESIDUE_BITS // 8

SIGMA_KEY = 4.5
"""Width of the coefficients of a key."""

SIGMA_NOISE = 6.363961
"""Width of the noise: sqrt(2) * 4.5."""

TAIL = 12
"""Gaussians are cut off at this many sigmas: beyond it lies less than 2^-103 of them."""

LARGEST_KEY = int(TAIL * SIGMA_KEY)
"""No coefficient of a key is larger: 54."""

LARGEST_NOISE = int(TAIL * SIGMA_NOISE)
"""No coefficient of one contribution's noise is larger: 76."""

MAX_CONTRIBUTIONS = 1 << 16
"""More residues of 48 bits could overflow 64 bits as they are added up."""

FACTOR_LIMIT = 1 << 50
"""`Prime` multiplies numbers below this: four times a prime."""

SLACK = 1.0 - 2.0**-51

Words = NDArray[np.uint64]
"""Numbers of up to 64 bits; residues where nothing else is said."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Prime:
    """Compute modulo one prime q < 2^48, and hold the powers of its root for the transform.

    The product x * w mod q, for x < 4q < 2^50 and w < q, is x * w - floor(x * (w / q)) * q in 64-bit arithmetic that
    wraps: the difference is small, so its lowest 64 bits are all of it. `ratio(w)` is w / q made smaller by a relative
    2^-51 and rounded, three roundings of 2^-53 each with that of the product; so the estimate of the quotient is never
    too large, and short of the true one by less than 7 * 2^-53 * 2^50 < 1: the difference lies in 0..2q - 1.
    Source: the floating-point quotient of Shoup's NTL; bounds are ours.
    """

    value: int

    root: int = field(init=False)
    """The psi of the transform: psi^4096 = -1. From the smallest base that gives one."""

    def __post_init__(self) -> None:
        order = 2 * DEGREE
        candidates = (pow(base, (self.value - 1) // order, self.value) for base in range(2, 1000))
        root = next(root for root in candidates if pow(root, DEGREE, self.value) == self.value - 1)
        object.__setattr__(self, "root", root)

    def ratio(self, factor: Words) -> Floats:
        """Return what `times` needs of its second factor, each below q: float64, same shape."""
        ratio: Floats = factor.astype(np.float64) / float(self.value) * SLACK
        return ratio

    def times(self, one: Words, factor: Words, ratio: Floats) -> Words:
        """Return one * factor mod q in 0..q - 1. one: below 4q. ratio: `ratio(factor)`."""
        quotient = (one.astype(np.float64) * ratio).astype(np.uint64)
        with np.errstate(over="ignore"):
            return self.once(one * factor - quotient * np.uint64(self.value))

    def once(self, values: Words) -> Words:
        """Reduce numbers below 2q: what is too small wraps to something huge, and the smaller of the two is right."""
        with np.errstate(over="ignore"):
            reduced: Words = np.minimum(values, values - np.uint64(self.value))
        return reduced

    def scaled(self, values: Words, factor: int) -> Words:
        """Return values * factor mod q. values: below 4q. factor: any integer."""
        word = np.array(factor % self.value, np.uint64)
        return self.times(values, word, self.ratio(word))

    @cached_property
    def powers(self) -> Words:
        """Return psi^brv(i), shape (4096,), where brv reverses the 12 bits of i."""
        return self._powers(self.root)

    @cached_property
    def inverse_powers(self) -> Words:
        """Return psi^-brv(i), shape (4096,)."""
        return self._powers(pow(self.root, -1, self.value))

    def _powers(self, root: int) -> Words:
        table, power = [0] * DEGREE, 1
        width = DEGREE.bit_length() - 1
        for index in range(DEGREE):
            table[int(f"{index:0{width}b}"[::-1], 2)] = power
            power = power * root % self.value
        return np.array(table, np.uint64)


FIELDS = tuple(Prime(value) for value in PRIMES)
"""Arithmetic modulo q1 and q2."""
