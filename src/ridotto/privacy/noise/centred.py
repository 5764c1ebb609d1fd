"""A discrete Gaussian around any number, not only around integers: for rings so small that rounding would be felt.

In a ring of 8 or 10 bits a clipped update is only some units long. Rounding its entries to integers first would
lengthen it by up to sqrt(d) / 2 units, many times its own length, and noise would have to hide all of that. Here
nothing is rounded first: an entry v becomes a draw from N_Z(v, sigma^2), P(k) proportional to exp(-(k - v)^2 / 2
sigma^2), which has the entry as its mean, is an integer, and whose sensitivity is that of v.

    v -> rounded within D2 on a grid of 1 / 256 unit -> + N_Z(0, s1^2) of that grid -> N_Z(w, t^2), w what came out

The last step, with t^2 = 3 and s1^2 = sigma^2 - t^2, makes it N_Z(v, sigma^2) up to a factor of 1 + e in every
probability, |e| < 2^-80: Poisson's summation formula for the grid (width of the inner sum: 256 s1 t / sigma >= 110
steps of it) and for the normaliser of the last step (2 exp(-2 pi^2 t^2) < 2^-83). Of v only the grid is left: that is
rounding within D2 as everywhere, of something 256 times finer.

A sum of draws around v_1, v_2, ... is a draw around their sum with the variances added, up to the same tau as for
centres that are integers: Poisson's formula bounds the inner sums for every shift. So the accountant counts as before,
with the sensitivity of the grid.

Neighbouring relation: one participant's vector added or removed. Trusted for it: the participant's own device.
Source: Peikert, "An Efficient and Parallel Gaussian Sampler for Lattices", CRYPTO 2010, theorem 3.1 (randomised
rounding by a discrete Gaussian); sums and tau, Kairouz, Liu, Steinke, "The Distributed Discrete Gaussian Mechanism for
Federated Learning with Secure Aggregation", ICML 2021, theorem 1, there for integers.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cache
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from ridotto.core.fixedpoint import IntVector
from ridotto.errors import PlanError
from ridotto.privacy.noise.discrete_gaussian import DiscreteGaussian, gaussian_weights
from ridotto.privacy.noise.encode import encode_private
from ridotto.privacy.noise.ring import reduce
from ridotto.privacy.noise.words import Words

GRID_BITS = 8
GRID = 1 << GRID_BITS
"""Steps of the grid in a unit."""

ROUNDING = 3
"""t^2, the variance of the last step."""

LEAST_VARIANCE = 3.25
"""Of a draw: with less, hardly any noise would be left for the grid."""

REACH = 20
"""The last step's table ends at so many units, 11.5 deviations: the mass beyond is below 2^-94."""

CELL_BITS = 12
"""Of a draw's bits, so many are looked up in the guide; the other 52 only where that leaves it open."""

UNDECIDED = np.iinfo(np.int8).min


def needs_centres(sigma: float) -> bool:
    """Tell whether there is enough noise for draws around numbers. sigma: of one draw, in units."""
    return sigma * sigma >= LEAST_VARIANCE


def encode_centred(
    update: NDArray[np.float32],
    scale: float,
    bound: float,
    sigma: float,
    words: Words,
    bits: int,
    out: IntVector,
    *,
    factor: float = 1.0,
    norm: float | None = None,
) -> None:
    """Scale an update and draw from N_Z(v, sigma^2) around every entry v, mod 2^bits, into `out`.

    sigma: in units, at least sqrt(3.25). The other arguments, and what is raised, are those of `encode_private`.
    Guaranteed: the centres' l2 norm is at most `rounded_norm_bound(256 scale * bound, d)` / 256 units.
    """
    if not needs_centres(sigma):
        raise PlanError(f"draws around numbers have a sigma of at least {math.sqrt(LEAST_VARIANCE):.4g}, not {sigma}")
    fine = np.empty(len(update), np.uint64)
    noise = DiscreteGaussian(GRID * math.sqrt(sigma * sigma - ROUNDING))
    encode_private(update, GRID * scale, bound, noise, words, 64, fine, factor=factor, norm=norm)
    out[...] = round_to_units(fine.view(np.int64), words).astype(out.dtype)
    reduce(out, bits)


def round_to_units(grid: NDArray[np.int64], words: Words, lane: str = "centred") -> NDArray[np.int64]:
    """Draw from N_Z(w, t^2) around every w = grid / 256. int64, shape (count,).

    Takes 16 bits of the lane for each and 64 of `lane + "/fine"` for the few that need them, both in order. The
    distance of a draw to the distribution is below 2^-58.
    """
    guide, steps = _tables()
    place = (grid & (GRID - 1)).astype(np.int64)
    coarse = words.narrow(lane, len(grid)).astype(np.int64)
    drawn = guide.take((place << CELL_BITS) | (coarse >> (16 - CELL_BITS))).astype(np.int64)
    open_ = np.flatnonzero(drawn == UNDECIDED)
    if open_.size:
        fine = words.wide(lane + "/fine", open_.size)
        uniform = (coarse[open_].astype(np.uint64) << np.uint64(48)) | (fine >> np.uint64(16))
        drawn[open_] = (uniform[:, None] >= steps[place[open_]]).sum(axis=1) - REACH
    return (grid >> GRID_BITS) + drawn


@cache
def _tables() -> tuple[NDArray[np.int8], NDArray[np.uint64]]:
    """Return the guide, int8, shape (256 * 4096,), and the cumulative steps times 2^64, shape (256, values - 1).

    Row j is N_Z(j / 256, t^2) on the integers from -20 to 21.
    """
    last = (REACH + 1) * GRID
    weights = gaussian_weights(Fraction(ROUNDING * GRID * GRID), last)
    guide = np.empty((GRID, 1 << CELL_BITS), np.int8)
    steps = np.empty((GRID, 2 * REACH + 1), np.uint64)
    for row in range(GRID):
        own = [weights[abs(value * GRID - row)] for value in range(-REACH, REACH + 2)]
        total = sum(own)
        cumulative = [(partial << 64) // total for partial in accumulate(own)][:-1]
        steps[row] = np.array(cumulative, np.uint64)
        guide[row] = _guide(cumulative)
    return guide.reshape(-1), steps


def _guide(cumulative: list[int]) -> NDArray[np.int8]:
    """Return the value of every cell of u, or `UNDECIDED` where a step falls into it."""
    cells = np.array([step >> (64 - CELL_BITS) for step in cumulative])
    begin = np.searchsorted(cells, np.arange((1 << CELL_BITS) + 1))
    decided = begin[:-1] == begin[1:]
    return np.where(decided, begin[:-1] - REACH, UNDECIDED).astype(np.int8)
