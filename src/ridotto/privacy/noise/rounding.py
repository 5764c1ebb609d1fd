"""Round a clipped vector at random without giving up its sensitivity: draw again until the norm is short enough.

Stochastic rounding makes a vector longer, in the worst case by sqrt(d) / 2 units and more; so the sensitivity that
counts is that of the rounded vector. Conditional rounding repeats the draw until the l2 norm is at most

    D2 = sqrt(min(c^2 + d / 4 + sqrt(2 ln(1 / beta)) (c + sqrt(d) / 2), (c + sqrt(d))^2)),    beta = e^(-1/2),

with c the bound of the vector before, in units. One draw succeeds with probability at least 1 - beta = 0.39, and almost
always in practice, where the vector isn't made for it. Given success, expectations move by a negligible part.

Rounding itself is that of `core.fixedpoint`: k = floor(v + u) with u = dither / 2^32, so the expectation of k is v to
the nearest multiple of 2^-32.

Neighbouring relation: one participant's vector added or removed; D2 is the sensitivity of the integer sum then, and
twice that if it is replaced. Trusted for it: the participant's own device.
Source: Kairouz, Liu, Steinke, "The Distributed Discrete Gaussian Mechanism for Federated Learning with Secure
Aggregation", ICML 2021, section 4, definition of conditionally randomized rounding and proposition on its norm.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ridotto.core.fixedpoint import CHUNK_ELEMENTS, DITHER_BITS, MAGIC_REACH, IntVector, Rounder, entry_peak
from ridotto.errors import DataError, PlanError
from ridotto.privacy.clip import row_norms
from ridotto.privacy.noise.loops import LOOPS
from ridotto.privacy.noise.words import Words

SLACK = 1.0
"""sqrt(2 ln(1 / beta)) for beta = e^(-1/2), the value of the paper's experiments."""

MAX_TRIES = 64
"""All fail with probability 0.607^64 = 1e-14 at most, whatever the vector."""

MAX_NORM = 2.0**40
"""In units. Up to here D2 is longer than the bound by more than `CERTAIN` takes away."""

CERTAIN = 1 - 2.0**-44
"""A sum of squares in float64, added in pairs, is accurate to 2^-46: at most `CERTAIN` times the limit is within it."""

EXACT = 2.0**61
"""Where D2^2 is smaller, squares are added as integers. No try overflows: it is at most sqrt(d) units longer than c, so
below 2^62, and no entry times 2^32 is beyond an int64."""

DRAWN_ENTRIES = 1 << 18
"""Entries that share one call for dither: 1 MiB of it, what one call of the cipher makes at its best."""


def rounded_norm_bound(norm: float, length: int) -> float:
    """Return D2, the l2 norm in units that a conditionally rounded vector never exceeds.

    norm: c >= 0, the bound before rounding, in units. length: d >= 1.
    Raises PlanError if a number is out of range.
    """
    if not (math.isfinite(norm) and norm >= 0) or length < 1:
        raise PlanError(f"no norm is bounded for {length} entries and a bound of {norm} units")
    root = math.sqrt(length)
    return math.sqrt(min(norm**2 + length / 4 + SLACK * (norm + root / 2), (norm + root) ** 2))


def rounded_within(
    vector: NDArray[np.floating], scale: float, bound: float, words: Words, lane: str = "rounding"
) -> NDArray[np.int64]:
    """Return scale * vector, rounded up or down at random, with an l2 norm of at most D2 of scale * bound.

    vector: float32 or float64, shape (length,), l2 norm at most `bound`. scale: > 0, units per 1; scale * bound is at
    most 2^40. words: 32 bits of the lane for every entry and try. Returns int64, shape (length,).
    Takes at most 64 tries. Should all fail, entries are rounded towards zero, which is always short enough but not
    unbiased: that happens with a probability below 1e-14.
    Raises PlanError if scale or bound is out of range, DataError if the vector is longer than its bound or not finite.
    """
    integers = np.empty(vector.shape, np.int64)
    round_within(vector, scale, bound, words, integers.view(np.uint64), lane)
    return integers


def round_within(
    vector: NDArray[np.floating],
    scale: float,
    bound: float,
    words: Words,
    out: IntVector,
    lane: str = "rounding",
    *,
    factor: float = 1.0,
    norm: float | None = None,
) -> None:
    """Do what `rounded_within` does, for factor * vector, and write the integers mod 2^w into `out`.

    factor: > 0, multiplies every entry first, in float64: clipping costs no pass of its own (`clip_factor`). bound:
    of the l2 norm after that; scale * bound is at most 2^(w - 1) - 1 as well, w the container's width. norm: of the
    vector before, from `row_norms`, which is believed; None looks for it. out: uint8 to uint64, shape (length,).
    Raises what `rounded_within` raises, and DataError if `out` does not fit.
    """
    _check(vector, scale, bound, out)
    if norm is None:
        norm = _norm(vector, 2 * bound / factor)
    reach, highest = norm * factor * scale, rounded_norm_bound(scale * bound, len(vector)) ** 2 * CERTAIN
    # NaN is not at most anything.
    if not (reach <= _room(out) and reach**2 <= highest):
        raise DataError(f"the vector is not finite, or its norm is above its bound of {bound}; clip it first")
    rounding = _Rounding(vector, factor * scale, reach, out, exact=highest < EXACT)
    for _ in range(MAX_TRIES):
        if rounding.draw(words, lane) <= highest:
            return
    rounding.cut()


