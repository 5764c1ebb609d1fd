"""The noise of decoded sums is what was promised at least, whoever leaves: 2,000 sums, 0, 20 and 40 % drop-outs.

Everything goes through `Pipeline.encode` and `Pipeline.decode`. The sum of squared errors over the promised variance
has a chi-square distribution if the noise is just the promised one, and is larger if there is more: more contributions
than the fewest, and rounding. A test fails below what has a probability of one in a million, so each case is a false
alarm for at most two seeds in a million (the mean is tested as well); the seeds are fixed.
"""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest

from ridotto.core.fixedpoint import container
from ridotto.core.rng import SecretRng, insecure_seeded_rng
from ridotto.privacy.noise.words import Words
from ridotto.rounds.dice import SeededDice
from ridotto.rounds.noise import noise_of
from ridotto.rounds.pipeline import Pipeline
from ridotto.rounds.plan import CentralGaussian, DistributedGaussian, Pairwise, Plan, Risk

FALSE_ALARM = 1e-6
NOISE_MULTIPLIER, CLIP = 0.8, 2.0


def plan_of(cohort: int, minimum: int, corrupt: float, *, central: bool = False) -> Plan:
    kind = CentralGaussian if central else DistributedGaussian
    return Plan(
        cohort=cohort,
        minimum=minimum,
        clip=CLIP,
        max_examples=1,
        protocol=Pairwise(corrupt=corrupt),
        dp=kind(noise_multiplier=NOISE_MULTIPLIER, delta=1e-6),
        i_know=(Risk.SMALL_COHORT,),
    )


def chi_square_quantile(probability: float, degrees: int) -> float:
    """Return the quantile by Wilson and Hilferty's cube, PNAS 1931: to 1e-4 of itself for 1,000 degrees and more."""
    z, share = statistics.NormalDist().inv_cdf(probability), 2 / (9 * degrees)
    return degrees * (1 - share + z * math.sqrt(share)) ** 3


def errors(plan: Plan, present: int, sums: int, dimension: int, rng: SecretRng) -> np.ndarray:
    """Return what decoded sums of `present` contributions differ by from the true ones, shape (sums, d)."""
    pipeline = Pipeline(plan, dimension)
    update = np.full(dimension, 1.2 * CLIP / math.sqrt(dimension), np.float32)  # too long: it is clipped as well
    truth = present * update.astype(np.float64) / 1.2
    # Lanes of one seed never repeat a word: what follows is as independent as new words.
    own = [Words(rng.child("participant", member).bytes(32)) for member in range(present)]
    coordinator, found = Words(rng.child("coordinator").bytes(32)), np.empty((sums, dimension))
    dice = SeededDice(rng.child("dice"))
    for number in range(sums):
        total = np.zeros(pipeline.length, container(plan.bits))
        for words in own:
            total += pipeline.encode(update, 7, {}, dice, words=words)
        opened = pipeline.decode(pipeline.add_central_noise(total, coordinator))
        assert (opened.participants, opened.examples) == (present, present)
        found[number] = opened.mean.astype(np.float64) * present - truth
    return found


def check(plan: Plan, found: np.ndarray) -> None:
    """Hold the errors against z times the clip, and against what `rounds.noise` says is in a sum."""
    noise, size = noise_of(plan, found.shape[1]), found.size
    assert noise is not None
    in_units = math.sqrt(noise.shares) * noise.sigma / noise.scale
    promised = NOISE_MULTIPLIER * CLIP
    assert in_units >= promised * (1 - 1e-9)
    assert float((found**2).sum()) / promised**2 >= chi_square_quantile(FALSE_ALARM, size)
    # Unbiased: the mean error is within what chance allows, at the same false-alarm rate.
    limit = statistics.NormalDist().inv_cdf(1 - FALSE_ALARM / 2) * float(found.std()) / math.sqrt(size)
    assert abs(float(found.mean())) <= limit


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_drop_outs_leave_the_promised_noise(gone: int) -> None:
    """0, 20 and 40 % of 5 leave, 2,001 sums in all; nobody is corrupt, and a sum is opened with 3."""
    plan = plan_of(5, 3, 0.0)
    check(plan, errors(plan, 5 - gone, 667, 24, insecure_seeded_rng(1).child(gone)))


def test_corrupt_participants_leave_the_promised_noise() -> None:
    """The worst that a plan allows for: as few as it opens, less those whose part the coordinator can take off."""
    plan = plan_of(10, 6, 0.2)
    assert plan.honest == 4
    check(plan, errors(plan, 4, 250, 24, insecure_seeded_rng(2)))


def test_one_share_less_would_be_noticed() -> None:
    """The check has teeth: with a quarter of the promised shares missing it fails."""
    found = errors(plan_of(10, 6, 0.2), 3, 250, 24, insecure_seeded_rng(3))
    assert float((found**2).sum()) / (NOISE_MULTIPLIER * CLIP) ** 2 < chi_square_quantile(FALSE_ALARM, found.size)


@pytest.mark.slow
@pytest.mark.parametrize("central", [False, True])
@pytest.mark.parametrize("gone", [0, 2, 4])
def test_drop_outs_leave_the_promised_noise_over_two_thousand_sums(gone: int, central: bool) -> None:
    """0, 20 and 40 % of 10 leave, 2,000 sums each."""
    plan = plan_of(10, 6, 0.1, central=central)
    check(plan, errors(plan, 10 - gone, 2000, 200, insecure_seeded_rng(4).child(gone, int(central))))
