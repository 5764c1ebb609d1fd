"""The compiled loop of mask derivation: one of the modules that import numba, which is an extra (`speed`).

It has a NumPy twin in `derive` that gives the same bits and needs nothing; the tests compare them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ridotto.errors import MissingExtraError

try:
    from numba import njit
except ModuleNotFoundError as error:
    raise MissingExtraError("numba", "speed") from error


def _compiled(signature: str) -> Callable[[Any], Any]:
    """Compile for one signature, and keep the machine code for the next process where a folder can be written."""

    def compile_now(function: Any) -> Any:
        try:
            return njit(signature, cache=True)(function)
        except RuntimeError:  # numba found no place for its cache
            return njit(signature)(function)

    return compile_now


@_compiled("int64(uint64[::1],uint64,uint64,uint64[::1],int64)")
def add_below(draws, low_bits, order, total, place):  # type: ignore[no-untyped-def]
    """Add the draws below `order` to `total` from `place` on, up to its end, and return the next place.

    draws: uint64, overwritten. low_bits: mask of the bits that belong to a draw. total: uint64, not folded. Every draw
    is written to the next free place of `draws`, and the place moves on only if it is kept: no branch that the
    processor could guess wrongly. Then those that were kept are added, many at a time.
    """
    kept = 0
    for i in range(draws.shape[0]):
        draw = draws[i] & low_bits
        draws[kept] = draw
        kept += draw < order
    count = min(kept, total.shape[0] - place)
    for i in range(count):
        total[place + i] += draws[i]
    return place + count
