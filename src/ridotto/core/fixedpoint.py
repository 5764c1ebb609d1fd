"""Real vectors as integers mod 2^bits, so that sums are exact and can be masked.

A participant with update x and weight a in 0..A sends k = round(x * (a / A) * 2^f), rounded up or down at random such
that its expectation is x * (a / A) * 2^f. Integers add without error, so the sum does not depend on order, engine or
number of workers; the coordinator divides once at the end: mean = sum(k) / 2^f / (sum(a) / A).

Head-room. Every entry is saturated at |k| <= K = ceil(bound * 2^f), and n participants add up to at most n * K in
absolute value. f is the largest integer for which n * K < 2^(bits - 1): with it, no sum that can occur wraps round the
ring, and two's complement reads its sign. The constructor proves this or refuses; nothing later has to check.

Whoever can live with a sum that wraps once in a long while says itself how fine the units are (`units`): then nothing
is proved here, and a sum that leaves the ring is off by 2^bits units.

Rounding. k = floor(v + u), with u = dither / 2^32 and v = x * (a / A) * 2^f in float64. The sum is one of integers,
(V + dither) >> 32 with V = v * 2^32 rounded to the nearest integer, so it is exact however large v is; adding the
dither in floating point would bias large entries. Where V could leave an int64, the integer nearest to v is split off
first, which is exact as well and gives the same k. The expectation of k is V / 2^32, that is v to the nearest multiple
of 2^-32: off by at most 2^-33 of a unit, and by as much the other way for -v.

Source: fixed point with stochastic rounding as in Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving
Machine Learning", CCS 2017, and Kairouz, Liu, Steinke, "The Distributed Discrete Gaussian Mechanism for Federated
Learning with Secure Aggregation", ICML 2021, section 4. We weight before rounding, so that one participant's
contribution has the same bound whatever its weight.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
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
"""Entries per step of one vector; measured best of 2^13 to 2^16. More take longer, because scratch memory of 512 KiB is
asked of the system page by page at every call."""

DITHER_BITS = 32

NARROW_LIMIT = 1 << (63 - DITHER_BITS)
"""Below this K, K * 2^32 fits an int64."""

MAGIC = 1.5 * 2.0**52
"""A float64 from 2^52 to 2^53 ends in a unit. So adding this rounds a |number| <= 2^51 to the nearest integer, and the
bits of the result are those of `MAGIC` plus that integer: half the price of `rint` and a conversion."""

MAGIC_UPPER = 0x4338_0000
"""Upper half of the bits of `MAGIC`; the lower is 0."""

MAGIC_REACH = 2.0 ** (51 - DITHER_BITS)
"""Up to this |v|, v * 2^32 is at most 2^51."""


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
    largest weight of one participant. units: how many units 1.0 is, whatever sums may come of it; None takes the
    largest power of two for which no sum wraps.
    Raises PlanError if these leave no room: the message says which numbers do not go together.
    """

    bits: int
    bound: float
    participants: int
    max_weight: int = 1
    units: float | None = None

    def __post_init__(self) -> None:
        container(self.bits)
        if not (math.isfinite(self.bound) and self.bound > 0):
            raise PlanError(f"the bound of an entry is {self.bound}, it must be a positive number")
        if self.participants < 1:
            raise PlanError(f"{self.participants} participants can't be summed, at least 1 is needed")
        # Weights up to here are exact in float64.
        if not 1 <= self.max_weight <= 2**53:
            raise PlanError(f"the largest weight is {self.max_weight}, it must be 1 to 2^53")
        if self.units is not None:
            self._check_units(self.units)
        elif self._room < 1 or math.ceil(self.bound) > self._room:
            raise PlanError(
                f"{self.bits} bits leave no room: {self.participants} participants with entries up to {self.bound} "
                f"sum to {self.participants * math.ceil(self.bound)}, and the ring holds less than 2^{self.bits - 1}; "
                "take more bits, a smaller bound or fewer participants"
            )

    def _check_units(self, units: float) -> None:
        if not (math.isfinite(units) and units > 0 and math.isfinite(1 / units)):
            raise PlanError(f"1.0 is {units} units, it must be a positive number of them")
        if self.bound * units > min((1 << (self.bits - 1)) - 1, 1 << LIMIT_BITS):
            raise PlanError(
                f"an entry of {self.bound} is {self.bound * units:.4g} units, and a ring of {self.bits} bits holds "
                f"less than 2^{self.bits - 1}"
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
        """Return K, the largest |integer| of one participant: the bound in units, rounded up."""
        if self.units is not None:
            return math.ceil(self.bound * self.units)
        return self._limit_at(self.fraction_bits)

    @property
    def resolution(self) -> float:
        """Return the value of one unit: 2^-f, or 1 / `units`."""
        return math.ldexp(1.0, -self.fraction_bits) if self.units is None else 1.0 / self.units

    def scale(self, weight: int, factor: float = 1.0) -> float:
        """Return by what an entry is multiplied to become v: factor * a / A, in units."""
        share = weight / self.max_weight * factor
        return math.ldexp(share, self.fraction_bits) if self.units is None else share * self.units

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
        first: clipping costs no pass of its own. peak: no |entry| is larger, and all are finite, as a norm proves; a
        lower one is searched for where that pays. out: takes the integers, shape (length,), dtype `container(bits)`.
        Guaranteed: every integer is in -K..K, mod 2^bits; same arguments, same bytes.
        Raises DataError if an entry is NaN or infinite, or if weight, shapes or dtypes do not fit.
        """
        self._check(values, weight, dither)
        scale = self.scale(weight, factor)
        result = np.empty(len(values), container(self.bits)) if out is None else out
        rounder, saturated = Rounder(self.limit, min(len(values), CHUNK_ELEMENTS)), 0
        for begin in range(0, len(values), CHUNK_ELEMENTS):
            part = slice(begin, begin + CHUNK_ELEMENTS)
            largest = peak
            if largest is None or largest * scale > rounder.easy_reach:
                largest = entry_peak(values[part])
            if not math.isfinite(largest):
                require_finite(values, layout)
            real = rounder.widen(values[None, part])
            saturated += rounder.scale(real, [scale], [largest])[0]
            rounder.add(real, dither[None, part], largest * scale, result[part], begin=True)
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


class Rounder:
    """Turn a few rows of entries at a time into integers and add them up, in scratch memory that is made once.

    For whoever encodes many vectors into one sum; `FixedPoint.encode` adds one vector to zeros. The steps, in order,
    are `widen`, `scale` and `add`. limit: K. elements: the most entries, over all rows, of one step. The attribute
    `easy_reach` is the |v| up to which it pays nothing to know a lower peak.
    """

    def __init__(self, limit: int, elements: int) -> None:
        self.elements = elements
        self._limit = limit
        self._wide = limit >= NARROW_LIMIT
        # Nothing is cut off and `MAGIC` rounds: each saves more than the search for the largest entry costs.
        self.easy_reach = float(limit) if self._wide else min(limit, MAGIC_REACH)
        self._unit = 1.0 if self._wide else 2.0**DITHER_BITS
        self._real = np.empty(elements)
        self._integers = np.empty(elements, np.int64)
        self._nearest = np.empty(elements if self._wide else 0)

    def widen(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return float64 copies, shape (rows, entries), in the scratch memory: they last until the next call."""
        real = self.widened(values.shape)
        np.copyto(real, values)
        return real

    def widened(self, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Return what `widen` returned last, for values of this shape."""
        return self._real[: math.prod(shape)].reshape(shape)

    def scale(self, real: NDArray[np.float64], scales: Sequence[float], peaks: Sequence[float]) -> list[int]:
        """Multiply each row by its scale, cut off what is beyond K, and return how many entries that was, by row.

        real: from `widen`, changed in place: v, times 2^32 where K < 2^31. peaks: no |entry| of the row was larger.
        """
        np.multiply(real, np.array(scales)[:, None] * self._unit, out=real)
        # Rounding to float64 keeps order: no product of a smaller entry is beyond K if that of the largest is not.
        outside = [0] * len(real)
        for row, (scale, peak) in enumerate(zip(scales, peaks, strict=True)):
            if peak * scale > self._limit:
                outside[row] = _saturate(real[row], self._limit * self._unit)
        return outside

    def add(
        self,
        real: NDArray[np.float64],
        dither: NDArray[np.uint32],
        reach: float,
        total: IntVector,
        begin: bool = False,
    ) -> None:
        """Add the integers of every row to `total` in place, mod 2^w, w its container's width.

        real: from `scale`, lost afterwards. dither: uint32, shape (rows, entries). reach: no |v| was larger before it
        was cut off. total: shape (entries,). begin: what `total` held before does not count.
        """
        magic = self._wide or min(reach, self._limit) <= MAGIC_REACH
        nearest = self._split(real) if self._wide else None
        fixed = self._nearest_integers(real, magic)
        np.add(fixed, dither, out=fixed)
        if total.itemsize == 8:
            np.right_shift(fixed, DITHER_BITS, out=fixed)
        if nearest is not None:
            whole = self._integers[: real.size].reshape(real.shape)
            np.copyto(whole, nearest, casting="unsafe")
            np.add(fixed, whole, out=fixed)
        for index, row in enumerate(_upper(fixed, total.dtype)):
            if begin and index == 0:
                np.copyto(total, row)
            else:
                np.add(total, row, out=total)
        if magic and total.itemsize >= 4:
            modulus = 1 << (8 * total.itemsize)
            np.subtract(total, total.dtype.type(len(real) * MAGIC_UPPER % modulus), out=total)

    def _split(self, real: NDArray[np.float64]) -> NDArray[np.float64]:
        """Leave what is left of v beside the nearest integer, times 2^32; return those integers."""
        nearest = np.rint(real, out=self._nearest[: real.size].reshape(real.shape))
        np.subtract(real, nearest, out=real)
        np.multiply(real, 2.0**DITHER_BITS, out=real)
        return nearest

    def _nearest_integers(self, real: NDArray[np.float64], magic: bool) -> NDArray[np.int64]:
        """Round to the nearest integers, halves to even; with the bits of `MAGIC` added if asked for."""
        if magic:
            np.add(real, MAGIC, out=real)
            return real.view(np.int64)
        fixed = self._integers[: real.size].reshape(real.shape)
        np.rint(real, out=real)
        np.copyto(fixed, real, casting="unsafe")
        return fixed


def entry_peak(values: Vector) -> float:
    """Return the largest |entry|, shape (length,) and not empty: NaN or infinite if there is one that is."""
    low, high = float(values.min()), float(values.max())
    return max(-low, high) if math.isfinite(low + high) else math.nan


def _upper(fixed: NDArray[np.int64], width: np.dtype[np.unsignedinteger[Any]]) -> IntVector:
    """Return the integers of the given container in the upper halves of `fixed`; of 64 bits, the whole of it."""
    if width.itemsize == 8:
        return fixed.view(np.uint64)
    step = 8 // width.itemsize
    return fixed.view(width)[:, step // 2 if sys.byteorder == "little" else step // 2 - 1 :: step]


def _saturate(real: NDArray[np.float64], bound: float) -> int:
    """Clip in place; return how many entries were outside."""
    outside = int(np.count_nonzero(real > bound)) + int(np.count_nonzero(real < -bound))
    np.clip(real, -bound, bound, out=real)
    return outside
