"""Noise in the ring: added to integers mod 2^bits, before they are masked, and sized so that drop-outs never weaken it.

Whose trust. Every participant adds its share by itself, and nobody sees a share alone: the sum has the noise of all
honest participants that are in it. The privacy of one honest participant then rests on the secure sum and on the
noise of the other honest ones, so a share is sized as if only the fewest that the plan allows were there, less those
who may be corrupt and add none. More honest participants only add more noise.

The sum of discrete Gaussians is not exactly one; it is within a tau that is negligible from 2 units of share sigma on.
The accountant adds it. Neighbouring relation: the accountant's, the noise doesn't know.

Source: Kairouz, Liu, Steinke, "The Distributed Discrete Gaussian Mechanism for Federated Learning with Secure
Aggregation", ICML 2021, section 3; sizing for the smallest cohort: Bonawitz et al., CCS 2017, and common practice.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ridotto.core.fixedpoint import IntVector, container
from ridotto.errors import DataError, PlanError
from ridotto.privacy.noise.words import Words


class IntegerNoise(Protocol):
    """Draw independent integers: `DiscreteGaussian` or `Skellam`."""

    def sample(self, words: Words, count: int) -> NDArray[np.int64]:
        """Return `count` independent samples, int64, shape (count,)."""

    def add_to(self, total: IntVector, words: Words) -> None:
        """Add the same samples to `total` in place, mod 2^w, w its container's width."""


def add_noise(
    vector: IntVector, noise: IntegerNoise, words: Words, bits: int | None = None, out: IntVector | None = None
) -> IntVector:
    """Add one sample of `noise` to every entry, mod 2^bits; return the result.

    vector: integers mod 2^bits in their container, uint8 to uint64, shape (length,). noise: the share of this
    participant, in units of the integers. words: secret, of this vector alone. bits: None for all that the container
    has; spare bits above come out as 0. out: takes the result, like `vector`, and may be `vector` itself.
    Whether noise and sum have room in the ring is for the plan to prove: nothing here sees an overflow.
    Raises DataError if shapes or dtypes do not fit.
    """
    bits = vector.dtype.itemsize * 8 if bits is None else bits
    check_ring(vector, bits)
    result = vector.copy() if out is None else out
    if result.shape != vector.shape or result.dtype != vector.dtype:
        raise DataError(f"out is {result.dtype} of shape {result.shape}, the vector {vector.dtype} of {vector.shape}")
    if result is not vector:
        np.copyto(result, vector)
    noise.add_to(result, words)
    reduce(result, bits)
    return result


def check_ring(vector: IntVector, bits: int) -> None:
    """Make sure that a vector holds integers mod 2^bits: one dimension, dtype `container(bits)`.

    Raises DataError if not, PlanError if there is no such ring.
    """
    if vector.ndim != 1 or vector.dtype != container(bits):
        raise DataError(f"noise goes into a vector of {container(bits)}, not {vector.dtype} of shape {vector.shape}")


def reduce(vector: IntVector, bits: int) -> None:
    """Take every entry mod 2^bits, in place: bits of the container beyond become 0."""
    if bits < vector.dtype.itemsize * 8:
        vector &= vector.dtype.type((1 << bits) - 1)


def honest_participants(smallest_cohort: int, corrupt: int) -> int:
    """Return how many noise shares are sure to be in a sum: the fewest participants less the corrupt ones.

    smallest_cohort: a sum of fewer is never opened. corrupt: how many of them may add no noise, >= 0.
    Raises PlanError if none is left.
    """
    if corrupt < 0 or smallest_cohort - corrupt < 1:
        raise PlanError(
            f"no honest noise is sure to be in a sum of {smallest_cohort} participants of whom {corrupt} may be "
            "corrupt; ask for a larger smallest cohort"
        )
    return smallest_cohort - corrupt


def local_sigma(total_sigma: float, honest: int) -> float:
    """Return the sigma of one share, so that the shares of `honest` participants have at least `total_sigma` together.

    total_sigma: > 0. honest: >= 1, from `honest_participants`.
    Guaranteed: honest * local^2 >= total^2, exactly; it is rounded up.
    Raises PlanError if a number is out of range.
    """
    if not (math.isfinite(total_sigma) and total_sigma > 0):
        raise PlanError(f"the sigma of the whole noise is a positive number, not {total_sigma}")
    if honest < 1:
        raise PlanError(f"at least one honest participant must add noise, not {honest}")
    share = total_sigma / math.sqrt(honest)
    while honest * Fraction(share) ** 2 < Fraction(total_sigma) ** 2:
        share = math.nextafter(share, math.inf)
    return share
