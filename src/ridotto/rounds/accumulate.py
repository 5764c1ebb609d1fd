"""Encode many updates straight into their sum: what a simulation does instead of encoding, masking and unmasking each.

    Pipeline.encode     one update          -> one vector of integers mod 2^b, shape (length,)
    Accumulator.add     a block of updates  -> added to one running sum, shape (length,)

The running sum has the same bits as the sum of what `Pipeline.encode` makes of every update with `RankedDice`: the same
norms, factors, rounding and lanes. No vector of one client's integers is ever made. Clients with few parameters are
encoded several at a time, because a NumPy call costs as much as a thousand entries; clients with many, chunk by chunk.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib import import_module
from time import perf_counter
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ridotto.core.fixedpoint import DITHER_BITS, NARROW_LIMIT, IntVector, Rounder, container, entry_peak
from ridotto.core.vector import Layout, require_finite
from ridotto.errors import DataError, MissingExtraError
from ridotto.learn.trainer import BatchDataError
from ridotto.privacy.clip import clip_factor, row_norms
from ridotto.rounds.dice import stride
from ridotto.rounds.metrics import METRIC_STEPS, missing_metric
from ridotto.rounds.pipeline import NO_EXAMPLES, Pipeline

GROUP_ELEMENTS = 1 << 16
"""Entries per step. The scratch memory (512 KiB) stays in a core's L2 cache; measured best of 2^13 to 2^17."""


KERNELS_PAY_S = 1.0
"""Seconds of encoding after which compiled loops are loaded, where numba is there: they are ten times as fast and take
less than this to load, so a short simulation does without and a long one loses nothing that it would notice."""


