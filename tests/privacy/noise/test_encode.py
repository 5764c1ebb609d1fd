"""From update to ring in one call: the steps one by one give the same, and the norm bound holds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridotto.core.fixedpoint import container
from ridotto.errors import DataError, PlanError
from ridotto.privacy.noise import rounding
from ridotto.privacy.noise.discrete_gaussian import DiscreteGaussian
from ridotto.privacy.noise.encode import encode_private
from ridotto.privacy.noise.ring import add_noise
from ridotto.privacy.noise.rounding import rounded_norm_bound, rounded_within
from tests.privacy.noise.zscores import words

vectors = st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=50).map(lambda values: np.array(values, np.float32))
NOISE = DiscreteGaussian(5.0)


def norm_of(vector: np.ndarray) -> float:
    return math.sqrt(math.fsum(value * value for value in vector.tolist()))


def signed(vector: np.ndarray, bits: int) -> list[int]:
    half = 1 << (bits - 1)
    return [(value + half) % (1 << bits) - half for value in vector.tolist()]


@pytest.mark.parametrize("bits", [8, 12, 16, 20, 32, 48, 64])
def test_equals_the_steps_one_by_one(bits):
    vector = np.array([0.5, -0.25, 0.1, 0, -0.7], np.float32)
    out = np.empty(5, container(bits))
    encode_private(vector, norm_of(vector), 1.0, 100.0, NOISE, words("a"), bits, out)
    source = words("a")
    rounded = rounded_within(vector, 100.0, 1.0, source).astype(out.dtype)
    assert out.tolist() == add_noise(rounded & out.dtype.type((1 << bits) - 1), NOISE, source, bits).tolist()


def test_without_noise_spare_bits_are_zero():
    vector = np.full(100, -0.1, np.float32)
    out = np.empty(100, np.uint16)
    encode_private(vector, 1.0, 1.0, 50.0, None, words(), 12, out)
    assert set(out.tolist()) == {4096 - 5}


@given(vectors, st.floats(1e-3, 2.0), st.floats(1.0, 1e9), st.integers(0, 100))
def test_clips_and_keeps_the_norm_bound(vector, bound, units, seed):
    out, scale = np.empty(len(vector), np.uint32), units / bound
    encode_private(vector, norm_of(vector), bound, scale, None, words("bound", seed), 32, out)
    integers = signed(out, 32)
    assert sum(value * value for value in integers) <= rounded_norm_bound(scale * bound, len(vector)) ** 2
    clipped = vector.astype(float) * min(1.0, bound / max(norm_of(vector), 1e-30)) * scale
    assert np.all(np.abs(integers - clipped) <= 1 + 1e-6 * np.abs(clipped))


def test_a_norm_at_the_edge_of_the_ring_does_not_wrap():
    vector = np.array([-3.0], np.float32)
    out = np.empty(1, np.uint8)
    encode_private(vector, 3.0, 1.0, 127.0, None, words(), 8, out)
    assert -127 <= signed(out, 8)[0] <= -126


def test_clips_in_float64_where_luck_runs_out(monkeypatch):
    monkeypatch.setattr(rounding, "MAX_TRIES", 0)
    out = np.empty(2, np.uint32)
    encode_private(np.array([3.0, -4.0], np.float32), 5.0, 1.0, 9.9, None, words(), 32, out)
    assert signed(out, 32) == [5, -7]


def test_refuses_what_does_not_fit():
    vector, out = np.array([0.5, 0.5], np.float32), np.empty(2, np.uint16)
    with pytest.raises(PlanError, match="uint16 has no room for a bound of"):
        encode_private(vector, 1.0, 1.0, 2.0**15, None, words(), 16, out)
    with pytest.raises(PlanError, match="scale and bound are positive"):
        encode_private(vector, 1.0, 0.0, 2.0, None, words(), 16, out)
    for norm in (math.nan, math.inf):
        with pytest.raises(DataError, match="entries that are not finite"):
            encode_private(vector, norm, 1.0, 2.0, None, words(), 16, out)
    with pytest.raises(DataError, match="noise goes into a vector of uint32"):
        encode_private(vector, 1.0, 1.0, 2.0, None, words(), 32, out)
    with pytest.raises(DataError, match="go into an unsigned vector"):
        encode_private(vector, 1.0, 1.0, 2.0, None, words(), 16, np.empty(3, np.uint16))
