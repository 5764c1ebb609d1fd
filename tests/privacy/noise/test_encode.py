"""From update to ring in one call: the steps one by one give the same, and the norm bound holds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridotto.core.fixedpoint import container
from ridotto.errors import DataError, PlanError
from ridotto.privacy.clip import clip_factor
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


def encode(vector, bound, scale, bits, source=None, label="encode"):
    """Clip and encode; return the integers of the ring."""
    out, norm = np.empty(len(vector), container(bits)), norm_of(vector)
    encode_private(vector, scale, bound, source, words(label), bits, out, factor=clip_factor(norm, bound), norm=norm)
    return out


def signed(vector: np.ndarray, bits: int) -> list[int]:
    half = 1 << (bits - 1)
    return [(value + half) % (1 << bits) - half for value in vector.tolist()]


@pytest.mark.parametrize("bits", [8, 12, 16, 20, 32, 48, 64])
def test_equals_the_steps_one_by_one(bits):
    vector = np.array([0.5, -0.25, 0.1, 0, -0.7], np.float32)
    out = encode(vector, 1.0, 100.0, bits, NOISE, "a")
    source = words("a")
    rounded = rounded_within(vector, 100.0, 1.0, source).astype(out.dtype)
    assert out.tolist() == add_noise(rounded & out.dtype.type((1 << bits) - 1), NOISE, source, bits).tolist()


def test_without_noise_spare_bits_are_zero():
    out = encode(np.full(100, -0.0625, np.float32), 1.0, 48.0, 12)
    assert set(out.tolist()) == {4096 - 3}


@given(vectors, st.floats(1e-3, 2.0), st.floats(1.0, 1e9), st.integers(0, 100))
def test_clips_and_keeps_the_norm_bound(vector, bound, units, seed):
    scale = units / bound
    integers = signed(encode(vector, bound, scale, 32, label=f"bound {seed}"), 32)
    assert sum(value * value for value in integers) <= rounded_norm_bound(scale * bound, len(vector)) ** 2
    clipped = vector.astype(float) * min(1.0, bound / max(norm_of(vector), 1e-30)) * scale
    assert np.all(np.abs(integers - clipped) <= 1 + 1e-6 * np.abs(clipped))


def test_a_norm_at_the_edge_of_the_ring_does_not_wrap():
    assert -127 <= signed(encode(np.array([-3.0], np.float32), 1.0, 127.0, 8), 8)[0] <= -126
    assert signed(encode(np.array([-1.0], np.float32), 1.0, 127.0, 8), 8) == [-127]


def test_clips_in_float64_where_luck_runs_out(monkeypatch):
    monkeypatch.setattr(rounding, "MAX_TRIES", 0)
    assert signed(encode(np.array([3.0, -4.0], np.float32), 1.0, 9.9, 32), 32) == [5, -7]


def test_looks_for_a_norm_that_was_not_given():
    vector, told = (
        np.array([0.5, -0.25, 0.1], np.float32),
        encode(np.array([0.5, -0.25, 0.1], np.float32), 1.0, 9.9, 16),
    )
    out = np.empty(3, np.uint16)
    encode_private(vector, 9.9, 1.0, None, words("encode"), 16, out)
    assert out.tolist() == told.tolist()
    with pytest.raises(DataError, match=r"above its bound of 1\.0"):
        encode_private(vector, 9.9, 1.0, None, words(), 16, out, factor=100.0)


def test_refuses_what_does_not_fit():
    vector, out = np.array([0.5, 0.5], np.float32), np.empty(2, np.uint16)
    with pytest.raises(PlanError, match="uint16 has no room for a bound of"):
        encode_private(vector, 2.0**15, 1.0, None, words(), 16, out)
    with pytest.raises(PlanError, match="scale and bound are positive"):
        encode_private(vector, 2.0, 0.0, None, words(), 16, out)
    for norm in (math.nan, math.inf, 2.0):
        with pytest.raises(DataError, match=r"not finite, or its norm is above its bound of 1\.0"):
            encode_private(vector, 100.0, 1.0, None, words(), 16, out, norm=norm)
    with pytest.raises(DataError, match="noise goes into a vector of uint32"):
        encode_private(vector, 2.0, 1.0, None, words(), 32, out)
    with pytest.raises(DataError, match="go into an unsigned vector"):
        encode_private(vector, 2.0, 1.0, None, words(), 16, np.empty(3, np.uint16))
    with pytest.raises(DataError, match="above its bound"):  # D2 is far longer, but the ring is not
        encode_private(np.full(10_000, 2.0, np.float32), 2.0, 1.0, None, words(), 8, np.empty(10_000, np.uint8))
