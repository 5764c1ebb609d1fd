"""Plans of every kind, against dp-accounting: the account's epsilon is the library's own number, worked out here.

What is taken from a plan is only how many units its bound is; the distance that a participant moves a sum by, which
relation asks for how much of it, and what is composed with what, are written down again below.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import dp_accounting
import numpy as np
import pytest
from dp_accounting import pld, rdp

from ridotto.core.vector import Layout
from ridotto.privacy.event import Sampling
from ridotto.rounds.clipping import AdaptiveClip, Clip
from ridotto.rounds.compression import CountSketch, Quantize, Rotate, Sample
from ridotto.rounds.noise import noise_of
from ridotto.rounds.plan import Ideal, Plan, Risk
from ridotto.rounds.private import Draw, PrivacyAccount
from ridotto.rounds.settings import (
    BandedGaussian,
    CentralGaussian,
    DistributedGaussian,
    DistributedSkellam,
    LocalGaussian,
    Mechanism,
    PrivUnit,
)

DELTA = 1e-6
LAYOUT = Layout.of({"weight": np.zeros((30, 20), np.float32), "bias": np.zeros(20, np.float32)})
WHOLE = np.concatenate([np.arange(2, 257), np.geomspace(300, 1e6, 200).round()])
ORDERS = 1 + np.geomspace(0.05, 1e6, 4001)
RELATIONS = dp_accounting.NeighboringRelation

NOBODY = Draw()
POISSON = Draw(Sampling.POISSON, rate=0.05)
FEW, MANY = (Draw(Sampling.FIXED_SIZE, size=60, population=count) for count in (6000, 120))

THIN = (Rotate(), Sample(0.25))
SMALL = (Rotate(), Sample(0.25), Quantize(bits=8))


def plan_of(dp: Mechanism, clip: Any, compress: tuple[Any, ...], metrics: int) -> Plan:
    names = {f"metric{number}": 1.0 for number in range(metrics)}
    options = {"protocol": Ideal(), "minimum": 50, "i_know": tuple(Risk), "max_examples": 1}
    return Plan(cohort=60, clip=clip, compress=compress, dp=dp, metrics=names, **options)


def gaussians(z: float, rounds: int, rate: float = 1.0, pure: tuple[float, ...] = ()) -> float:
    """Return dp-accounting's epsilon of Gaussian sums, or Poisson-sampled ones, and of pure answers beside them."""
    single = pld.privacy_loss_distribution.from_gaussian_mechanism(z, sampling_prob=rate)
    whole = single.self_compose(rounds)
    for epsilon in pure:
        parameters = pld.common.DifferentialPrivacyParameters(epsilon, 0)
        whole = whole.compose(pld.privacy_loss_distribution.from_privacy_parameters(parameters).self_compose(rounds))
    return float(whole.get_epsilon_for_delta(DELTA))


def pures(epsilon: float, rounds: int) -> float:
    if rounds == 1:
        return epsilon
    parameters = pld.common.DifferentialPrivacyParameters(epsilon, 0)
    whole = pld.privacy_loss_distribution.from_privacy_parameters(parameters).self_compose(rounds)
    return min(rounds * epsilon, float(whole.get_epsilon_for_delta(DELTA)))


def by_curve(curve: Callable[[np.ndarray], np.ndarray], rounds: int, orders: np.ndarray) -> float:
    return float(rdp.compute_epsilon(orders, rounds * curve(orders), DELTA)[0])


def coarse(moved: float, sigma: float, n: int, entries: int, rounds: int) -> float:
    """Return the number of Kairouz, Liu & Steinke 2021, theorem 1."""
    tau = 10 * sum(math.exp(-2 * math.pi**2 * sigma**2 * k / (k + 1)) for k in range(1, n))
    s = moved / math.sqrt(n) / sigma
    worse = s + math.sqrt(entries) * tau
    return by_curve(lambda a: np.minimum(a * s * s / 2 + tau * entries, a / 2 * worse**2), rounds, ORDERS)


def fixed_size(z: float, rounds: int, draw: Draw) -> float:
    """Return the number under replace-one; the library takes z over the distance of a replacement, twice the clip."""
    accountant = rdp.RdpAccountant(neighboring_relation=RELATIONS.REPLACE_ONE)
    sampled = dp_accounting.SampledWithoutReplacementDpEvent(
        draw.population, draw.size, dp_accounting.GaussianDpEvent(z / 2)
    )
    accountant.compose(sampled, rounds)
    return float(accountant.get_epsilon(DELTA))


def longest(units: float, entries: int) -> float:
    """Return D2 of Kairouz, Liu & Steinke 2021: the norm of a vector of norm `units` after conditional rounding."""
    root = math.sqrt(entries)
    return math.sqrt(min(units**2 + entries / 4 + units + root / 2, (units + root) ** 2))