def _check(vector: NDArray[np.floating], scale: float, bound: float, out: IntVector) -> None:
    if not (scale > 0 and bound > 0 and scale * bound <= MAX_NORM):
        raise PlanError(f"scale and bound are positive, with a product of at most 2^40, not {scale} and {bound}")
    if vector.ndim != 1 or not len(vector):
        raise DataError(f"a vector of shape {vector.shape} can't be rounded, it needs one dimension and an entry")
    if out.shape != vector.shape or out.dtype.kind != "u":
        raise DataError(f"integers of {vector.shape} go into an unsigned vector, not {out.dtype} of shape {out.shape}")
    if scale * bound > _room(out):
        raise PlanError(f"{out.dtype} has no room for a bound of {scale * bound:.4g} units")


def _room(out: IntVector) -> int:
    """Return the largest |v| whose integer, one further from 0 at most, keeps its square when it is read back."""
    return (1 << (8 * out.itemsize - 1)) - 1


def _norm(vector: NDArray[np.floating], most: float) -> float:
    """Return the l2 norm, infinite if an |entry| is above `most` or no number: so that no square overflows."""
    if not entry_peak(vector) <= most:
        return math.inf
    return row_norms(vector[None], Rounder(0, min(len(vector), CHUNK_ELEMENTS)))[0]


class _Rounding:
    """Draw the integers of scale * vector, again and again if need be.

    reach: the norm of that, so that no |v| is larger. exact: D2^2 is below `EXACT`.
    """

    def __init__(self, vector: NDArray[np.floating], scale: float, reach: float, out: IntVector, exact: bool) -> None:
        self._vector, self._scale, self._reach, self._out = vector, scale, reach, out
        self._signed, self._exact = out.view(f"int{8 * out.itemsize}"), exact
        plain = vector.dtype in (np.float32, np.float64) and vector.flags.c_contiguous and out.flags.c_contiguous
        kernels = LOOPS.kernels(len(vector)) if exact and plain else None
        self._loop = None if kernels is None else kernels.rounding(vector.dtype, self._signed.dtype)
        if self._loop is None:
            self._rounder = Rounder(math.ceil(reach), min(len(vector), CHUNK_ELEMENTS))

    def draw(self, words: Words, lane: str) -> int:
        """Write the integers of one try; return the sum of their squares."""
        squares = 0
        for begin in range(0, len(self._vector), DRAWN_ENTRIES):
            block = slice(begin, begin + DRAWN_ENTRIES)
            values, dither = self._vector[block], words.medium(lane, len(self._vector[block]))
            if self._loop is None:
                squares += self._chunks(values, dither, self._out[block], self._signed[block])
            else:
                squares += self._loop(values, math.ldexp(self._scale, DITHER_BITS), dither, self._signed[block])
        return squares

    def cut(self) -> None:
        """Write every entry rounded towards zero."""
        for begin in range(0, len(self._vector), CHUNK_ELEMENTS):
            part = slice(begin, begin + CHUNK_ELEMENTS)
            whole = np.trunc(np.multiply(self._vector[part], self._scale, dtype=np.float64)).astype(np.int64)
            np.copyto(self._out[part], whole, casting="unsafe")

    def _chunks(
        self,
        values: NDArray[np.floating],
        dither: NDArray[np.uint32],
        out: IntVector,
        signed: NDArray[np.signedinteger],
    ) -> int:
        """Do the same in NumPy, chunk by chunk."""
        squares = 0
        for begin in range(0, len(values), CHUNK_ELEMENTS):
            part = slice(begin, begin + CHUNK_ELEMENTS)
            reach = self._reach
            if reach > MAGIC_REACH:
                # Below it rounding is cheaper, by more than it takes to look for the largest entry.
                reach = entry_peak(values[part]) * self._scale
            real = self._rounder.widen(values[None, part])
            # Nothing is cut off: no |v| is beyond the reach.
            self._rounder.scale(real, [self._scale], [0.0])
            self._rounder.add(real, dither[None, part], reach, out[part], begin=True)
            squares += self._squares(signed[part])
        return squares

    def _squares(self, integers: NDArray[np.signedinteger]) -> int:
        if self._exact:
            wide = integers.astype(np.int64, copy=False)
            return int(np.dot(wide, wide))
        # Up to 32,768 of them are added in pairs; their sums then as integers, without another error.
        return int(np.square(integers, dtype=np.float64).sum())
