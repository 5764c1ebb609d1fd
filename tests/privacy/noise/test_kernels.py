"""Compiled loops give the bits that NumPy gives, whatever the ring, the noise, the length and the vector."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ridotto.core.fixedpoint import container
from ridotto.privacy.clip import clip_factor
from ridotto.privacy.noise import rounding
from ridotto.privacy.noise.discrete_gaussian import DiscreteGaussian
from ridotto.privacy.noise.loops import LOOPS
from ridotto.privacy.noise.ring import IntegerNoise, add_noise
from ridotto.privacy.noise.rounding import round_within, rounded_within
from ridotto.privacy.noise.skellam import Skellam
from ridotto.privacy.noise.table import InversionTable
from tests.privacy.noise.engines import both
from tests.privacy.noise.zscores import words

# A first call compiles, which takes seconds where no cache is kept.
property_test = settings(deadline=None, max_examples=60)

rings = st.integers(8, 64)
lengths = st.integers(0, 2000)
noises = st.one_of(
    st.floats(-6, 40).map(lambda power: DiscreteGaussian(2.0**power)),
    st.floats(-6, 15).map(lambda power: Skellam(2.0**power)),
)
vectors = st.tuples(st.integers(1, 3000), st.floats(-20, 20), st.sampled_from([np.float32, np.float64])).map(
    lambda given: np.ldexp(np.sin(np.arange(1, given[0] + 1)), given[1].__trunc__()).astype(given[2])
)


def norm_of(vector: np.ndarray) -> float:
    return float(np.linalg.norm(vector.astype(np.float64)))


@given(noises, lengths, rings)
@property_test
def test_noise_has_the_same_bits(noise: IntegerNoise, length: int, bits: int) -> None:
    vector = words("vector").wide("x", length).astype(container(bits))
    plain, quick = both(lambda: add_noise(vector, noise, words("noise"), bits))
    np.testing.assert_array_equal(plain, quick)
    assert quick.dtype == vector.dtype


@given(
    st.lists(st.integers(0, 1 << 90), min_size=1, max_size=40).filter(any),
    st.integers(-50, 50),
    st.integers(-(2**40), 2**40),
)
@property_test
def test_tables_have_the_same_bits(weights: list[int], first: int, factor: int) -> None:
    table = InversionTable(weights, first)

    def draw() -> np.ndarray:
        total = np.arange(1001, dtype=np.uint64)
        table.add_to(total, words("table"), factor=factor)
        return total

    plain, quick = both(draw)
    np.testing.assert_array_equal(plain, quick)


def test_long_noise_has_the_same_bits() -> None:
    # More than one piece, and many samples of the tails.
    for noise in (DiscreteGaussian(200.0), DiscreteGaussian(2.0**20), Skellam(1e6)):
        plain, quick = both(lambda noise=noise: noise.sample(words("long"), 600_001))
        np.testing.assert_array_equal(plain, quick)


@given(vectors, st.floats(-10, 35), st.floats(0.5, 3.0))
@property_test
def test_rounding_has_the_same_bits(vector: np.ndarray, power: float, room: float) -> None:
    norm = norm_of(vector)
    scale = 2.0**power / norm
    plain, quick = both(lambda: rounded_within(vector, scale, max(room, 1.001) * norm, words("rounding")))
    np.testing.assert_array_equal(plain, quick)


@given(vectors, rings, st.floats(0.1, 10.0))
@property_test
def test_clipped_rounding_has_the_same_bits(vector: np.ndarray, bits: int, room: float) -> None:
    vector = vector.astype(np.float32)
    norm = norm_of(vector)
    bound = room * norm
    scale = (2.0 ** (min(bits, 30) - 1) - 1.5) / bound

    def draw() -> np.ndarray:
        out = np.empty(len(vector), container(bits))
        factor = clip_factor(norm, bound)
        round_within(vector, scale, bound, words("clipped"), out, factor=factor, norm=norm)
        return out

    plain, quick = both(draw)
    np.testing.assert_array_equal(plain, quick)


@pytest.mark.parametrize("tries", [0, 64])
def test_all_tries_have_the_same_bits(tries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Hardest for rounding: half of the draws are too long. Several blocks, so that tries begin anywhere in the stream.
    monkeypatch.setattr(rounding, "MAX_TRIES", tries)
    monkeypatch.setattr(rounding, "DRAWN_ENTRIES", 1 << 10)
    vector = np.full(5001, 0.5)

    def draw(seed: int) -> tuple[list[int], list[int]]:
        source = words("tries", seed)
        drawn = rounded_within(vector, 1.0, norm_of(vector), source)
        return drawn.tolist(), [place for _, place in source._lanes.values()]

    for seed in range(10):
        plain, quick = both(lambda seed=seed: draw(seed))
        assert plain == quick


def test_norms_whose_squares_are_no_int64_are_left_to_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    vector = np.full(4, 0.25, np.float32)
    monkeypatch.setattr(LOOPS, "kernels", lambda entries: pytest.fail("asked for compiled loops"))
    rounded_within(vector, 2.0**32, 0.5, words())


def test_takes_vectors_as_they_lie() -> None:
    long = np.ldexp(np.sin(np.arange(1.0, 2001)), -6).astype(np.float32)
    fixed = long.copy()
    fixed.flags.writeable = False
    for vector in (fixed, long[::2], long[1::3]):
        out = np.zeros(2 * len(vector), np.uint32)
        for target in (np.empty(len(vector), np.uint32), out[::2]):

            def draw(vector: np.ndarray = vector, target: np.ndarray = target) -> np.ndarray:
                round_within(vector, 2.0**12, 0.25, words("layout"), target, factor=0.25 / norm_of(vector))
                return add_noise(target, DiscreteGaussian(30.0), words("noise"), out=target).copy()

            plain, quick = both(draw)
            np.testing.assert_array_equal(plain, quick)
        assert not out[1::2].any()
