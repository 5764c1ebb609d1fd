from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ridotto.errors import PlanError
from ridotto.learn.compress.sparse import ternary, top_k
from tests.learn.compress.helpers import LIMIT, own, shared, spiky, vector


def test_keeps_the_largest_and_the_first_of_equals() -> None:
    update = vector(1.0, -3.0, 2.0, 2.0, -2.0, 0.5)
    assert top_k(0.5).encode(update, shared(), own()).vector.tolist() == [0, -3, 2, 2, 0, 0]
    assert top_k(1.0).encode(update, shared(), own()).vector.tolist() == update.tolist()
    assert top_k(0.01).encode(vector(0.0, 0.0), shared(), own()).vector.tolist() == [0, 0]


@given(st.integers(1, 3000), st.floats(1e-3, 1.0), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_keeps_as_many_as_it_says(length: int, fraction: float, seed: int) -> None:
    kept = top_k(fraction).encode(spiky(length, seed), shared(), own()).vector
    assert np.count_nonzero(kept) == math.ceil(fraction * length)


def test_ternary_takes_three_values_with_the_right_odds() -> None:
    # |x| / s = 0.25: 25,000 of 100,000, give or take 137.
    update = np.full(100_001, -0.25, np.float32)
    update[0] = 1
    found = ternary().encode(update, shared(), own()).vector
    assert set(found.tolist()) == {0, 1, -1}
    assert abs(np.count_nonzero(found[1:]) - 25_000) < LIMIT * 137
    assert ternary().encode(np.zeros(3, np.float32), shared(), own()).vector.tolist() == [0, 0, 0]


@pytest.mark.parametrize("fraction", [0.0, 1.5, math.nan])
def test_refuses_fractions_out_of_range(fraction: float) -> None:
    with pytest.raises(PlanError, match="top_k: fraction must be"):
        top_k(fraction)


def test_neither_works_under_masks() -> None:
    assert not top_k(0.1).linear
    assert not ternary().linear