def expected(plan: Plan, draw: Draw, rounds: int) -> float:
    """Work the epsilon of a plan out from its numbers."""
    dp, noise = plan.dp, noise_of(plan, LAYOUT)
    assert noise is not None
    units, entries = noise.scale * noise.bound, noise.dimension
    moved = longest(256 * units, entries) / 256 if noise.centred else longest(units, entries)
    pure = () if dp is None or dp.metrics_epsilon is None else (dp.metrics_epsilon,) * len(plan.metrics)
    match dp:
        case PrivUnit(report_epsilon=float(epsilon)):
            return pures(epsilon, rounds)
        case LocalGaussian(noise_multiplier=float(z)) if z * units < 12:
            return coarse(2 * moved, z * units, 1, entries, rounds)
        case LocalGaussian(noise_multiplier=float(z)):
            return gaussians(z * units / moved / 2, rounds, 1.0, pure)
        case BandedGaussian(noise_multiplier=float(z), bands=bands, participations=k, separation=s):
            column = math.sqrt(sum(round(1024 * math.comb(2 * j, j) / 4**j) ** 2 for j in range(bands))) / 1024
            return gaussians(z * units / moved / column, min(k, 1 + (rounds - 1) // s), 1.0, pure)
        case DistributedSkellam(noise_multiplier=float(z)):
            variance, l1 = (z * units) ** 2, moved * min(math.sqrt(entries), moved)
            return by_curve(
                lambda a: (
                    a * moved**2 / 2 / variance
                    + np.minimum(((2 * a - 1) * moved**2 + 6 * l1) / (2 * variance) ** 2, 3 * l1 / 2 / variance)
                ),
                rounds,
                WHOLE,
            )
        case DistributedGaussian(noise_multiplier=float(z)) if z * units / math.sqrt(50) < 2.5:
            return coarse(moved, z * units / math.sqrt(50), 50, entries, rounds)
        case DistributedGaussian(noise_multiplier=float(z)) | CentralGaussian(noise_multiplier=float(z)):
            pass
        case _:
            raise AssertionError(dp)
    z = z * units / moved
    if draw.sampling is Sampling.FIXED_SIZE:
        return min(gaussians(z, rounds, 1.0, pure), fixed_size(z, rounds, draw))
    return gaussians(z, rounds, draw.rate or 1.0, pure)


def central(z: float = 1.5, **more: Any) -> CentralGaussian:
    return CentralGaussian(noise_multiplier=z, delta=DELTA, **more)


def shares(z: float = 1.5, **more: Any) -> DistributedGaussian:
    return DistributedGaussian(noise_multiplier=z, delta=DELTA, **more)


def banded(bands: int, participations: int, separation: int, **more: Any) -> BandedGaussian:
    pattern = {"bands": bands, "participations": participations, "separation": separation}
    return BandedGaussian(noise_multiplier=1.5, delta=DELTA, **pattern, **more)


Case = tuple[Mechanism, Draw, int, Any, tuple[Any, ...], int]

CLIPS = (1.0, Clip(0.5, per_layer=True), AdaptiveClip(norm=0.1))
PATTERNS = ((1, 1, 1), (4, 3, 4), (16, 2, 30))

GRID: list[Case] = [
    *((central(), *rest, (), 0) for rest in itertools.product((NOBODY, POISSON, FEW, MANY), (1, 20), CLIPS)),
    *((shares(), draw, 5, 1.0, compress, 0) for draw in (NOBODY, FEW) for compress in ((), THIN, SMALL)),
    (shares(1.0), NOBODY, 3, AdaptiveClip(norm=0.1), SMALL, 0),
    (shares(), NOBODY, 3, 1.0, (CountSketch(rows=3, columns=100),), 0),
    *(
        (DistributedSkellam(noise_multiplier=1.5, delta=DELTA), NOBODY, n, 1.0, c, 0)
        for n in (1, 30)
        for c in ((), SMALL)
    ),
    *((LocalGaussian(noise_multiplier=6.0, delta=DELTA), FEW, n, 1.0, c, 0) for n in (1, 10) for c in ((), SMALL)),
    *((PrivUnit(report_epsilon=e, delta=DELTA), POISSON, n, 1.0, (), 0) for e in (0.5, 4.0) for n in (1, 2, 12)),
    *((banded(*p), Draw(spaced=p[1:]), n, 1.0, (), 0) for p in PATTERNS for n in (2, 40)),
    (central(metrics_epsilon=0.5), NOBODY, 4, 1.0, (), 1),
    (central(metrics_epsilon=0.2), POISSON, 4, 1.0, (), 2),
    (shares(metrics_epsilon=1.0), NOBODY, 2, 1.0, THIN, 2),
    (banded(4, 3, 4, metrics_epsilon=0.5), Draw(spaced=(3, 4)), 9, 1.0, (), 1),
]
"""Mechanism, draw, rounds, clip, compression, metrics."""

QUICK = (0, 6, 12, 18, 24, 26, 30, 32, 35, 37, 40, 44, 46, 51)
"""One or two of each kind; all of them take half a minute."""


def test_the_grid_is_large_enough() -> None:
    assert len(GRID) >= 50
    assert max(QUICK) < len(GRID)
    assert {type(GRID[number][0]) for number in QUICK} == {type(case[0]) for case in GRID}


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if n in QUICK else pytest.mark.slow, id=str(n)) for n, case in enumerate(GRID)]
)
def test_epsilon_is_dp_accountings_own(case: Case) -> None:
    dp, draw, rounds, clip, compress, metrics = case
    plan = plan_of(dp, clip, compress, metrics)
    account = PrivacyAccount(plan, LAYOUT, draw)
    for _ in range(rounds):
        account.charge()
    wanted = expected(plan, draw, rounds)
    assert account.cost.epsilon == pytest.approx(wanted, rel=1e-3, abs=1e-3)
