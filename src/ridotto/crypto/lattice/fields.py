"""Put several entries side by side into one coefficient, and take sums of them out again.

Element i of a vector is field i % e of coefficient i // e. Elements are integers mod 2^b; the last `tail` of them are
taken as they are, those before as two's complement. A field holds the element plus 2^(b-1) (the tail: the element),
which is in 0..2^b - 1. So a coefficient is a number below 2^(e b), and sums of contributions are sums of numbers:
carries between fields are removed by taking 2^(b-1) per contribution off again. What remains must fit: the signed sum
of a field must lie in -2^(b-1)..2^(b-1) - 1, and that of a tail element in 0..2^b - 1. Then every field of the sum is
read exactly; where one does not fit, its neighbour is wrong too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import isqrt

import numpy as np

from ridotto.core.fixedpoint import IntVector, container
from ridotto.crypto.lattice.parameters import (
    DEGREE,
    MAX_CONTRIBUTIONS,
    MODULUS,
    PRIMES,
    RESIDUE_BYTES,
    Words,
)
from ridotto.errors import LocalProtocolError, PlanError

LIMIT_SQUARED = 3354
"""(9.1 * sigma of the noise)^2: noise beyond 9.1 sigma has probability 2^-63."""

MESSAGE_BITS = 84
"""Most bits of one coefficient's message: its halves and a contribution's noise then fit one product (see `kahe`)."""


def noise_limit(contributions: int) -> int:
    """Return the largest noise of a coefficient that a sum of so many contributions is believed to have."""
    return isqrt(LIMIT_SQUARED * contributions) + 1


def message_bits(contributions: int) -> int:
    """Return log2 T: how many bits of a coefficient are for messages if so many contributions are added up.

    Even, at most 84; above it is room for the noise of all: T * (2 * noise_limit + 2) <= Q.
    """
    bits = MESSAGE_BITS
    while (2 * noise_limit(contributions) + 2) << bits > MODULUS:
        bits -= 2
    return bits


@dataclass(frozen=True)
class Shape:
    """Lay vectors out in ring elements.

    length: elements of a vector, >= 1. bits: b, of one element, 8 to 64. tail: the last so many elements are not
    negative (check lanes, weights). contributions: most vectors in one sum, at most 65,536.
    Raises PlanError outside of these.
    """

    length: int
    bits: int
    tail: int
    contributions: int

    def __post_init__(self) -> None:
        container(self.bits)
        if not 1 <= self.contributions <= MAX_CONTRIBUTIONS:
            raise PlanError(f"one sum has 1 to {MAX_CONTRIBUTIONS} contributions, not {self.contributions}")
        if not 0 <= self.tail <= self.length or self.length < 1:
            raise PlanError(f"a vector of {self.length} elements can't end with {self.tail} of its own")

    @cached_property
    def message_bits(self) -> int:
        """Return log2 T."""
        return message_bits(self.contributions)

    @cached_property
    def fields(self) -> int:
        """Return e, the entries of one coefficient."""
        return self.message_bits // self.bits

    @cached_property
    def elements(self) -> int:
        """Return how many ring elements hold a vector."""
        return -(-self.length // (self.fields * DEGREE))

    @cached_property
    def coefficients(self) -> int:
        """Return the number of coefficients, those of the last element included that hold nothing."""
        return self.elements * DEGREE

    @cached_property
    def size(self) -> int:
        """Return the bytes of one ciphertext."""
        return len(PRIMES) * RESIDUE_BYTES * self.coefficients

    @property
    def half(self) -> int:
        """Return the bits of half a message."""
        return self.message_bits // 2


def join(vector: IntVector, shape: Shape, elements: range | None = None) -> tuple[Words, Words]:
    """Return the lower and the upper half of every coefficient's message, uint64, shape (elements, 4096) each.

    vector: dtype `container(bits)`, shape (length,), elements below 2^bits. Not changed. elements: some of the ring
    elements in a row, all by default.
    Raises LocalProtocolError if the vector has another shape or dtype.
    """
    if vector.shape != (shape.length,) or vector.dtype != container(shape.bits):
        raise LocalProtocolError(f"a vector of {shape.length} {container(shape.bits)} is needed, not {vector.shape}")
    some = range(shape.elements) if elements is None else elements
    values = _shifted(vector, shape, some).reshape(-1, shape.fields)
    low, high = np.zeros(len(values), np.uint64), np.zeros(len(values), np.uint64)
    for index in range(shape.fields):
        field, place = values[:, index].astype(np.uint64), index * shape.bits
        # A field may lie across the middle; the lower half is cut to its bits at the end.
        if place >= shape.half:
            field <<= np.uint64(place - shape.half)
            high |= field
            continue
        if place + shape.bits > shape.half:
            high |= field >> np.uint64(shape.half - place)
        field <<= np.uint64(place)
        low |= field
    low &= np.uint64((1 << shape.half) - 1)
    return low.reshape(-1, DEGREE), high.reshape(-1, DEGREE)


def _shifted(vector: IntVector, shape: Shape, elements: range) -> IntVector:
    """Return what the fields of some ring elements hold: zeros behind the end, and the head in excess of 2^(b-1)."""
    per_element = shape.fields * DEGREE
    begin = elements.start * per_element
    part = vector[begin : elements.stop * per_element]
    values = np.zeros(len(elements) * per_element, vector.dtype)
    values[: len(part)] = part
    head = values[: max(0, shape.length - shape.tail - begin)]
    head += head.dtype.type(1 << (shape.bits - 1))
    if shape.bits != 8 * head.itemsize:
        head &= head.dtype.type((1 << shape.bits) - 1)
    return values


def split(low: Words, high: Words, shape: Shape) -> IntVector:
    """Undo `join`: read a vector from the halves of its messages, dtype `container(bits)`, shape (length,)."""
    lower, upper = low.reshape(-1), high.reshape(-1)
    values = np.empty(shape.coefficients * shape.fields, container(shape.bits))
    for index in range(shape.fields):
        place = index * shape.bits
        if place >= shape.half:
            field = upper >> np.uint64(place - shape.half)
        elif place + shape.bits > shape.half:
            field = (lower >> np.uint64(place)) | (upper << np.uint64(shape.half - place))
        else:
            field = lower >> np.uint64(place)
        values[index :: shape.fields] = (field & np.uint64((1 << shape.bits) - 1)).astype(values.dtype)
    head = values[: shape.length - shape.tail]
    head -= head.dtype.type(1 << (shape.bits - 1))
    if shape.bits != 8 * head.itemsize:
        head &= head.dtype.type((1 << shape.bits) - 1)
    return values[: shape.length]
