"""Real vectors as integers mod 2^bits, so that sums are exact and can be masked.

A participant with update x and weight a in 0..A sends k = round(x * (a / A) * 2^f), rounded up or down at random such
that its expectation is x * (a / A) * 2^f. Integers add without error, so the sum does not depend on order, engine or
number of workers; the coordinator divides once at the end: mean = sum(k) / 2^f / (sum(a) / A).

Head-room. Every entry is saturated at |k| <= K = ceil(bound * 2^f), and n participants add up to at most n * K in
absolute value. f is the largest integer for which n * K < 2^(bits - 1): with it, no sum that can occur wraps round the
ring, and two's complement reads its sign. The constructor proves this or refuses; nothing later has to check.

Rounding. k = floor(v) + [u < frac(v)], with u = dither / 2^32 and v = x * (a / A) * 2^f in float64. Both terms are read
off the integer ceil(v * 2^32): floor(v) is its upper part and frac(v) its lower 32 bits, so that nothing is rounded
twice; adding the dither in floating point would bias large entries. Where v * 2^32 could leave an int64, the nearest
integer is first split off v, which is exact as well. The dither has 32 bits, so P(rounding up) is frac(v) rounded up
to a multiple of 2^-32: the expectation is high by less than 2^-32 of a unit, never low.

Source: fixed point with stochastic rounding as in Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving
Machine Learning", CCS 2017, and Kairouz, Liu, Steinke, "The Distributed Discrete Gaussian Mechanism for Federated
Learning with Secure Aggregation", ICML 2021, section 4. We weight before rounding, so that one participant's
contribution has the same bound whatever its weight.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ridotto.core.vector import Layout, Vector, require_finite
from ridotto.errors import DataError, PlanError

IntVector = NDArray[np.unsignedinteger[Any]]
"""Integers mod 2^bits in the container dtype, shape (length,). Negative numbers are in two's complement."""

MIN_BITS, MAX_BITS = 8, 64

MAX_FRACTION_BITS = 149
"""Every float32 is a multiple of 2^-149, so more fraction bits would say nothing."""

LIMIT_BITS = 52
"""K <= 2^52, whatever `bits` is: float64 then still holds every v < K to at least half a unit."""

CHUNK_ELEMENTS = 1 << 15
"""Entries per step. The scratch rows (less than 1 MiB) stay in a core's L2 cache; measured best of 2^12 to 2^17."""

DITHER_BITS = 32

NARROW_LIMIT = 1 << (63 - DITHER_BITS)
"""Below this K, K * 2^32 fits an int64."""

HIGH = 1 if sys.byteorder == "little" else 0
"""Which 32-bit half of a 64-bit integer in memory is the upper one."""


def container(bits: int) -> np.dtype[np.unsignedinteger[Any]]:
    """Return the smallest of uint8, uint16, uint32 and uint64 that holds `bits` bits.

    Raises PlanError if bits is not 8 to 64.
    """
    if not MIN_BITS <= bits <= MAX_BITS:
        raise PlanError(f"the ring has {bits} bits, it must have {MIN_BITS} to {MAX_BITS}")
    width = next(width for width in (8, 16, 32, 64) if bits <= width)
    return np.dtype(f"uint{width}")


