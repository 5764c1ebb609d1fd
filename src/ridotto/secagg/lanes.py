"""Small numbers that travel inside the masked vector: check lanes, weights, metrics.

After the model's d entries a vector has lanes: `count` (1 from everyone), zeros, then the values that the plan
asks for: the weight and the metrics. So nobody's weight or metric is ever in clear, and a sum whose masks did not
cancel is recognised: its count and zeros are random. With w-bit elements a wrong sum passes with probability
2^-(w * (1 + zeros)), at most 2^-72.

A value may be larger than an element has room for (a weight of 600 in an 8-bit ring). It is then cut into
limbs, low to high, each so small that the sum over all participants can't wrap.

Specified in docs/protocols/encoding.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ridotto.core.fixedpoint import IntVector, container
from ridotto.errors import DataError, PlanError

ZERO_BITS = 64
"""The zero lanes have at least this many bits together."""


@dataclass(frozen=True)
class LaneSums:
    """Hold what the lanes of a sum say: the count, whether the zeros are zero, and one sum per value."""

    count: int
    zero: bool
    values: tuple[int, ...]


@dataclass(frozen=True)
class Lanes:
    """Lay out the lanes behind a vector.

    bits: width of an element. participants: most contributions in one sum. capacities: the largest value that one
    participant may put into each lane, >= 0.
    Raises PlanError if an element has no room for a sum of even one bit from everyone.
    """

    bits: int
    participants: int
    capacities: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.limb_bits < 1:
            raise PlanError(f"elements of {self.bits} bits have no room for sums over {self.participants} participants")

    @cached_property
    def limb_bits(self) -> int:
        """Return how many bits one participant may use of an element so that the sum can't wrap."""
        return (((1 << self.bits) - 1) // self.participants + 1).bit_length() - 1

    @cached_property
    def zeros(self) -> int:
        """Return the number of zero lanes."""
        return -(-ZERO_BITS // self.bits)

    @cached_property
    def limbs(self) -> tuple[int, ...]:
        """Return how many elements each value takes."""
        return tuple(max(1, -(-capacity.bit_length() // self.limb_bits)) for capacity in self.capacities)

    @cached_property
    def size(self) -> int:
        """Return the number of elements behind the vector."""
        return 1 + self.zeros + sum(self.limbs)

    def write(self, values: Sequence[int]) -> IntVector:
        """Return one participant's lanes: elements of the container type of `bits`, shape (size,).

        Raises DataError if a value is not between 0 and its capacity.
        """
        elements = [1] + [0] * self.zeros
        for value, capacity, limbs in zip(values, self.capacities, self.limbs, strict=True):
            if not 0 <= value <= capacity:
                raise DataError(f"a lane holds 0 to {capacity}, not {value}")
            elements += [(value >> (self.limb_bits * i)) & ((1 << self.limb_bits) - 1) for i in range(limbs)]
        return np.array(elements, dtype=container(self.bits))

    def read(self, tail: IntVector) -> LaneSums:
        """Read the lanes of an opened sum, shape (size,)."""
        elements = [int(element) for element in tail]
        zero = not any(elements[1 : 1 + self.zeros])
        values, at = [], 1 + self.zeros
        for limbs in self.limbs:
            values.append(sum(elements[at + i] << (self.limb_bits * i) for i in range(limbs)))
            at += limbs
        return LaneSums(elements[0], zero, tuple(values))
