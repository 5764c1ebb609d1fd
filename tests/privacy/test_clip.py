"""Clipping: the bound holds exactly, and nothing else changes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridotto.privacy.clip import clip, l2_norm


def exact_norm(vector: np.ndarray) -> float:
    return math.sqrt(math.fsum(value * value for value in vector.tolist()))


vectors = st.lists(st.floats(-(2.0**100), 2.0**100, width=32), max_size=20).map(
    lambda values: np.array(values, np.float32)
)


def test_scales_three_four_five():
    clipped, norm = clip(np.array([3, 4], np.float32), 1.0)
    assert norm == 5.0
    np.testing.assert_allclose(clipped, [0.6, 0.8], rtol=1e-6)
    assert clipped.dtype == np.float32


@pytest.mark.parametrize("bound", [5.0, 6.0])
def test_returns_a_vector_within_the_bound_itself(bound):
    vector = np.array([3, 4], np.float32)
    assert clip(vector, bound) == (pytest.approx(vector), 5.0)
    assert clip(vector, bound)[0] is vector


@given(vectors, st.floats(1e-30, 1e30))
def test_the_bound_holds_exactly(vector, bound):
    before = vector.copy()
    clipped, norm = clip(vector, bound)
    assert exact_norm(clipped) <= bound
    assert norm == pytest.approx(exact_norm(vector), rel=1e-14)
    np.testing.assert_array_equal(vector, before)


@given(vectors.filter(lambda vector: exact_norm(vector) > 1e-20))
def test_what_is_clipped_reaches_the_bound(vector):
    bound = exact_norm(vector) / 3
    assert exact_norm(clip(vector, bound)[0]) == pytest.approx(bound, rel=1e-6)


def test_norm_is_exact_over_many_chunks():
    vector = np.random.default_rng(3).standard_normal(200_001).astype(np.float32)
    assert l2_norm(vector) == pytest.approx(exact_norm(vector), rel=1e-14)


def test_squares_do_not_overflow():
    assert l2_norm(np.full(4, 3e38, np.float32)) == pytest.approx(6e38)


def test_an_empty_vector_has_norm_zero():
    assert clip(np.empty(0, np.float32), 1.0)[1] == 0


@pytest.mark.parametrize("bound", [0.0, -1.0, math.nan, math.inf])
def test_refuses_bounds_that_are_no_bounds(bound):
    with pytest.raises(ValueError, match="must be a positive number"):
        clip(np.ones(1, np.float32), bound)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_refuses_elements_that_are_not_finite(bad):
    with pytest.raises(ValueError, match="NaN or infinite"):
        clip(np.array([1, bad], np.float32), 1.0)