@dataclass(frozen=True)
class FixedPoint:
    """Encode float32 vectors into a ring of integers and decode their sum.

    bits: width of the ring, 8 to 64. bound (B): > 0, the largest |entry| of an update before weighting; larger
    entries are saturated. participants (n): >= 1, the most vectors that are ever added. max_weight (A): >= 1, the
    largest weight of one participant.
    Raises PlanError if these leave no room: the message says which numbers do not go together.
    """

    bits: int
    bound: float
    participants: int
    max_weight: int = 1

    def __post_init__(self) -> None:
        container(self.bits)
        if not (math.isfinite(self.bound) and self.bound > 0):
            raise PlanError(f"the bound of an entry is {self.bound}, it must be a positive number")
        if self.participants < 1:
            raise PlanError(f"{self.participants} participants can't be summed, at least 1 is needed")
        # Weights up to here are exact in float64.
        if not 1 <= self.max_weight <= 2**53:
            raise PlanError(f"the largest weight is {self.max_weight}, it must be 1 to 2^53")
        if self._room < 1 or math.ceil(self.bound) > self._room:
            raise PlanError(
                f"{self.bits} bits leave no room: {self.participants} participants with entries up to {self.bound} "
                f"sum to {self.participants * math.ceil(self.bound)}, and the ring holds less than 2^{self.bits - 1}; "
                "take more bits, a smaller bound or fewer participants"
            )

    @property
    def _room(self) -> int:
        """Return the largest K that head-room allows: n * K < 2^(bits - 1)."""
        highest_sum = (1 << (self.bits - 1)) - 1
        return min(highest_sum // self.participants, 1 << LIMIT_BITS)

    @cached_property
    def fraction_bits(self) -> int:
        """Return f, the largest number of fraction bits for which no sum wraps: 0 to 149."""
        # frexp gives 2^(exponent - 1) <= bound < 2^exponent, so the start always fits and is at most one step too low.
        start = self._room.bit_length() - 1 - math.frexp(self.bound)[1]
        fraction_bits = min(max(start, 0), MAX_FRACTION_BITS)
        while fraction_bits < MAX_FRACTION_BITS and self._limit_at(fraction_bits + 1) <= self._room:
            fraction_bits += 1
        return fraction_bits

    @cached_property
    def limit(self) -> int:
        """Return K = ceil(bound * 2^f), the largest |integer| of one participant."""
        return self._limit_at(self.fraction_bits)

    @property
    def resolution(self) -> float:
        """Return 2^-f, the value of one unit."""
        return math.ldexp(1.0, -self.fraction_bits)

    def encode(
        self,
        values: Vector,
        weight: int,
        dither: NDArray[np.uint32],
        layout: Layout | None = None,
        *,
        factor: float = 1.0,
        peak: float | None = None,
        out: IntVector | None = None,
    ) -> tuple[IntVector, int]:
        """Weight, saturate and round a vector; return the integers and how many entries were saturated.

        values: float32, shape (length,). weight (a): 0 to max_weight. dither: uint32, shape (length,), uniform and
        fresh; it decides the rounding. layout: names the parameter in an error. factor: > 0, multiplies every entry
        first: clipping costs no pass of its own. peak: no |entry| is larger, and all are finite, as a norm proves; it
        is searched for if None. out: takes the integers, shape (length,), dtype `container(bits)`.
        Guaranteed: every integer is in -K..K, mod 2^bits; same arguments, same bytes.
        Raises DataError if an entry is NaN or infinite, or if weight, shapes or dtypes do not fit.
        """
        self._check(values, weight, dither)
        scale = math.ldexp(weight / self.max_weight * factor, self.fraction_bits)
        result = np.empty(len(values), container(self.bits)) if out is None else out
        chunks = _Chunks(self.limit, scale)
        encode_chunk = chunks.narrow if self.limit < NARROW_LIMIT else chunks.wide
        saturated = 0
        for begin in range(0, len(values), CHUNK_ELEMENTS):
            part = slice(begin, begin + CHUNK_ELEMENTS)
            largest = _peak(values[part]) if peak is None else peak
            if not math.isfinite(largest):
                require_finite(values, layout)
            saturated += encode_chunk(values[part], dither[part], result[part], largest * scale > self.limit)
        if self.bits < result.dtype.itemsize * 8:
            result &= result.dtype.type((1 << self.bits) - 1)
        return result, saturated

    def decode(self, total: IntVector, total_weight: int) -> Vector:
        """Return the weighted mean that a sum of encoded vectors stands for.

        total: as for `decode_sum`. total_weight: sum of the participants' weights, 1 to participants * max_weight.
        Returns float32, shape (length,). The rounding error of an entry is unbiased and has a standard deviation of
        at most resolution * max_weight * sqrt(n) / 2 / total_weight.
        Raises DataError if total_weight is out of range.
        """
        highest = self.participants * self.max_weight
        if not 1 <= total_weight <= highest:
            raise DataError(f"the weights sum to {total_weight}, they must sum to 1 to {highest}")
        self._check_total(total)
        mean = np.empty(len(total), np.float32)
        for begin in range(0, len(total), CHUNK_ELEMENTS):
            part = slice(begin, begin + CHUNK_ELEMENTS)
            mean[part] = self._real(total[part]) * (self.max_weight / total_weight)
        return mean

    def decode_sum(self, total: IntVector) -> NDArray[np.float64]:
        """Return the real numbers that a sum of encoded vectors stands for: sum(x * a / A).

        total: dtype `container(bits)`, shape (length,), a sum mod 2^bits. Container bits above `bits` are ignored, so
        sums need no reduction on the way. Returns float64, shape (length,).
        Raises DataError if dtype or shape do not fit.
        """
        self._check_total(total)
        return self._real(total)

    def _real(self, total: IntVector) -> NDArray[np.float64]:
        # Shifting up and, as a signed number, down again copies the sign bit into the spare container bits.
        width = total.dtype.itemsize * 8
        spare = width - self.bits
        signed: NDArray[np.signedinteger[Any]] = (total << spare).view(f"int{width}")
        real: NDArray[np.float64] = np.multiply(signed >> spare, self.resolution, dtype=np.float64)
        return real

    def _check_total(self, total: IntVector) -> None:
        expected = container(self.bits)
        if total.dtype != expected or total.ndim != 1:
            found = f"{total.dtype} of shape {total.shape}"
            raise DataError(f"a sum of {self.bits}-bit integers is a vector of {expected}, not {found}")

    def _limit_at(self, fraction_bits: int) -> int:
        # Integer arithmetic, because ldexp of a large bound would overflow.
        numerator, denominator = self.bound.as_integer_ratio()
        limit: int = -(-(numerator << fraction_bits) // denominator)
        return limit

    def _check(self, values: Vector, weight: int, dither: NDArray[np.uint32]) -> None:
        if values.dtype != np.float32 or values.ndim != 1:
            raise DataError(f"an update is a float32 vector, not {values.dtype} of shape {values.shape}")
        if dither.dtype != np.uint32 or dither.shape != values.shape:
            expected = f"uint32 of shape {values.shape}"
            raise DataError(f"the dither is {dither.dtype} of shape {dither.shape}, it must be {expected}")
        if not 0 <= weight <= self.max_weight:
            raise DataError(f"the weight is {weight}, it must be 0 to {self.max_weight}")


class _Chunks:
    """Encode one chunk after the other in the same scratch memory."""

    def __init__(self, limit: int, scale: float) -> None:
        self.limit = limit
        self.scale = scale
        self.real = np.empty(CHUNK_ELEMENTS)
        self.fixed = np.empty(CHUNK_ELEMENTS, np.int64)
        self.upper = self.fixed.view(np.int32)[HIGH::2]
        self.nearest = np.empty(CHUNK_ELEMENTS if limit >= NARROW_LIMIT else 0)
        self.lower = np.empty(CHUNK_ELEMENTS, np.uint32)
        self.up = np.empty(CHUNK_ELEMENTS, np.bool_)
        # A float32 times a power of two is exact, so the chunk need not be widened, which saves a fifth of the time.
        shifted = math.ldexp(scale, DITHER_BITS)
        self.exact = math.frexp(shifted)[0] == 0.5 and 1 <= shifted < 2.0**127
        self.single = np.empty(CHUNK_ELEMENTS if self.exact else 0, np.float32)

    def narrow(self, values: Vector, dither: NDArray[np.uint32], result: IntVector, saturates: bool) -> int:
        """Encode a chunk with K < 2^31; return how many entries were saturated."""
        shifted, saturated = math.ldexp(self.scale, DITHER_BITS), 0
        if self.exact and not saturates:
            real = np.multiply(values, np.float32(shifted), out=self.single[: len(values)])
        else:
            real, saturated = self._scale(values, shifted, math.ldexp(self.limit, DITHER_BITS), saturates)
        up = self._split(real, dither)
        np.copyto(result, self.upper[: len(values)], casting="unsafe")
        np.add(result, up, out=result)
        return saturated

    def wide(self, values: Vector, dither: NDArray[np.uint32], result: IntVector, saturates: bool) -> int:
        """Encode a chunk with K up to 2^52; return how many entries were saturated."""
        real, saturated = self._scale(values, self.scale, self.limit, saturates)
        nearest = np.rint(real, out=self.nearest[: len(values)])
        np.subtract(real, nearest, out=real)
        np.multiply(real, 2.0**DITHER_BITS, out=real)
        up = self._split(real, dither)
        signed = result.view(np.int64)
        np.copyto(signed, nearest, casting="unsafe")
        np.add(signed, self.upper[: len(values)], out=signed)
        np.add(signed, up, out=signed)
        return saturated

    def _scale(self, values: Vector, scale: float, limit: float, saturates: bool) -> tuple[NDArray[np.float64], int]:
        real = self.real[: len(values)]
        np.copyto(real, values)
        np.multiply(real, scale, out=real)
        return real, _saturate(real, limit) if saturates else 0

    def _split(self, real: NDArray[np.floating[Any]], dither: NDArray[np.uint32]) -> NDArray[np.uint8]:
        """Leave floor(v) in `upper`, for v = real / 2^32; return 1 where the dither rounds it up, else 0.

        The lower word is frac(v) * 2^32 rounded up. An integer is below it exactly if it is below frac(v) * 2^32.
        """
        fixed, lower, up = self.fixed[: len(real)], self.lower[: len(real)], self.up[: len(real)]
        np.ceil(real, out=real)
        np.copyto(fixed, real, casting="unsafe")
        np.copyto(lower, fixed, casting="unsafe")
        return np.less(dither, lower, out=up).view(np.uint8)


def _peak(values: Vector) -> float:
    """Return the largest |entry|: NaN or infinite if there is one that is."""
    low, high = float(values.min()), float(values.max())
    return max(-low, high) if math.isfinite(low + high) else math.nan


def _saturate(real: NDArray[np.float64], bound: float) -> int:
    """Clip in place; return how many entries were outside."""
    outside = int(np.count_nonzero(real > bound)) + int(np.count_nonzero(real < -bound))
    np.clip(real, -bound, bound, out=real)
    return outside
