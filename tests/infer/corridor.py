"""How the tables of `ridotto.infer.approximations` were found: the longest segments inside a corridor.

A function and an error give a corridor f - e <= y <= f + e. From left to right, each segment is made as long as a line
from the last breakpoint, with a slope that the table can hold, stays inside it (the greedy funnel for approximating a
curve with few pieces; Imai and Iri, "Computational-geometric methods for polygonal approximations of a curve", 1986,
have the exact method). Breakpoints, slopes and values are whole numbers of the table's units while searching, so that
nothing is lost afterwards.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ridotto.infer.approximations import COEFFICIENT_BITS, KNOT_BITS, Spline

Function = Callable[[NDArray[np.float64]], NDArray[np.float64]]

VALUE_BITS = COEFFICIENT_BITS + KNOT_BITS
STEPS = 4
"""Points a unit of the breakpoints at which the corridor is checked."""


def find(
    function: Function,
    start: float,
    value: float,
    end: float,
    error: float,
    *,
    first_slope: int | None = 0,
    last_slope: int | None = 0,
) -> Spline:
    """Return a spline within `error` of the function from `start` on.

    value: the spline's at `start`. first_slope: left of `start`, whole; None: the first segment goes on to the left.
    last_slope: of the last segment, whole, which begins as soon as the corridor allows; None: stop at `end`.
    """
    knot, level = round(start * 2**KNOT_BITS), round(value * 2**VALUE_BITS)
    grid = np.arange(knot * STEPS, round(end * 2**KNOT_BITS) * STEPS + 1) / STEPS
    middle = function(grid / 2**KNOT_BITS) * 2.0**VALUE_BITS
    width = error * 2.0**VALUE_BITS
    pieces: list[tuple[int, int, int]] = []
    while True:
        ahead = slice(int((knot - grid[0]) * STEPS) + 1, None)
        run = grid[ahead] - knot
        low = np.maximum.accumulate((middle[ahead] - width - level) / run)
        high = np.minimum.accumulate((middle[ahead] + width - level) / run)
        last = None if last_slope is None else last_slope << COEFFICIENT_BITS
        if last is not None and low[-1] <= last <= high[-1]:
            pieces.append((knot, level, last))
            break
        usable = np.flatnonzero((np.ceil(low) <= np.floor(high))[STEPS - 1 :: STEPS]) * STEPS + STEPS - 1
        furthest = usable[-1]
        slope = round((low[furthest] + high[furthest]) / 2)
        slope = int(min(max(slope, np.ceil(low[furthest])), np.floor(high[furthest])))
        pieces.append((knot, level, slope))
        length = round(run[furthest])
        knot, level = knot + length, level + slope * length
        if last is None and knot >= grid[-1]:
            break
    return _spline(pieces, None if first_slope is None else first_slope << COEFFICIENT_BITS)


def _spline(pieces: list[tuple[int, int, int]], first_slope: int | None) -> Spline:
    knot, level, slope = pieces[0]
    before = slope if first_slope is None else first_slope
    offset, first = level - before * knot, before
    turns = []
    for knot, _, slope in pieces if first_slope is not None else pieces[1:]:
        turns.append((knot, slope - before))
        before = slope
    return Spline(offset, first, tuple(turns))
