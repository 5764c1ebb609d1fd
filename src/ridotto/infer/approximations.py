"""Smooth functions as sums of ReLUs, with error bounds.

The protocols compute sums, products with public constants and comparisons. So a smooth function becomes

    f(x) ~ a + s x + sum_i c_i relu(x - t_i)

with public tables: all comparisons of one element happen at once, and an approximated layer takes the rounds of one
ReLU. Numbers in the tables are whole: breakpoints t_i in units of 2^-8, slopes s and c_i in units of 2^-14, offsets a
in units of 2^-22. So every party computes with the same numbers, whatever its mathematical library rounds to.

    function       error at most   comparisons   where
    SIGMOID        2^-9            14            everywhere
    TANH           2^-9            20            everywhere
    GELU           2^-9            16            everywhere
    EXPONENTIAL    2^-11           23            x <= 0
    RECIPROCAL     2^-10           26            x >= 1 - 2^-8

Softmax of n features needs more: the largest feature m, EXPONENTIAL of each x_i - m, RECIPROCAL of their sum, and a
product of two secret values, see `softmax`. Its error is at most `softmax_error(n)`.

To these errors come those of fixed point: a unit in the last place a truncation. The bounds are measured on a grid so
fine that slopes leave no room between its points (tests/infer/test_approximations.py). The tables are the longest
segments inside a corridor around the function, found greedily by tests/infer/corridor.py, which a test runs again.
Where we differ from other systems: those take Taylor polynomials, limits or Newton's iteration for exp and 1/x
(Knott et al., "CrypTen: Secure Multi-Party Computation Meets Machine Learning", NeurIPS 2021), which take
more rounds and have no bound outside of an interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ridotto.errors import PlanError
from ridotto.infer.graph import Gelu, Layer, Sigmoid, Tanh

KNOT_BITS = 8
"""Breakpoints are multiples of 2^-8."""

COEFFICIENT_BITS = 14
"""Slopes are multiples of 2^-14."""

SOFTMAX_LIMIT = 128
"""Most features of a softmax: beyond it, the errors of its exponentials could add up to more than 0.065."""

Reals = NDArray[Any]
"""float32 or float64, of any shape."""


@dataclass(frozen=True)
class Spline:
    """Hold a continuous function of straight pieces: a + s x + sum_i c_i relu(x - t_i).

    offset: a, in units of 2^-22. slope: s, in units of 2^-14. turns: (t_i, c_i), in units of 2^-8 and 2^-14, with
    ascending t_i.
    """

    offset: int
    slope: int
    turns: tuple[tuple[int, int], ...]

    @property
    def reach(self) -> float:
        """Return the largest |t_i|: a wire that is compared with the breakpoints needs room for it."""
        return max(abs(knot) for knot, _ in self.turns) * 2.0**-KNOT_BITS

    def __call__(self, x: NDArray[Any]) -> NDArray[np.float64]:
        """Evaluate in float64."""
        x = x.astype(np.float64)
        y: NDArray[np.float64] = (
            self.offset * 2.0 ** -(KNOT_BITS + COEFFICIENT_BITS) + self.slope * 2.0**-COEFFICIENT_BITS * x
        )
        for knot, turn in self.turns:
            y += turn * 2.0**-COEFFICIENT_BITS * np.maximum(x - knot * 2.0**-KNOT_BITS, 0)
        return y

    def integers(self, fraction_bits: int) -> tuple[int, int, tuple[tuple[int, int], ...]]:
        """Return (a, s, ((t_i, c_i), ...)) for x with f fractional bits; the sum then has f + COEFFICIENT_BITS of them.

        Raises PlanError if f < KNOT_BITS.
        """
        shift = fraction_bits - KNOT_BITS
        if shift < 0:
            raise PlanError(f"approximated layers take {KNOT_BITS} fractional bits or more, not {fraction_bits}")
        return self.offset << shift, self.slope, tuple((knot << shift, turn) for knot, turn in self.turns)

    def below(self, limit: float) -> Spline:
        """Return the same function for x <= limit: without the breakpoints beyond."""
        return Spline(self.offset, self.slope, tuple(t for t in self.turns if t[0] < limit * 2**KNOT_BITS))


# fmt: off
SIGMOID = Spline(0, 0, (
    (-1597, 114), (-1036, 365), (-763, 583), (-572, 762), (-416, 867), (-271, 872), (-108, 488),
    (164, -749), (316, -887), (463, -849), (628, -714), (838, -516), (1162, -288), (2060, -48),
))
"""1 / (1 + exp(-x))."""

TANH = Spline(-4194304, 0, (
    (-888, 228), (-608, 741), (-474, 1212), (-384, 1628), (-314, 1995), (-255, 2275), (-202, 2451), (-151, 2499),
    (-98, 2272), (-32, 1019), (62, -1884), (120, -2400), (171, -2468), (222, -2397), (277, -2186), (340, -1874),
    (417, -1475), (521, -1029), (690, -537), (1227, -70),
))
"""The hyperbolic tangent."""

GELU = Spline(0, 0, (
    (-829, -339), (-619, -815), (-479, -816), (-254, 1397), (-180, 1938), (-120, 2296), (-66, 2489), (-15, 2555),
    (35, 2512), (86, 2386), (141, 2171), (205, 1797), (292, 852), (483, -915), (624, -806), (840, -318),
))
"""x Phi(x), with the normal distribution function Phi."""

EXPONENTIAL = Spline(0, 0, (
    (-1953, 28), (-1404, 91), (-1140, 154), (-967, 215), (-837, 280), (-734, 338), (-648, 406), (-574, 466),
    (-510, 524), (-453, 589), (-402, 643), (-356, 698), (-314, 758), (-275, 820), (-239, 876), (-205, 950),
    (-173, 1008), (-143, 1063), (-115, 1113), (-88, 1207), (-62, 1266), (-38, 1278), (-15, 1255),
))
"""exp(x) for x <= 0; zero below -7.63."""

RECIPROCAL = Spline(8054865, -15091, (
    (279, 2525), (306, 2151), (337, 1874), (373, 1604), (415, 1370), (465, 1169), (525, 973), (597, 799), (685, 653),
    (795, 527), (934, 413), (1113, 318), (1349, 238), (1669, 173), (2116, 121), (2773, 80), (3760, 50), (5388, 29),
    (8305, 15), (14365, 6), (24917, 2), (43095, 1), (64172, -1), (74717, 1), (173548, -1), (182019, 1),
))
"""1 / x for x >= 1 - 2^-8. `below` drops the breakpoints that a sum of n exponentials can't reach."""
# fmt: on

