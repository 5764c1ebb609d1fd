"""Each table stays within its stated error, everywhere that it is valid."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ridotto.errors import PlanError
from ridotto.infer import approximations
from ridotto.infer.approximations import (
    BOUNDS,
    COEFFICIENT_BITS,
    EXPONENTIAL,
    GELU,
    KNOT_BITS,
    RECIPROCAL,
    SIGMOID,
    SOFTMAX_LIMIT,
    TANH,
    Spline,
    exact_gelu,
    exact_sigmoid,
    exact_softmax,
    softmax_error,
)
from ridotto.infer.reference import fixed_spline
from tests.infer.corridor import Function, find

GRID = 2.0**-10
SPARE = 2.0**-20
"""How far the search stayed inside of the stated error."""


def reciprocal(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / x


CASES = [
    # table, function, from, to, |second derivative| at most
    ("SIGMOID", exact_sigmoid, -24, 24, 0.1),
    ("TANH", np.tanh, -12, 12, 0.8),
    ("GELU", exact_gelu, -12, 12, 0.8),
    ("EXPONENTIAL", np.exp, -24, 0, 1.0),
    ("RECIPROCAL", reciprocal, 1 - 2**-8, 1100, 2.03),
]


@pytest.mark.parametrize(("name", "function", "low", "high", "curvature"), CASES)
def test_the_error_is_below_its_bound_everywhere(
    name: str, function: Function, low: float, high: float, curvature: float
) -> None:
    # All breakpoints are points of the grid, so between two points the table is straight, and the function leaves the
    # line between its values by at most h^2 / 8 times its second derivative. Hence nothing hides between the points.
    spline: Spline = getattr(approximations, name)
    x = np.arange(low, high + GRID, GRID)
    error = np.abs(spline(x) - function(x)).max()
    assert error + GRID**2 / 8 * curvature <= BOUNDS[name]
    assert error >= 0.9 * BOUNDS[name], "the documented bound is loose"


@pytest.mark.parametrize(
    ("name", "left", "right"), [("SIGMOID", 0, 0), ("TANH", 0, 0), ("GELU", 0, 1), ("EXPONENTIAL", 0, None)]
)
def test_the_tails_go_on_as_the_functions_do(name: str, left: int, right: int | None) -> None:
    # Left and right of the grid above, function and table are within 1e-4 of the same straight line.
    spline: Spline = getattr(approximations, name)
    assert spline.slope == left
    if right is not None:
        assert spline.slope + sum(turn for _, turn in spline.turns) == right << COEFFICIENT_BITS


def test_the_reciprocal_is_right_beyond_the_grid() -> None:
    assert RECIPROCAL.slope + sum(turn for _, turn in RECIPROCAL.turns) == 0
    assert 0 <= RECIPROCAL(np.array([1e9]))[0] <= BOUNDS["RECIPROCAL"]


@pytest.mark.parametrize("name", BOUNDS)
def test_breakpoints_ascend_and_none_is_idle(name: str) -> None:
    spline: Spline = getattr(approximations, name)
    knots = [knot for knot, _ in spline.turns]
    assert knots == sorted(set(knots))
    assert all(turn for _, turn in spline.turns)
    assert spline.reach == max(map(abs, knots)) / 256


def where(function: Function, level: float, low: float, high: float) -> float:
    """Return where a rising function passes a level, rounded down to a breakpoint."""
    x = np.arange(low * 2**KNOT_BITS, high * 2**KNOT_BITS) / 2**KNOT_BITS
    return float(x[np.flatnonzero(function(x) <= level)[-1]])


def test_the_tables_can_be_found_again() -> None:
    e = 2.0**-9 - SPARE
    assert find(exact_sigmoid, where(exact_sigmoid, e, -20, 0), 0, 20, e) == SIGMOID
    assert find(np.tanh, where(np.tanh, e - 1, -20, 0), -1, 12, e) == TANH
    sunk = where(lambda x: -exact_gelu(x), e, -20, -1.5)
    assert find(exact_gelu, sunk, 0, 12, e, last_slope=1) == GELU
    e = 2.0**-11 - SPARE
    assert find(np.exp, where(np.exp, e, -20, 0), 0, 0, e, last_slope=None) == EXPONENTIAL
    e, start = 2.0**-10 - SPARE, 1 - 2.0**-8
    assert find(reciprocal, start, 1 / start - e, 1500, e, first_slope=None) == RECIPROCAL


def test_the_table_of_comparisons_is_true() -> None:
    text = approximations.__doc__
    assert text is not None
    for name, bound in BOUNDS.items():
        line = next(line.split() for line in text.splitlines() if line.split()[:1] == [name])
        assert line[1:3] == [f"2^{math.log2(bound):.0f}", str(len(getattr(approximations, name).turns))]


def test_the_page_of_models_says_the_same() -> None:
    page = (Path(__file__).parents[2] / "docs" / "infer-models.md").read_text(encoding="utf-8")
    for row, name in (("sigmoid", "SIGMOID"), ("tanh", "TANH"), ("GELU", "GELU"), ("exp, for softmax", "EXPONENTIAL")):
        bound = f"{BOUNDS[name]:.1g} (2^{math.log2(BOUNDS[name]):.0f})"
        assert f"| {row} | {bound} | {len(getattr(approximations, name).turns)} |" in page
    assert f"More than {SOFTMAX_LIMIT} features are refused" in " ".join(page.split())
    assert f"{softmax_error(10):.4f} for ten classes" in page


@pytest.mark.parametrize("bits", [8, 12, 14, 16])
@pytest.mark.parametrize("name", ["SIGMOID", "TANH", "GELU", "EXPONENTIAL"])
def test_integers_round_down_once(name: str, bits: int) -> None:
    spline: Spline = getattr(approximations, name)
    x = np.arange(-12 << bits, 0, max(1, 2**bits >> 9))
    exact = spline(x * 2.0**-bits) * 2.0**bits
    assert np.array_equal(fixed_spline(spline, x, bits), np.floor(exact).astype(np.int64))


def test_too_few_fractional_bits_are_refused() -> None:
    with pytest.raises(PlanError, match="8 fractional bits or more, not 7"):
        SIGMOID.integers(7)


def test_breakpoints_out_of_reach_are_dropped() -> None:
    short = RECIPROCAL.below(11)
    x = np.linspace(1, 11, 1001)
    assert len(short.turns) == 16
    assert np.array_equal(short(x), RECIPROCAL(x))


def approximate_softmax(x: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = EXPONENTIAL(x - x.max(axis=-1, keepdims=True))
    return powers * RECIPROCAL(powers.sum(axis=-1, keepdims=True))


@pytest.mark.parametrize("features", [2, 10, SOFTMAX_LIMIT])
@pytest.mark.parametrize("spread", [0.1, 1.0, 5.0, 20.0])
def test_softmax_stays_within_its_bound(features: int, spread: float) -> None:
    # 2,000 draws from a fixed seed: no false alarms.
    x = spread * np.random.default_rng(1).normal(size=(2000, features))
    assert np.abs(approximate_softmax(x) - exact_softmax(x)).max() <= softmax_error(features)


@pytest.mark.parametrize("features", [2, 10, SOFTMAX_LIMIT])
def test_softmax_stays_within_its_bound_where_errors_add_up(features: int) -> None:
    # One feature on top and all others at the same depth: every exponential of theirs errs the same way.
    depth = np.linspace(-8.0, 0.0, 4001)
    x = np.repeat(depth[:, None], features, axis=1)
    x[:, 0] = 0
    error = np.abs(approximate_softmax(x) - exact_softmax(x)).max()
    assert error <= softmax_error(features)


@pytest.mark.parametrize(
    ("function", "value", "expected"),
    [(exact_sigmoid, -800.0, 0.0), (exact_sigmoid, 800.0, 1.0), (exact_gelu, 1.0, 0.8413447460685429)],
)
def test_exact_functions_at_known_points(
    function: Callable[[NDArray[np.float64]], NDArray[np.float64]], value: float, expected: float
) -> None:
    assert function(np.array([value]))[0] == pytest.approx(expected, abs=1e-12)
