"""Conditional rounding: never longer than its bound, unbiased, and seldom drawn twice."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridotto.errors import DataError, PlanError
from ridotto.privacy.noise import rounding
from ridotto.privacy.noise.rounding import rounded_norm_bound, rounded_within
from tests.privacy.noise.zscores import MAX_Z, mean_z, words

# (fraction bits, d, D2 / c) for C = 1, from the published formula, to three decimals.
INFLATIONS = [(14, 1_000_000, 1.0005), (12, 1_000_000, 1.008), (10, 1_000_000, 1.11), (8, 1_000_000, 2.20)]


@pytest.mark.parametrize(("fraction_bits", "length", "inflation"), INFLATIONS)
def test_bound_equals_known_values(fraction_bits, length, inflation):
    unit = 2.0**fraction_bits
    assert rounded_norm_bound(unit, length) / unit == pytest.approx(inflation, rel=5e-3)


def test_bound_of_few_entries_is_that_of_the_triangle():
    assert rounded_norm_bound(0.0, 1) == pytest.approx(math.sqrt(0.75))
    assert rounded_norm_bound(0.1, 1) == pytest.approx(math.sqrt(0.01 + 0.25 + 0.6))
    assert rounded_norm_bound(0.01, 4) == pytest.approx(math.sqrt(0.0001 + 1 + 1.01))


@given(
    st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=30).map(lambda entries: np.array(entries, np.float32)),
    st.floats(1e-3, 1e6),
    st.integers(0, 100),
)
def test_the_bound_holds_and_entries_move_less_than_a_unit(vector, scale, seed):
    norm = math.sqrt(math.fsum(entry * entry for entry in vector.tolist()))
    bound = max(norm, 0.5)
    rounded = rounded_within(vector, scale, bound, words("holds", seed))
    assert sum(entry * entry for entry in rounded.tolist()) <= rounded_norm_bound(scale * bound, len(vector)) ** 2
    assert np.all(np.abs(rounded - vector.astype(np.float64) * scale) <= 1)


def test_is_unbiased():
    # 6 entries of known fractions, 20,000 roundings; false-alarm rate 6 * 6e-7.
    vector, source = np.array([0.1, -0.1, 1.5, 2.25, -3.9, 7.0]), words("unbiased")
    drawn = np.array([rounded_within(vector, 1.0, 100.0, source) for _ in range(20_000)])
    fraction = vector - np.floor(vector)
    error = np.sqrt(fraction * (1 - fraction) / len(drawn))
    assert np.all(np.abs(drawn.mean(0) - vector) <= MAX_Z * error + 1e-12)


def test_ten_million_entries_are_unbiased():
    # Fractions of all sizes, on both sides of zero; three tests of a false-alarm rate of 6e-7.
    vector = np.sin(np.arange(10_000_000, dtype=np.float32)) * np.float32(3)
    error = rounded_within(vector, 1.0, 3e4, words("ten million")) - vector.astype(np.float64)
    fraction = vector - np.floor(vector)
    for chosen in (vector > 0, vector < 0, np.ones(vector.size, np.bool_)):
        spread = fraction[chosen].astype(np.float64) * (1 - fraction[chosen])
        assert abs(mean_z(error[chosen], 0.0, float(spread.mean()))) < MAX_Z


def test_expected_tries_are_below_two_where_it_is_hardest():
    # All fractions a half and the bound met exactly.
    vector, source = np.full(10_000, 0.5), words("tries")
    norm = math.sqrt(2500.0)
    for _ in range(100):
        rounded_within(vector, 1.0, norm, source)
    assert source._lanes["rounding"][1] < 2 * 100 * len(vector)


def test_rounds_towards_zero_when_luck_runs_out(monkeypatch):
    monkeypatch.setattr(rounding, "MAX_TRIES", 0)
    assert rounded_within(np.array([1.7, -1.7, 0.2]), 1.0, 3.0, words()).tolist() == [1, -1, 0]


def test_refuses_what_is_longer_than_its_bound_or_no_number():
    for vector in (np.array([3.0, 4.0]) * 1e3, np.array([np.nan, 0.0]), np.array([-np.inf, 0.0]), np.array([1e300])):
        with pytest.raises(DataError, match="above its bound"):
            rounded_within(vector, 1.0, 5.0, words())
    for vector in (np.zeros(0), np.zeros((2, 2))):
        with pytest.raises(DataError, match="one dimension"):
            rounded_within(vector, 1.0, 5.0, words())


@pytest.mark.parametrize(("scale", "bound"), [(0.0, 1.0), (1.0, 0.0), (-1.0, 1.0), (math.nan, 1.0), (2.0**41, 1.0)])
def test_refuses_impossible_scales_and_bounds(scale, bound):
    with pytest.raises(PlanError, match="positive"):
        rounded_within(np.zeros(3), scale, bound, words())


def test_refuses_a_bound_of_nothing():
    for norm, length in ((-1.0, 3), (math.nan, 3), (1.0, 0)):
        with pytest.raises(PlanError, match="no norm is bounded"):
            rounded_norm_bound(norm, length)
