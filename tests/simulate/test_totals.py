"""Rounds of several sessions whose sums go up: the bits of the sum of everybody, whatever hides it and adds noise."""

from __future__ import annotations

from typing import Any

import pytest

import ridotto
from ridotto.rounds.plan import (
    BandedGaussian,
    CentralGaussian,
    Committee,
    DistributedGaussian,
    Oneshot,
    Pairwise,
    Plan,
    Risk,
)
from ridotto.rounds.robustness import BucketedMedian
from ridotto.simulate.result import Result
from ridotto.simulate.sampling import Cyclic
from tests.simulate.federation import clients, trainer

COHORT = 16

PROTOCOLS = [Pairwise(corrupt=0.0, shard_size=4), Oneshot(corrupt=0.0, shard_size=4), Committee(shard_size=4)]

BANDS = {"bands": 3, "participations": 3, "separation": 3}

NOISES: dict[str, dict[str, Any]] = {
    "none": {},
    "central": {"dp": CentralGaussian(delta=1e-3, noise_multiplier=1.0)},
    "banded": {"dp": BandedGaussian(delta=1e-3, noise_multiplier=1.0, **BANDS)},
    "distributed": {"dp": DistributedGaussian(delta=1e-3, noise_multiplier=1.0)},
    "median, central": {"dp": CentralGaussian(delta=1e-3, noise_multiplier=1.0), "robust": BucketedMedian(groups=4)},
}


def run(protocol: Any, secure_sum: str, noise: str) -> Result:
    settings: dict[str, Any] = {"clip": 1.0, "max_examples": 1, "minimum": 3} | NOISES[noise]
    plan = Plan(cohort=COHORT, protocol=protocol, i_know=tuple(Risk), **settings)
    chosen = {"rounds": 2, "seed": 3, "secure_sum": secure_sum, "sampling": Cyclic(3)}
    return ridotto.simulate(trainer(), clients(3 * COHORT), plan, **chosen)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: type(protocol).__name__)
def test_sums_that_went_up_have_the_bits_of_the_sum_of_everybody(protocol: Any, noise: str) -> None:
    """The modelled sum is one sum and never went up; a rule keeps its groups apart in both."""
    real, modelled = (run(protocol, secure_sum, noise) for secure_sum in ("machines", "modelled"))
    assert [len(record.sessions) for record in real.records] == [4, 4]
    assert real.table["participants"] == modelled.table["participants"] == [COHORT] * 2
    assert real.vector.tobytes() == modelled.vector.tobytes()
