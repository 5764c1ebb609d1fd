"""Compiled inner loops of encoding: they need numba, which is an extra (`speed`).

Each has a NumPy twin that gives the same bits and needs nothing; the tests compare them. Loading takes some tenths of a
second (the first time on a machine, some seconds, since it compiles), so whoever uses these waits until that will pay.
"""

from __future__ import annotations

import numpy as np

from ridotto.core.compile import compiled

_ROUND = "void(float32[:,::1],float64[::1],uint32[:,::1],uint32[::1])"
_ROUND_SATURATED = "void(float32[:,::1],float64[::1],float64,uint32[:,::1],uint32[::1],int64[::1])"


@compiled(_ROUND)
def add_rounded(values, scales, dither, total):  # type: ignore[no-untyped-def]
    """Add floor((nearest_integer(value * scale) + dither) / 2^32) of every entry to `total`, mod 2^32.

    values: float32, shape (rows, entries). scales: float64, one a row, times 2^32; no |product| is beyond 2^62. dither:
    uint32, a row a row, at least as long; contiguous, because a loop over slices takes three times as long. total:
    uint32, shape (entries,), changed in place. See `core.fixedpoint`.
    """
    for row in range(values.shape[0]):
        scale = scales[row]
        for i in range(values.shape[1]):
            fixed = np.int64(np.rint(np.float64(values[row, i]) * scale)) + np.int64(dither[row, i])
            total[i] += np.uint32(fixed >> 32)


@compiled(_ROUND_SATURATED)
def add_saturated(values, scales, limit, dither, total, outside):  # type: ignore[no-untyped-def]
    """Do the same with products cut off at `limit`, in magnitude; write into `outside` how many were, by row."""
    for row in range(values.shape[0]):
        scale, count = scales[row], 0
        for i in range(values.shape[1]):
            product = np.float64(values[row, i]) * scale
            if product > limit:
                product = limit
                count += 1
            elif product < -limit:
                product = -limit
                count += 1
            fixed = np.int64(np.rint(product)) + np.int64(dither[row, i])
            total[i] += np.uint32(fixed >> 32)
        outside[row] = count
