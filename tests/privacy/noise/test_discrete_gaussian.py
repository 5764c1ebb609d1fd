"""The discrete Gaussian: its tables against Decimal, its samples against its probabilities, its sums against theory."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridotto.errors import PlanError
from ridotto.privacy.noise.discrete_gaussian import MAX_SIGMA, TABLE_SIGMA, DiscreteGaussian
from ridotto.privacy.noise.table import TABLE_BITS
from tests.privacy.noise.zscores import MAX_Z, chi_square_z, mean_z, variance_z, words

SIGMAS = [0.3, 0.5, 1.0, 2.0, 20.0, 200.0, 201.0, 1000.0, 2.0**20, 2.0**40]


def probabilities(sigma: float, reach: float = 9.0) -> tuple[int, list[float]]:
    """Return the first value and the probabilities, from the definition."""
    last = math.ceil(reach * sigma)
    weights = [math.exp(-(k**2) / (2 * sigma**2)) for k in range(-last, last + 1)]
    total = math.fsum(weights)
    return -last, [weight / total for weight in weights]


def true_moment(sigma: float, power: int) -> float:
    first, masses = probabilities(sigma, 12.0)
    return math.fsum(mass * (first + index) ** power for index, mass in enumerate(masses))


@pytest.mark.parametrize("sigma", [0.1, 0.3, 0.5, 1.0, math.pi, 7.5])
def test_table_equals_the_definition_to_the_last_bit(sigma):
    table = DiscreteGaussian(sigma)._parts[0].table
    with localcontext() as context:
        context.prec = 60
        exponent = -1 / (2 * Decimal(sigma) ** 2)
        weights = [(k * k * exponent).exp() for k in range(table.first, -table.first + 1)]
        total = sum(weights)
        steps = [int(partial / total * 2**TABLE_BITS) for partial in accumulate(weights)]
    # The last digit of Decimal may turn the last step, which is exactly 2^80, by one.
    assert all(abs(ours - theirs) <= 1 for ours, theirs in zip(table.cumulative, steps, strict=True))
    assert table.cumulative[-1] == 1 << TABLE_BITS


@given(st.floats(1e-3, MAX_SIGMA))
def test_parts_add_up_to_sigma_exactly_and_are_smooth_enough(sigma):
    parts = DiscreteGaussian(sigma)._parts
    assert sum(part.factor**2 * part.variance for part in parts) == Fraction(sigma) ** 2
    assert parts[-1].factor == 1
    if len(parts) == 1:
        assert sigma <= TABLE_SIGMA
    # The finest part and the rest, in units of the rest's factor: t of the module's docstring.
    while len(parts) > 1:
        fine, unit = parts[-1], parts[-2].factor
        rest = sum(part.factor**2 * part.variance for part in parts[:-1])
        fine_variance = fine.factor**2 * fine.variance
        assert unit % fine.factor == 0
        assert fine_variance * rest / (fine_variance + rest) >= Fraction(21, 10) ** 2 * unit**2
        parts = parts[:-1]


@given(st.floats(1e-3, MAX_SIGMA))
def test_distance_is_as_small_as_promised(sigma):
    assert DiscreteGaussian(sigma).distance < 2.0**-66


@pytest.mark.parametrize("sigma", [201.0, 777.7])
def test_sum_of_two_tables_has_the_probabilities_of_the_definition(sigma):
    wide, fine = DiscreteGaussian(sigma)._parts
    masses = [np.diff([0, *part.table.cumulative]) / 2.0**TABLE_BITS for part in (wide, fine)]
    stretched = np.zeros((len(masses[0]) - 1) * wide.factor + 1)
    stretched[:: wide.factor] = masses[0]
    ours = np.convolve(stretched, masses[1].astype(float))
    first, definition = probabilities(sigma)
    begin = first - (wide.factor * wide.table.first + fine.table.first)
    np.testing.assert_allclose(ours[begin : begin + len(definition)], definition, rtol=1e-11, atol=1e-22)


def test_rho_by_hand():
    assert DiscreteGaussian(2.0).rho(2.0) == 0.5
    for sensitivity in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(PlanError, match="sensitivity"):
            DiscreteGaussian(2.0).rho(sensitivity)


@pytest.mark.parametrize("sigma", SIGMAS[:8])
def test_samples_have_their_probabilities(sigma):
    # 8 tests, false-alarm rate 6e-7 each.
    samples = DiscreteGaussian(sigma).sample(words("chi", str(sigma)), 1_000_000)
    assert abs(chi_square_z(samples, *probabilities(sigma))) < MAX_Z


@pytest.mark.parametrize("sigma", [20.0, *(pytest.param(s, marks=pytest.mark.slow) for s in SIGMAS[:8] if s != 20)])
def test_ten_million_samples_have_their_probabilities(sigma):
    # 3 tests for each sigma, false-alarm rate 6e-7 each.
    samples = DiscreteGaussian(sigma).sample(words("slow", str(sigma)), 10_000_000)
    variance = true_moment(sigma, 2)
    assert abs(chi_square_z(samples, *probabilities(sigma))) < MAX_Z
    assert abs(mean_z(samples, 0.0, variance)) < MAX_Z
    assert abs(variance_z(samples, variance, true_moment(sigma, 4) / variance**2)) < MAX_Z


@pytest.mark.parametrize("sigma", SIGMAS)
def test_moments(sigma):
    samples = DiscreteGaussian(sigma).sample(words("moments", str(sigma)), 200_000)
    variance = true_moment(sigma, 2) if sigma < 100 else sigma**2
    kurtosis = float(np.mean(samples.astype(float) ** 4)) / variance**2
    assert abs(mean_z(samples, 0.0, variance)) < MAX_Z
    assert abs(variance_z(samples, variance, kurtosis)) < MAX_Z
    assert variance <= DiscreteGaussian(sigma).variance * (1 + 1e-12)


@pytest.mark.parametrize("sigma", [2.0**20, 2.0**40])
def test_wide_samples_are_gaussian_in_every_bit(sigma):
    samples = DiscreteGaussian(sigma).sample(words("bits", str(sigma)), 100_000)
    scaled = np.clip(np.floor(samples / sigma * 4).astype(np.int64), -16, 15)
    edges = [math.erfc(-edge / 4 / math.sqrt(2)) / 2 for edge in range(-16, 17)]
    assert abs(chi_square_z(scaled, -16, np.diff(edges).tolist())) < MAX_Z
    # The lowest bits are as good as uniform: each convolution must reach all residues.
    assert abs(chi_square_z(samples & 15, 0, [1 / 16] * 16)) < MAX_Z


def test_tiny_sigma_is_almost_always_zero():
    assert not DiscreteGaussian(0.05).sample(words("tiny"), 10_000).any()
    assert not DiscreteGaussian(1e-300).sample(words("tiny"), 10).any()


def test_same_words_give_the_same_samples_however_calls_are_cut():
    noise = DiscreteGaussian(300.0)
    whole, cut = words("same"), words("same")
    parts = [noise.sample(cut, count) for count in (100_000, 2, 65_536, 1)]
    np.testing.assert_array_equal(np.concatenate(parts), noise.sample(whole, 165_539))
    assert parts[0].dtype == np.int64


def test_no_samples_are_no_samples():
    assert DiscreteGaussian(1.0).sample(words(), 0).shape == (0,)


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf, 2.0**41])
def test_refuses_what_is_no_sigma(sigma):
    with pytest.raises(PlanError, match="the sigma of a discrete Gaussian"):
        DiscreteGaussian(sigma)
