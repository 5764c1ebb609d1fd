"""The compiled loop of mask derivation: it needs numba, which is an extra (`speed`).

It has a NumPy twin in `derive` that gives the same bits and needs nothing; the tests compare them.
"""

from __future__ import annotations

from ridotto.core.compile import compiled


@compiled("int64(uint64[::1],uint64,uint64,uint64[::1],int64)")
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