SPLINES: Mapping[type[Layer], Spline] = {Sigmoid: SIGMOID, Tanh: TANH, Gelu: GELU}
"""The tables of the layers that are one spline, element by element."""

BOUNDS = {"SIGMOID": 2.0**-9, "TANH": 2.0**-9, "GELU": 2.0**-9, "EXPONENTIAL": 2.0**-11, "RECIPROCAL": 2.0**-10}
"""Largest error of each table, where it is valid (see above)."""


def softmax_error(features: int) -> float:
    """Return the bound on the error of one of n probabilities, from the tables alone.

    Each exponential is wrong by at most d, and their sum, which is at least 1 - d, by n d. So a quotient e_i / s is
    wrong by at most (n + 1) d / (1 - d), and the reciprocal adds (1 + d) times its own error.
    """
    d, r = BOUNDS["EXPONENTIAL"], BOUNDS["RECIPROCAL"]
    return (features + 1) * d / (1 - d) + (1 + d) * r


def exact_sigmoid(x: Reals) -> Reals:
    """Return 1 / (1 + exp(-x)), without overflow."""
    result: Reals = 0.5 * np.tanh(0.5 * x) + 0.5
    return result


def exact_gelu(x: Reals) -> Reals:
    """Return x Phi(x)."""
    erf: Reals = np.vectorize(math.erf, otypes=[x.dtype])(x * math.sqrt(0.5))
    result: Reals = 0.5 * x * (1 + erf)
    return result


def exact_softmax(x: Reals) -> Reals:
    """Return exp(x_i) / sum_j exp(x_j) over the last axis."""
    powers: Reals = np.exp(x - np.max(x, axis=-1, keepdims=True))
    result: Reals = powers / np.sum(powers, axis=-1, keepdims=True)
    return result
