"""Compiled inner loops of rounding and of tables: they need numba, which is an extra (`speed`).

Each has a NumPy twin that gives the same bits and needs nothing; the tests compare them. A loop is compiled for the
types that it is asked for, some tenths of a second each, and kept for the next process where a folder can be written.
`loops.py` decides when that pays. Totals are signed here: their bits are those of the ring, and they wrap as it does.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from ridotto.core.compile import compiled, from_dtype, types

UNDECIDED = np.iinfo(np.int16).min
"""Stands in a guide for a cell that needs more bits; see `table.py`."""


@cache
def rounding(values: np.dtype[Any], total: np.dtype[Any]) -> Callable[..., int]:
    """Return `_round` for float32 or float64 values and signed integers."""
    # Values may be read only, and may be writable as well.
    source = types.Array(from_dtype(values), 1, "C", readonly=True)
    dither = types.Array(types.uint32, 1, "C", readonly=True)
    return compiled(types.int64(source, types.float64, dither, _vector(total)))(_round)


@cache
def lookup(total: np.dtype[Any]) -> tuple[Callable[..., int], Callable[..., None]]:
    """Return `_add_decided` and `_add_undecided` for signed integers."""
    coarse, where, target = _vector("uint16"), _vector("int32"), _vector(total)
    decided = types.int64(coarse, _vector("int16"), types.int64, target, where)
    steps, begin, fine = _vector("uint64"), _vector("int32"), _vector("uint64")
    undecided = types.void(coarse, where, fine, steps, begin, types.int64, types.int64, target)
    return compiled(decided)(_add_decided), compiled(undecided)(_add_undecided)


def _vector(dtype: Any) -> Any:
    return types.Array(from_dtype(np.dtype(dtype)), 1, "C")


def _round(values, scale, dither, total):  # type: ignore[no-untyped-def]
    """Write floor((nearest_integer(value * scale) + dither) / 2^32) of every entry; return the sum of their squares.

    values, dither, total: shape (entries,). scale: times 2^32; no |product| is beyond 2^60. The sum must fit an int64.
    """
    squares = np.int64(0)
    for i in range(values.size):
        fixed = np.int64(np.rint(np.float64(values[i]) * scale)) + np.int64(dither[i])
        rounded = fixed >> np.int64(32)
        squares += rounded * rounded
        total[i] = rounded
    return squares


def _add_decided(coarse, guide, factor, total, where):  # type: ignore[no-untyped-def]
    """Add factor * guide[cell] where the guide knows; write the places of the others into `where`, return how many.

    coarse, total, where: shape (count,). guide: shape (2^16,).
    """
    count = 0
    for i in range(coarse.size):
        value = guide[coarse[i]]
        if value == UNDECIDED:
            where[count] = i
            count += 1
        else:
            total[i] += factor * np.int64(value)
    return count


def _add_undecided(coarse, where, fine, steps, begin, first, factor, total):  # type: ignore[no-untyped-def]
    """Count the steps at or below u for each of these places; add factor times the values they lead to.

    where, fine: shape (places,). steps, begin: of the table.
    """
    for place in range(where.size):
        i = where[place]
        cell = np.int64(coarse[i])
        low, high = np.int64(begin[cell]), np.int64(begin[cell + 1])
        while low < high:
            middle = (low + high) >> np.int64(1)
            if steps[middle] <= fine[place]:
                low = middle + 1
            else:
                high = middle
        total[i] += factor * (low + first)
