"""Draw integers from a distribution of finite support by inversion of its cumulative table, exactly.

A sample is the least k with u < F(k), where u is uniform in 0..2^80 - 1 and F(k) = floor(2^80 * P(X <= k)). Of u, only
the upper 16 bits are drawn for everybody: they say in which of 2^16 cells u lies, and a guide table says which k that
is. Only where a step of F falls into the cell are the other 64 bits drawn and compared. The result is the same as if
all 80 bits had been drawn and searched for; that is what the tests hold it to.

Distance. `F` is exact up to its last bit, so no probability is off by more than 2^-80, and the statistical (total
variation) distance to the distribution of the weights is at most (number of values) * 2^-81.

Source: inversion with a guide table: Chen, Asau, "On Generating Random Variates from an Empirical Distribution", AIIE
Transactions 6, 1974; Devroye, "Non-Uniform Random Variate Generation", 1986, III.2.4.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from ridotto.core.fixedpoint import IntVector
from ridotto.errors import PlanError
from ridotto.privacy.noise.loops import LOOPS
from ridotto.privacy.noise.words import Words

FINE_BITS = 64
GUIDE_BITS = 16
TABLE_BITS = GUIDE_BITS + FINE_BITS

UNDECIDED = np.iinfo(np.int16).min
"""Stands in the guide for a cell that needs the other 64 bits."""

LARGEST = (1 << 15) - 1
"""The largest |value|: all fit an int16 beside `UNDECIDED`."""

CHUNK_SAMPLES = 1 << 15
"""Samples per step in NumPy: measured best of 2^13 to 2^17. Scratch memory stays in the cache."""

PIECE_SAMPLES = 1 << 19
"""Samples that share one call for words: 1 MiB of them, what one call of the cipher makes at its best. Even, so that
results don't depend on it; memory stays bounded."""


def pieces(total: IntVector) -> Iterator[IntVector]:
    """Cut a vector into views of `PIECE_SAMPLES` entries, the last one shorter."""
    return (total[begin : begin + PIECE_SAMPLES] for begin in range(0, len(total), PIECE_SAMPLES))


class InversionTable:
    """Hold the cumulative table of weights w(first), w(first + 1), ..., and draw from it.

    weights: integers >= 0, not all 0, at most 2^15 - 1 of them; probabilities are proportional to them. How exact they
    are is the caller's claim. first: the value that the first weight belongs to. All values fit an int16.
    Raises PlanError if the values do not fit.
    """

    def __init__(self, weights: list[int], first: int) -> None:
        last = first + len(weights) - 1
        if not -LARGEST <= first <= last <= LARGEST:
            raise PlanError(f"a table holds values of -{LARGEST} to {LARGEST}, not {first} to {last}")
        total = sum(weights)
        self.cumulative = [(partial << TABLE_BITS) // total for partial in accumulate(weights)]
        self.first = first
        self.distance = len(weights) * 2.0 ** -(TABLE_BITS + 1)
        # The last step is the end of the range: nothing lies beyond it.
        steps = self.cumulative[:-1]
        cells = np.array([step >> FINE_BITS for step in steps], np.int64)
        self._fine = np.array([step & ((1 << FINE_BITS) - 1) for step in steps], np.uint64)
        # Steps of cell c are begin[c] to begin[c + 1]; with all earlier ones they are below every u of later cells.
        self._begin = np.searchsorted(cells, np.arange((1 << GUIDE_BITS) + 1)).astype(np.int32)
        decided = self._begin[:-1] == self._begin[1:]
        self._guide = np.where(decided, self._begin[:-1] + first, UNDECIDED).astype(np.int16)

    def sample(self, words: Words, count: int, lane: str = "table") -> NDArray[np.int64]:
        """Return `count` independent samples, int64, shape (count,). Takes words as `add_to` does."""
        samples = np.zeros(count, np.int64)
        for piece in pieces(samples.view(np.uint64)):
            self.add_to(piece, words, lane)
        return samples

    def add_to(self, total: IntVector, words: Words, lane: str = "table", factor: int = 1) -> None:
        """Add `factor` times an independent sample to every entry, mod 2^w, w its container's width.

        total: uint8 to uint64, shape (count,), changed in place. factor: |factor| times a value fits an int64.
        Takes 16 bits of the lane `lane` for each and 64 of the lane `lane + "/fine"` for the few that need them, both
        in order. So cutting a call into two changes nothing, if the first of them takes an even number.
        """
        kernels = LOOPS.kernels(len(total)) if total.flags.c_contiguous else None
        coarse = words.narrow(lane, len(total))
        if kernels is not None:
            self._add_compiled(kernels, total, coarse, words, lane, factor)
            return
        where = self._add_decided(total, coarse, factor)
        if not where.size:
            return  # and no lane is opened, which takes longer than some thousand samples
        values = self._search(coarse[where], words.wide(lane + "/fine", where.size))
        total[where] += (values * factor).astype(total.dtype)

    def _add_compiled(
        self, kernels: ModuleType, total: IntVector, coarse: NDArray[np.uint16], words: Words, lane: str, factor: int
    ) -> None:
        """Do in compiled loops what `_add_decided` and `_search` do."""
        signed = total.view(f"int{8 * total.itemsize}")
        add_decided, add_undecided = kernels.lookup(signed.dtype)
        places = np.empty(len(total), np.int32)
        where = places[: add_decided(coarse, self._guide, factor, signed, places)]
        if not where.size:
            return
        fine = words.wide(lane + "/fine", where.size)
        add_undecided(coarse, where, fine, self._fine, self._begin, self.first, factor, signed)

    def _add_decided(self, total: IntVector, coarse: NDArray[np.uint16], factor: int) -> NDArray[np.int64]:
        """Add factor times what the guide says where it says something; return the places of all others."""
        undecided = []
        # Reduced mod 2^w first: the lower bits of a product depend on the lower bits of its factors only.
        step = np.array(factor, np.int64).astype(total.dtype)
        for begin in range(0, len(total), CHUNK_SAMPLES):
            part = slice(begin, begin + CHUNK_SAMPLES)
            values = self._guide.take(coarse[part])
            places = np.flatnonzero(values == UNDECIDED)
            values[places] = 0
            undecided.append(places + begin)
            narrowed = values.astype(total.dtype)
            if factor != 1:
                narrowed *= step
            total[part] += narrowed
        return np.concatenate([np.zeros(0, np.int64), *undecided])

    def _search(self, coarse: NDArray[np.uint16], fine: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Count the steps at or below u for each u = coarse * 2^64 + fine; return the values they lead to."""
        low, high = self._begin.take(coarse), self._begin[1:].take(coarse)
        # Every cell has a step, and most have no other: only u of the tails are left after this.
        passed = self._fine.take(low) <= fine
        low += passed
        active = np.flatnonzero(passed & (low < high))
        while active.size:
            below, above = low[active], high[active]
            middle = (below + above) >> 1
            passed = self._fine[middle] <= fine[active]
            low[active] = below = np.where(passed, middle + 1, below)
            high[active] = above = np.where(passed, above, middle)
            active = active[below < above]
        return low.astype(np.int64) + self.first
