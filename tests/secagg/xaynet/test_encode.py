"""Encoding, adding and unmasking against plain fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridotto.core.rng import insecure_seeded_rng
from ridotto.errors import DataError, LocalProtocolError, RoundFailedError
from ridotto.secagg.xaynet.config import Bound, Data, Group, MaskConfig, MaskConfigPair, Models
from ridotto.secagg.xaynet.derive import MaskObject, add_masks
from ridotto.secagg.xaynet.encode import Mean, encode_weights, mask_model, unmask

RNG = insecure_seeded_rng(4)


def by_the_formula(weight: float, scalar: Fraction, config: MaskConfig) -> int:
    shift = Fraction(config.add_shift)
    clamped = min(max(scalar * Fraction(weight), -shift), shift)
    return math.floor((clamped + shift) * config.exp_shift)


CONFIGS = [
    MaskConfig(),
    MaskConfig(bound=Bound.B2),
    MaskConfig(Group.POWER2, bound=Bound.B4),
    MaskConfig(bound=Bound.B6),
    MaskConfig(data=Data.F64),
    MaskConfig(data=Data.I32, bound=Bound.B2),
]

WEIGHTS = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    1 / 3,
    -1 / 3,
    1e-10,
    -1e-10,
    1e-11,
    -1e-11,
    5e-324,
    -5e-324,
    1e-300,
    1e300,
    -1e300,
]
WEIGHTS += [float(np.float32(0.1)), 0.9999999999, 1.0000000001, 1 - 2**-53, 1 + 2**-52, -1 - 2**-52, 2**-34, 7.3, 100.0]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.to_bytes().hex())
@pytest.mark.parametrize(
    "scalar", [Fraction(1), Fraction(1, 3), Fraction(0.1), Fraction(0), Fraction(1, 10**30), Fraction(99)]
)
def test_encoding_is_the_formula(config: MaskConfig, scalar: Fraction) -> None:
    found = encode_weights(np.array(WEIGHTS), scalar, config)
    assert found.tolist() == [by_the_formula(weight, scalar, config) for weight in WEIGHTS]


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=5), st.floats(0, 2))
def test_encoding_any_floats_is_the_formula(weights: list[float], scalar: float) -> None:
    config, exact = MaskConfig(), Fraction(scalar)
    found = encode_weights(np.array(weights, np.float32), exact, config)
    assert found.tolist() == [by_the_formula(weight, exact, config) for weight in weights]


@given(st.integers(-(10**10), 10**10), st.integers(1, 16))
def test_products_that_are_integers_are_not_rounded_down(numerator: int, halvings: int) -> None:
    """On a grid of the encoding itself, float64 is most in doubt."""
    weight, scalar = numerator / 10**10, Fraction(1, 2**halvings)
    found = encode_weights([weight], scalar, MaskConfig())
    assert found.tolist() == [by_the_formula(weight, scalar, MaskConfig())]


def test_integers_beyond_float64_are_exact() -> None:
    config = MaskConfig(data=Data.I64, bound=Bound.BMAX)
    weights = [2**63 - 1, -(2**63), 2**53 + 1]
    assert encode_weights(weights, Fraction(1), config).tolist() == [(w + 2**63) * 10**10 for w in weights]


@pytest.mark.parametrize("config", [MaskConfig(), MaskConfig(models=Models.M9)])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_refuses_weights_and_scalars_that_are_no_numbers(config: MaskConfig, bad: float) -> None:
    with pytest.raises(DataError, match="a weight"):
        encode_weights([0.0, bad], Fraction(1), config)
    with pytest.raises(DataError, match="scalar"):
        mask_model([0.0], bad, bytes(32), MaskConfigPair(config, config))
    with pytest.raises(DataError, match="negative"):
        mask_model([0.0], -1, bytes(32), MaskConfigPair(config, config))


def mean_of(models: list[list[float]], scalars: list[Fraction | float], configs: MaskConfigPair) -> Mean:
    seeds = [RNG.bytes(32) for _ in models]
    total = MaskObject.zero(configs, len(models[0]))
    for model, scalar, seed in zip(models, scalars, seeds, strict=True):
        total.add(mask_model(model, scalar, seed, configs))
    mask = MaskObject.zero(configs, len(models[0]))
    add_masks(mask, seeds)
    return unmask(total, mask, len(models))


@pytest.mark.parametrize("vect", CONFIGS, ids=lambda config: config.to_bytes().hex())
@pytest.mark.parametrize("unit", [MaskConfig(), MaskConfig(data=Data.F64, bound=Bound.B2)])
def test_the_mean_is_that_of_what_was_encoded(vect: MaskConfig, unit: MaskConfig) -> None:
    """Also where the two configurations scale by different powers of ten."""
    models, scalars = [[0.3, -1 / 3], [1.0, 0.1], [-0.7, 0.0]], [Fraction(1, 3), 0.1, Fraction(1)]
    found = mean_of(models, scalars, MaskConfigPair(vect, unit))
    exact = [Fraction(scalar) for scalar in scalars]
    weight = sum(
        (math.floor((one + unit.add_shift) * unit.exp_shift) for one in exact), -3 * unit.add_shift * unit.exp_shift
    )
    expected = []
    for column in zip(*models, strict=True):
        total = (
            sum(by_the_formula(w, s, vect) for w, s in zip(column, exact, strict=True))
            - 3 * vect.add_shift * vect.exp_shift
        )
        expected.append(Fraction(total, vect.exp_shift) / Fraction(weight, unit.exp_shift))
    assert found.to_fractions() == expected
    assert found.scalars == Fraction(weight, unit.exp_shift)
    assert found.to_float32().tolist() == [float(np.float32(float(value))) for value in expected]


def test_scalars_are_cut_at_their_bound() -> None:
    assert mean_of([[0.5], [0.25]], [1000, 1], MaskConfigPair()).scalars == 2


def test_refuses_sums_that_nobody_can_have() -> None:
    configs = MaskConfigPair()
    nothing = MaskObject.zero(configs, 2)
    shift = configs.vect.add_shift * configs.vect.exp_shift

    def sum_of(element: int, unit: int) -> MaskObject:
        return MaskObject(configs, np.array([element, 0], np.uint64), unit)

    assert unmask(sum_of(2 * 3 * shift, 3 * shift + 1), nothing, 3).models == 3
    for element, unit in ((2 * 3 * shift + 1, 3 * shift + 1), (0, 3 * shift - 1), (0, 2 * 3 * shift + 1)):
        with pytest.raises(RoundFailedError) as caught:
            unmask(sum_of(element, unit), nothing, 3)
        assert caught.value.code == "IMPOSSIBLE_SUM"
    with pytest.raises(RoundFailedError) as caught:
        unmask(sum_of(0, 3 * shift), nothing, 3)
    assert caught.value.code == "NO_WEIGHT"


def test_refuses_masks_of_other_sums() -> None:
    configs = MaskConfigPair()
    one, two = MaskObject.zero(configs, 1), MaskObject.zero(configs, 2)
    for mask, models in ((two, 1), (one, 0), (MaskObject.zero(MaskConfigPair(unit=MaskConfig(bound=Bound.B2)), 1), 1)):
        with pytest.raises(LocalProtocolError):
            unmask(one, mask, models)
