"""Gaussians against their exact distribution, and what seeds and labels decide."""

from __future__ import annotations

import math
from bisect import bisect_right
from itertools import pairwise

import numpy as np
import pytest

from ridotto.crypto.lattice import samplers
from ridotto.crypto.lattice.parameters import DEGREE, FIELDS, LARGEST_KEY, LARGEST_NOISE, SIGMA_KEY, SIGMA_NOISE
from ridotto.crypto.lattice.samplers import GaussianTable, gaussian, gaussian_weight, public_elements, stream

SEED = b"s" * 32
COUNT = 400_000
SIGMAS = (SIGMA_KEY, SIGMA_NOISE)


def probabilities(table: GaussianTable) -> list[float]:
    steps = [0, *table.cumulative]
    return [(after - before) / 2**80 for before, after in pairwise(steps)]


@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_table_is_the_distribution(sigma: float) -> None:
    """Against exp() in floating point, which is right to 1e-13 or so."""
    table = GaussianTable(sigma)
    values = range(table.first, table.last + 1)
    weights = [math.exp(-(value**2) / (2 * sigma**2)) for value in values]
    for found, weight in zip(probabilities(table), weights, strict=True):
        assert math.isclose(found, weight / math.fsum(weights), rel_tol=1e-12, abs_tol=2.0**-79)
    assert table.cumulative[-1] == 2**80


def test_the_tables_end_at_12_sigma() -> None:
    assert (gaussian(SIGMA_KEY).last, gaussian(SIGMA_NOISE).last) == (LARGEST_KEY, LARGEST_NOISE) == (54, 76)
    for sigma in SIGMAS:
        beyond = 2 * sum(gaussian_weight(sigma, int(12 * sigma) + i) for i in range(1, 40))
        assert beyond < sum(gaussian_weight(sigma, value) for value in range(-80, 81)) * 2.0**-100


@pytest.mark.parametrize("sigma", SIGMAS)
def test_samples_invert_the_cumulative_table(sigma: float) -> None:
    """Sample by sample: the number of steps at or below the 80 bits it was drawn from."""
    table = gaussian(sigma)
    samples = table.sample(SEED, "t", COUNT)
    cells = stream(SEED, "t cells", COUNT, np.uint16).astype(int)
    decided = {step >> 64 for step in table.cumulative[:-1]}
    undecided = [i for i, cell in enumerate(cells.tolist()) if cell in decided]
    fine = stream(SEED, "t fine", len(undecided), np.uint64)
    for index, rest in zip(undecided, fine.tolist(), strict=True):
        u = (int(cells[index]) << 64) + rest
        assert samples[index] == table.first + bisect_right(table.cumulative, u)
    for index in range(0, COUNT, 997):
        if int(cells[index]) not in decided:
            assert samples[index] == table.first + bisect_right(table.cumulative, int(cells[index]) << 64)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_samples_follow_the_distribution(sigma: float) -> None:
    """Chi-square over all values expected 20 times. False alarm: 6 sigma, below 1e-7; the seed is fixed."""
    table = gaussian(sigma)
    samples = table.sample(SEED, "chi", COUNT)
    found = np.bincount(samples - table.first, minlength=table.last - table.first + 1)
    expected = np.array(probabilities(table)) * COUNT
    common = expected >= 20
    statistic = float((((found - expected) ** 2) / np.maximum(expected, 1))[common].sum())
    freedom = int(common.sum())
    assert abs(statistic - freedom) < 6 * math.sqrt(2 * freedom)
    assert abs(float(np.mean(samples))) < 6 * sigma / math.sqrt(COUNT)
    assert abs(float(np.std(samples)) / sigma - 1) < 6 / math.sqrt(2 * COUNT)


def test_seeds_and_labels_give_other_samples() -> None:
    table = gaussian(SIGMA_KEY)
    first = table.sample(SEED, "key", DEGREE)
    np.testing.assert_array_equal(first, table.sample(SEED, "key", DEGREE))
    assert np.mean(first == table.sample(SEED, "noise", DEGREE)) < 0.15
    assert np.mean(first == table.sample(b"t" * 32, "key", DEGREE)) < 0.15
    assert first.dtype == np.int16
    assert table.sample(SEED, "key", 0).shape == (0,)


def test_public_elements_are_words_of_48_bits() -> None:
    found = public_elements(SEED, 2)
    assert found.shape == (2, 2, DEGREE)
    for index, prime in enumerate(FIELDS):
        words = stream(SEED, f"public q{index + 1}", 2 * DEGREE, np.uint64) & np.uint64(2**48 - 1)
        np.testing.assert_array_equal(found[index].reshape(-1), words)
        assert found[index].max() < prime.value
    assert not np.array_equal(found, public_elements(b"t" * 32, 2))


def test_public_elements_are_the_same_whatever_their_number() -> None:
    np.testing.assert_array_equal(public_elements(SEED, 3)[:, :2], public_elements(SEED, 2))


def test_public_words_from_q_on_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a prime of a quarter of 2^48 three words in four are refused."""

    class Small:
        value = 2**46 + 1

    monkeypatch.setattr(samplers, "FIELDS", (Small, Small))
    found = public_elements(SEED, 1)
    words = stream(SEED, "public q1", 8 * DEGREE, np.uint64) & np.uint64(2**48 - 1)
    np.testing.assert_array_equal(found[0, 0], words[words < Small.value][:DEGREE])