class Accumulator:
    """Add encoded updates up, in scratch memory of a fixed size.

    pipeline: says what an update becomes; one that is `plain`. total: the sum to go on with, dtype `container(bits)`,
    shape (length,), C-contiguous; it is changed in place. Zeros if None. layout: names the parameter in errors.
    The attribute `total` wraps mod 2^w, w its container's width. Reduction mod 2^b is left to whoever reads the sum:
    `Pipeline.decode` does it, and totals of several accumulators may be added before.
    """

    def __init__(self, pipeline: Pipeline, total: IntVector | None = None, layout: Layout | None = None) -> None:
        self.pipeline = pipeline
        expected = container(pipeline.plan.bits)
        self.total: IntVector = np.zeros(pipeline.length, expected) if total is None else total
        if self.total.dtype != expected or self.total.shape != (pipeline.length,):
            found = f"{self.total.dtype} of shape {self.total.shape}"
            raise DataError(f"the running sum is {expected} of shape ({pipeline.length},), not {found}")
        self._layout = layout
        self._fixed = pipeline.encoding.fixed
        self._group = max(1, GROUP_ELEMENTS // max(1, pipeline.parameters))
        # Looking for the norm has then left all entries in the scratch memory.
        self._widened = pipeline.plan.clip is not None and pipeline.parameters <= GROUP_ELEMENTS
        self._rounder = Rounder(self._fixed.limit, min(GROUP_ELEMENTS, self._group * pipeline.parameters))
        self._spent_s = 0.0
        self._kernels: ModuleType | None = None

    def load_kernels(self) -> bool:
        """Take the compiled loops from now on, which give the same bits; tell whether there are any for this plan."""
        if self.total.itemsize == 4 and self._fixed.limit < NARROW_LIMIT:
            try:
                self._kernels = import_module("ridotto.core.kernels")
            except MissingExtraError:
                return False
        return self._kernels is not None

    def add(
        self,
        updates: NDArray[np.float32],
        examples: NDArray[np.int64],
        metrics: Mapping[str, NDArray[np.float64]],
        words: NDArray[np.uint32],
    ) -> None:
        """Encode a block of updates into `total`.

        updates: float32, shape (clients, d). examples: int64, shape (clients,). metrics: name -> float64, shape
        (clients,); those the plan does not name are left out. words: the clients' dice, uint32, shape
        (clients, stride(d)), as `DitherStream.words` gives them for ranks in a row.
        Raises DataError if a shape or dtype does not fit, and BatchDataError with the client's place where
        `Pipeline.encode` raises DataError. After an error the total is of no use.
        """
        self._check_shapes(updates, examples, metrics, words)
        weights = self._weights(examples)
        shortened = np.zeros(len(updates), np.int64)
        steps = [self._steps(name, metrics) for name in sorted(self.pipeline.plan.metrics)]
        saturated = np.zeros(len(updates), np.int64)
        started = perf_counter()
        for begin in range(0, len(updates), self._group):
            rows = slice(begin, begin + self._group)
            saturated[rows], shortened[rows] = self._add_rows(updates[rows], weights[rows], words[rows], begin)
        clipped = [shortened] if self.pipeline.counts_clipped else []
        self._add_lanes([weights, saturated, *clipped, *(step * weights for step in steps)])
        if self._spent_s <= KERNELS_PAY_S < self._spent_s + perf_counter() - started:
            self.load_kernels()
        self._spent_s += perf_counter() - started

    def _add_rows(
        self, updates: NDArray[np.float32], weights: NDArray[np.int64], words: NDArray[np.uint32], place: int
    ) -> tuple[list[int], list[bool]]:
        """Add the entries of a few clients. place: of the first of them.

        Returns how many entries of each were cut off, and whether its update was too long.
        """
        factors, sizes = self._sizes(updates, place)
        shortened = [factor != 1.0 for factor in factors]
        scales = [self._fixed.scale(weight, factor) for weight, factor in zip(weights.tolist(), factors, strict=True)]
        if self._kernels is not None:
            return self._add_compiled(self._kernels, updates, np.array(scales), np.array(sizes), words), shortened
        # Where the norm is small enough, no entry needs to be looked at.
        peaks = [
            size if size * scale <= self._rounder.easy_reach else entry_peak(update)
            for update, size, scale in zip(updates, sizes, scales, strict=True)
        ]
        saturated = [0] * len(updates)
        reach = max(scale * peak for scale, peak in zip(scales, peaks, strict=True))
        for begin in range(0, self.pipeline.parameters, GROUP_ELEMENTS):
            part = slice(begin, begin + GROUP_ELEMENTS)
            values = updates[:, part]
            real = self._rounder.widened(values.shape) if self._widened else self._rounder.widen(values)
            outside = self._rounder.scale(real, scales, peaks)
            saturated = [one + more for one, more in zip(saturated, outside, strict=True)]
            dither = words[:, part][:, : values.shape[1]]
            self._rounder.add(real, dither, reach, self.total[: self.pipeline.parameters][part])
        return saturated, shortened

    def _add_compiled(
        self,
        kernels: ModuleType,
        updates: NDArray[np.float32],
        scales: NDArray[np.float64],
        sizes: NDArray[np.float64],
        words: NDArray[np.uint32],
    ) -> list[int]:
        outside = np.zeros(len(updates), np.int64)
        rows, dither = np.ascontiguousarray(updates), np.ascontiguousarray(words)
        entries = self.total[: self.pipeline.parameters]
        shifted = np.ldexp(scales, DITHER_BITS)
        if np.all(scales * sizes <= self._fixed.limit):
            kernels.add_rounded(rows, shifted, dither, entries)
        else:
            limit = math.ldexp(self._fixed.limit, DITHER_BITS)
            kernels.add_saturated(rows, shifted, limit, dither, entries, outside)
        found: list[int] = outside.tolist()
        return found

    def _sizes(self, updates: NDArray[np.float32], place: int) -> tuple[list[float], list[float]]:
        """Return each client's clip factor, and a number that none of its entries is beyond.

        Without a clip the norm need not be exact, and is found in a fifth of the time.
        """
        bound = self.pipeline.plan.clip_norm
        if bound is None:
            sizes = _rough_norms(updates)
            self._check_finite(updates, sizes, place)
            return [1.0] * len(updates), sizes
        norms = row_norms(updates, self._rounder)
        self._check_finite(updates, norms, place)
        return [clip_factor(norm, bound) for norm in norms], norms

    def _add_lanes(self, values: list[NDArray[np.int64]]) -> None:
        """Add what `Lanes.write` makes of every client's values, in the same order."""
        lanes = self.pipeline.lanes
        elements, limit = [len(values[0])] + [0] * lanes.zeros, np.uint64((1 << lanes.limb_bits) - 1)
        for value, limbs in zip(values, lanes.limbs, strict=True):
            unsigned = value.view(np.uint64)
            # A sum of uint64 wraps mod 2^64, a multiple of every ring.
            elements += [int(((unsigned >> np.uint64(lanes.limb_bits * i)) & limit).sum()) for i in range(limbs)]
        tail = self.total[self.pipeline.parameters :]
        np.add(tail, np.array(elements, np.uint64).astype(tail.dtype), out=tail)

    def _check_shapes(
        self,
        updates: NDArray[np.float32],
        examples: NDArray[np.int64],
        metrics: Mapping[str, NDArray[np.float64]],
        words: NDArray[np.uint32],
    ) -> None:
        clients, parameters = len(updates), self.pipeline.parameters
        expected: dict[str, tuple[NDArray[Any], type, tuple[int, ...]]] = {
            "updates": (updates, np.float32, (clients, parameters)),
            "examples": (examples, np.int64, (clients,)),
            "words": (words, np.uint32, (clients, stride(parameters))),
        }
        for name in self.pipeline.plan.metrics.keys() & metrics.keys():
            expected[f"metric {name!r}"] = (metrics[name], np.float64, (clients,))
        for what, (array, dtype, shape) in expected.items():
            if array.dtype != dtype or array.shape != shape:
                found = f"{array.dtype} of shape {array.shape}"
                raise DataError(f"a block's {what}: {found}, expected {dtype.__name__} of shape {shape}")

    def _weights(self, examples: NDArray[np.int64]) -> NDArray[np.int64]:
        empty = np.flatnonzero(examples < 1)
        if empty.size:
            raise BatchDataError(NO_EXAMPLES, int(empty[0]))
        return np.minimum(examples, self.pipeline.plan.max_examples)

    def _steps(self, name: str, metrics: Mapping[str, NDArray[np.float64]]) -> NDArray[np.int64]:
        """Return a metric of every client in steps: `Pipeline.steps` for a whole block."""
        values, bound = metrics.get(name), self.pipeline.plan.metrics[name]
        if values is None:
            raise BatchDataError(missing_metric(name, metrics), 0)
        wrong = np.flatnonzero(~np.isfinite(values))
        if wrong.size:
            raise BatchDataError(f"metric {name!r} is {values[wrong[0]]}", int(wrong[0]))
        steps = (np.clip(values, -bound, bound) + bound) / (2 * bound) * METRIC_STEPS
        return np.rint(steps).astype(np.int64)

    def _check_finite(self, updates: NDArray[np.float32], sizes: list[float], place: int) -> None:
        for row, size in enumerate(sizes):
            if not math.isfinite(size):
                try:
                    require_finite(updates[row], self._layout)
                except DataError as error:
                    raise BatchDataError(str(error), place + row) from error


LOST_IN_SQUARES = 2.0**-60
"""Entries below 2^-63 vanish when they are squared in float32; all of them together are below this."""

MANY_SQUARES = 1 << 23
"""Squares whose sum in float32 is surely within a factor of two: half of 1 / (rounding of float32)."""


def _rough_norms(rows: NDArray[np.float32]) -> list[float]:
    """Return for every row a number that no |entry| is beyond; it is not finite exactly if an entry is not.

    Rows whose squares overflow float32, and very long ones, are searched for their largest entry.
    """
    if rows.shape[1] <= MANY_SQUARES:
        with np.errstate(over="ignore", invalid="ignore"):
            norms = np.sqrt(2 * np.vecdot(rows, rows).astype(np.float64)) + LOST_IN_SQUARES
        if np.isfinite(norms).all():
            sizes: list[float] = norms.tolist()
            return sizes
    return np.maximum(rows.max(axis=1, initial=0.0), -rows.min(axis=1, initial=0.0)).tolist()  # type: ignore[no-any-return]
