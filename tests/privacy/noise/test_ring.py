"""Noise in the ring: wraps as it must, adds up as promised, and drop-outs never weaken it."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridotto.core.fixedpoint import container
from ridotto.errors import DataError, PlanError
from ridotto.privacy.noise import table
from ridotto.privacy.noise.discrete_gaussian import DiscreteGaussian
from ridotto.privacy.noise.ring import add_noise, honest_participants, local_sigma
from ridotto.privacy.noise.skellam import Skellam
from tests.privacy.noise.zscores import MAX_Z, variance_z, words


@pytest.mark.parametrize("bits", [8, 11, 16, 21, 32, 40, 64])
@pytest.mark.parametrize("noise", [DiscreteGaussian(30.0), DiscreteGaussian(2.0**35), Skellam(40.0)])
def test_adds_samples_mod_two_to_the_bits(bits, noise):
    vector = words("vector").wide("x", 1001).astype(container(bits))
    vector &= vector.dtype.type((1 << bits) - 1)
    before = vector.copy()
    noisy = add_noise(vector, noise, words("noise"), bits)
    samples = noise.sample(words("noise"), 1001)
    expected = [(int(entry) + int(sample)) % (1 << bits) for entry, sample in zip(vector, samples, strict=True)]
    assert noisy.tolist() == expected
    assert noisy.dtype == vector.dtype
    np.testing.assert_array_equal(vector, before)


def test_adds_in_place_and_in_pieces(monkeypatch):
    vector = np.arange(100, dtype=np.uint32)
    whole = add_noise(vector, DiscreteGaussian(500.0), words())
    monkeypatch.setattr(table, "PIECE_SAMPLES", 16)
    assert add_noise(vector, DiscreteGaussian(500.0), words(), out=vector) is vector
    np.testing.assert_array_equal(vector, whole)


def test_refuses_vectors_and_outputs_that_do_not_fit():
    noise = DiscreteGaussian(1.0)
    for vector, bits in ((np.zeros(3, np.uint32), 16), (np.zeros((3, 1), np.uint8), 8), (np.zeros(3, np.int32), None)):
        with pytest.raises(DataError, match="noise goes into a vector of"):
            add_noise(vector, noise, words(), bits)
    for out in (np.zeros(4, np.uint8), np.zeros(3, np.uint16)):
        with pytest.raises(DataError, match="out is"):
            add_noise(np.zeros(3, np.uint8), noise, words(), out=out)
    with pytest.raises(PlanError, match="8 to 64"):
        add_noise(np.zeros(3, np.uint8), noise, words(), 7)


@given(st.floats(1e-9, 1e12), st.integers(1, 10**6))
def test_shares_of_the_honest_are_never_too_small(total, honest):
    sigma = local_sigma(total, honest)
    assert honest * Fraction(sigma) ** 2 >= Fraction(total) ** 2
    assert sigma == pytest.approx(total / math.sqrt(honest), rel=1e-14)


@pytest.mark.parametrize("dropped", [0.0, 0.2, 0.4])
def test_whoever_drops_out_the_sum_has_the_noise_that_was_promised(dropped):
    # 50 invited, at least 30 needed, 5 corrupt ones add nothing: with 40 % gone and all corrupt still there, 25 add.
    total, invited, corrupt = 40.0, 50, 5
    sigma = local_sigma(total, honest_participants(30, corrupt))
    adding = round(invited * (1 - dropped)) - corrupt
    noise = DiscreteGaussian(sigma)
    opened = np.zeros(20_000, np.uint32)
    for party in range(adding):
        add_noise(opened, noise, words("drop", str(dropped), party), out=opened)
    measured = opened.view(np.int32)
    # One-sided: measured noise is not below the promise; and exactly what those who stayed add.
    assert variance_z(measured, total**2) > -MAX_Z
    assert abs(variance_z(measured, adding * sigma**2)) < MAX_Z


def test_refuses_cohorts_without_an_honest_participant():
    assert honest_participants(30, 5) == 25
    for smallest, corrupt in ((5, 5), (5, 6), (0, 0), (5, -1)):
        with pytest.raises(PlanError, match="no honest noise"):
            honest_participants(smallest, corrupt)


def test_refuses_to_size_impossible_noise():
    for total in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(PlanError, match="is a positive number"):
            local_sigma(total, 3)
    with pytest.raises(PlanError, match="at least one honest"):
        local_sigma(1.0, 0)
