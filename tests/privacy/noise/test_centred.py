"""Draws around numbers: the right distribution whatever the number, within the ring, and not with too little noise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ridotto.core.fixedpoint import container
from ridotto.core.rng import insecure_seeded_rng
from ridotto.errors import PlanError
from ridotto.privacy.noise.centred import GRID, encode_centred, needs_centres, round_to_units
from ridotto.privacy.noise.words import Words

COUNT = 300_000


def words(*labels: object) -> Words:
    return Words(insecure_seeded_rng(1).child("centred", *map(str, labels)).bytes(32))


def probabilities(centre: float, variance: float, values: np.ndarray) -> np.ndarray:
    """Return N_Z(centre, variance), without anything of ours."""
    weights = np.exp(-((np.arange(-400, 401) - centre) ** 2) / (2 * variance))
    return np.exp(-((values - centre) ** 2) / (2 * variance)) / weights.sum()


def chi_square(drawn: np.ndarray, centre: float, variance: float) -> tuple[float, int]:
    values = np.arange(drawn.min(), drawn.max() + 1)
    expected = probabilities(centre, variance, values) * len(drawn)
    found = np.array([np.count_nonzero(drawn == value) for value in values])
    enough = expected > 10
    return float(((found - expected) ** 2 / expected)[enough].sum()), int(enough.sum())


@pytest.mark.parametrize("place", [0, 1, 77, 128, 255, -3, 256 * 5 + 200])
def test_the_last_step_is_a_discrete_gaussian_around_the_place(place: int) -> None:
    drawn = round_to_units(np.full(COUNT, place, np.int64), words(place))
    statistic, bins = chi_square(drawn, place / GRID, 3)
    # Beyond 6 deviations of a chi-square: a false alarm in 10^-8 of runs, and the seed is fixed.
    assert statistic < bins + 6 * math.sqrt(2 * bins) + 18


@pytest.mark.parametrize(("value", "sigma"), [(0.0, 2.0), (0.37, 2.5), (-11.8125, 3.0), (4.99, 20.0)])
def test_the_whole_is_a_discrete_gaussian_around_the_value(value: float, sigma: float) -> None:
    update = np.full(COUNT, value, np.float32)
    out = np.empty(COUNT, container(16))
    encode_centred(update, 1.0, float(np.linalg.norm(update)) + 1, sigma, words(value, sigma), 16, out)
    statistic, bins = chi_square(out.view(np.int16).astype(np.int64), value, sigma**2)
    assert statistic < bins + 6 * math.sqrt(2 * bins) + 18


def test_is_unbiased_around_values_that_are_no_place_of_the_grid() -> None:
    update = np.full(COUNT, 0.123456, np.float32)
    out = np.empty(COUNT, container(32))
    encode_centred(update, 1.0, 100.0, 2.0, words("mean"), 32, out)
    mean = float(out.view(np.int32).mean())
    assert abs(mean - 0.123456) < 6 * 2.0 / math.sqrt(COUNT)


def test_wraps_in_the_ring() -> None:
    out = np.empty(1000, container(10))
    encode_centred(np.full(1000, 500.0, np.float32), 1.0, 500.0 * 32, 10.0, words("wrap"), 10, out)
    assert out.max() < 1 << 10
    signed = (out.astype(np.int64) + 512) % 1024 - 512
    assert np.count_nonzero(signed < 0) > 50


def test_same_words_same_draws() -> None:
    grid = np.arange(-500, 500)
    assert np.array_equal(round_to_units(grid, words("a")), round_to_units(grid, words("a")))
    assert not np.array_equal(round_to_units(grid, words("a")), round_to_units(grid, words("b")))


def test_refuses_too_little_noise() -> None:
    assert not needs_centres(1.8)
    with pytest.raises(PlanError, match=r"a sigma of at least 1\.803, not 1\.5"):
        encode_centred(np.zeros(3, np.float32), 1.0, 1.0, 1.5, words(), 8, np.empty(3, np.uint8))
