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
from ridotto.privacy.clip import clip_factor, row_norms
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
    _check(vector, scale, bound)
    # The largest entry first, so that no square overflows. NaN is not at most anything, either.
    peak, norm = entry_peak(vector), math.inf
    if peak <= 2 * bound:
        norm = row_norms(vector[None], Rounder(0, min(len(vector), CHUNK_ELEMENTS)))[0]
    highest = _highest(len(vector), scale, bound)
    if not (norm * scale) ** 2 <= highest:
        raise DataError(f"the vector is not finite, or its norm is above its bound of {bound}; clip it first")
    integers = np.empty(len(vector), np.int64)
    _round_within(vector, norm, scale, highest, words, lane, integers.view(np.uint64))
    return integers


def clipped_within(
    vector: NDArray[np.float32],
    norm: float,
    bound: float,
    scale: float,
    words: Words,
    out: IntVector,
    lane: str = "rounding",
) -> None:
    """Clip to `bound`, multiply by scale and round at random, with an l2 norm of at most D2 of scale * bound.

    The same as `rounded_within` of the clipped vector, up to the last digit of its entries, in one pass. vector:
    float32, shape (length,). norm: of the vector, from `row_norms`; it is believed, and nothing is looked for again.
    bound: > 0, in the vector's unit. scale: > 0, units per 1; scale * bound is at most 2^40 and 2^(w - 1) - 1, w the
    container's width. words: 32 bits of the lane for every entry and try. out: takes the integers mod 2^w, shape
    (length,), uint8 to uint64.
    Raises PlanError if scale or bound is out of range, DataError if the norm is not finite or shapes do not fit.
    """
    _check(vector, scale, bound)
    if out.shape != vector.shape or out.dtype.kind != "u":
        raise DataError(f"integers of {vector.shape} go into an unsigned vector, not {out.dtype} of shape {out.shape}")
    if scale * bound > (1 << (8 * out.itemsize - 1)) - 1:
        raise PlanError(f"{out.dtype} has no room for a bound of {scale * bound:.4g} units")
    if not math.isfinite(norm):
        raise DataError(f"the norm of the vector is {norm}: it has entries that are not finite")
    highest = _highest(len(vector), scale, bound)
    _round_within(vector, norm, scale * clip_factor(norm, bound), highest, words, lane, out)


def _check(vector: NDArray[np.floating], scale: float, bound: float) -> None:
    if not (scale > 0 and bound > 0 and scale * bound <= MAX_NORM):
        raise PlanError(f"scale and bound are positive, with a product of at most 2^40, not {scale} and {bound}")
    if vector.ndim != 1 or not len(vector):
        raise DataError(f"a vector of shape {vector.shape} can't be rounded, it needs one dimension and an entry")


def _highest(length: int, scale: float, bound: float) -> float:
    """Return the largest sum of squares that is certainly at most D2^2."""
    return rounded_norm_bound(scale * bound, length) ** 2 * CERTAIN


def _round_within(
    vector: NDArray[np.floating],
    norm: float,
    scale: float,
    highest: float,
    words: Words,
    lane: str,
    out: IntVector,
) -> None:
    """Write integers of scale * vector into `out` whose squares sum to at most `highest`."""
    rounded = _Rounding(vector, norm, scale, out, exact=highest < EXACT)
    for _ in range(MAX_TRIES):
        if rounded.draw(words, lane) <= highest:
            return
    for begin in range(0, len(vector), CHUNK_ELEMENTS):
        part = slice(begin, begin + CHUNK_ELEMENTS)
        whole = np.trunc(np.multiply(vector[part], scale, dtype=np.float64)).astype(np.int64)
        np.copyto(out[part], whole, casting="unsafe")


class _Rounding:
    """Draw the integers of one vector, again and again if need be. exact: D2^2 is below `EXACT`."""

    def __init__(self, vector: NDArray[np.floating], norm: float, scale: float, out: IntVector, exact: bool) -> None:
        self._vector, self._norm, self._scale, self._out = vector, norm, scale, out
        self._signed, self._exact = out.view(f"int{8 * out.itemsize}"), exact
        plain = vector.dtype in (np.float32, np.float64) and vector.flags.c_contiguous and out.flags.c_contiguous
        kernels = LOOPS.kernels(len(vector)) if exact and plain else None
        self._loop = None if kernels is None else kernels.rounding(vector.dtype, self._signed.dtype)
        if self._loop is None:
            # No entry is beyond the norm, so none is cut off.
            self._rounder = Rounder(math.ceil(norm * scale), min(len(vector), CHUNK_ELEMENTS))

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
            reach = self._norm * self._scale
            if reach > MAGIC_REACH:
                # Below it rounding is cheaper, by more than it takes to look for the largest entry.
                reach = entry_peak(values[part]) * self._scale
            real = self._rounder.widen(values[None, part])
            self._rounder.scale(real, [self._scale], [self._norm])
            self._rounder.add(real, dither[None, part], reach, out[part], begin=True)
            squares += self._squares(signed[part])
        return squares

    def _squares(self, integers: NDArray[np.signedinteger]) -> int:
        if self._exact:
            wide = integers.astype(np.int64, copy=False)
            return int(np.dot(wide, wide))
        # Up to 32,768 of them are added in pairs; their sums then as integers, without another error.
        return int(np.square(integers, dtype=np.float64).sum())
