"""Noise in masked sums: sized for the worst that may happen, unbiased, refused where it would not cover something."""

from __future__ import annotations

import itertools
import math
import statistics
from typing import Any

import msgspec
import numpy as np
import pytest

from ridotto.core.fixedpoint import container
from ridotto.core.rng import SecretRng, insecure_seeded_rng
from ridotto.errors import ConfigError, LocalProtocolError, PlanError
from ridotto.privacy.account import cost
from ridotto.privacy.event import DiscreteGaussianEvent, GaussianEvent, Relation, Repeated, Sampling
from ridotto.privacy.noise.words import Words
from ridotto.rounds.dice import SeededDice
from ridotto.rounds.noise import RoundNoise, noise_of
from ridotto.rounds.pipeline import Pipeline
from ridotto.rounds.plan import (
    Algorithm,
    CentralGaussian,
    DistributedGaussian,
    DistributedSkellam,
    Ideal,
    Pairwise,
    Plan,
    Risk,
)
from ridotto.rounds.private import Draw, PrivacyAccount, calibrated, relations_of, round_event
from ridotto.rounds.vault import Vault
from tests.rounds.federation import LAYOUT, Federation, names

SHARES = DistributedGaussian(noise_multiplier=1.0, delta=1e-6)


def private(cohort: int = 10, **changes: Any) -> Plan:
    settings = {"clip": 1.0, "max_examples": 1, "dp": SHARES}
    return Plan(**({"cohort": cohort, "i_know": (Risk.SMALL_COHORT,)} | settings | changes))


def words(*labels: Any) -> Words:
    return Words(insecure_seeded_rng(1).child(*labels).bytes(32))


def dice() -> SeededDice:
    return SeededDice(insecure_seeded_rng(1))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"clip": None}, "dp needs a clip: noise hides a participant only if"),
        ({"max_examples": 5}, "dp counts everybody alike.*Say max_examples = 1 in the plan; it is 5"),
        ({"metrics": {"loss": 1.0}}, "metrics would travel without noise: leave loss out"),
        ({"algorithm": Algorithm(name="scaffold")}, "scaffold sums more than clipped updates.*take fedavg or fedprox"),
        ({"bits": 8, "cohort": 128}, "8 bits have no room for 128 clipped updates and noise that reaches"),
        ({"bits": 8, "cohort": 60}, r"a share of the noise is 0\.\d+ units of the ring, and below 0.5 nothing"),
        ({"bits": 8, "cohort": 4, "dp": DistributedGaussian(noise_multiplier=20.0, delta=1e-6)}, "take more bits"),
        ({"protocol": Pairwise(corrupt=0.4), "minimum": 4}, "a minimum of 4 hides nobody"),
    ],
)
def test_refuses_what_noise_does_not_cover(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(PlanError, match=why):
        private(**changes)


@pytest.mark.parametrize("kind", [DistributedGaussian, CentralGaussian])
@pytest.mark.parametrize(
    ("numbers", "why"),
    [
        ({}, "dp needs noise_multiplier .* epsilon .* or both"),
        ({"noise_multiplier": 0.0}, "noise_multiplier is above 0 and at most 1e\\+06, not 0.0"),
        ({"noise_multiplier": math.nan}, "noise_multiplier is above 0"),
        ({"noise_multiplier": -1.0}, "noise_multiplier is above 0"),
        ({"epsilon": 0.0}, "epsilon is a finite number above 0"),
        ({"epsilon": math.inf}, "epsilon is a finite number above 0"),
        ({"epsilon": 1.0, "delta": 0.0}, "delta is a probability"),
        ({"epsilon": 1.0, "delta": 1.0}, "delta is a probability"),
        ({"noise_multiplier": 10**30}, "noise_multiplier is an integer of more than 64 bits"),
    ],
)
def test_refuses_numbers_that_can_not_be(kind: Any, numbers: dict[str, float], why: str) -> None:
    with pytest.raises(PlanError, match=why):
        kind(**({"delta": 1e-6} | numbers))


def test_refuses_to_run_before_the_noise_is_known() -> None:
    plan = private(dp=DistributedGaussian(epsilon=1.0, delta=1e-6))
    with pytest.raises(PlanError, match="not yet how much noise that takes: give noise_multiplier, or let"):
        Pipeline(plan, 5)
    assert Pipeline(calibrated(plan, 10, 5), 5).noise is not None


def test_noise_has_no_default_randomness() -> None:
    pipeline = Pipeline(private(), 5)
    with pytest.raises(LocalProtocolError, match=r"needs secret words .* there is no default"):
        pipeline.encode(np.ones(5, np.float32), 1, {}, dice())
    central = private(dp=CentralGaussian(noise_multiplier=1.0, delta=1e-6))
    with pytest.raises(ConfigError, match="needs a source of secret randomness"):
        Vault(central, LAYOUT, np.zeros(LAYOUT.length, np.float32))
    with pytest.raises(LocalProtocolError, match="needs secret words"):
        Pipeline(central, 5).add_central_noise(np.zeros(20, np.uint32), None)


def test_says_who_must_be_honest_and_shows_no_secret() -> None:
    plan = private()
    assert "Trusted: 6 of every 7 participants in a sum, to add their share" in plan.protection()
    assert "that takes differential privacy" not in plan.protection()
    central = private(dp=CentralGaussian(noise_multiplier=2.0, delta=1e-6))
    assert "Noise of 2 times the clip limits" in central.protection()
    assert "it must be trusted" in central.protection()
    ideal = private(protocol=Ideal(), i_know=tuple(Risk))
    assert ideal.protection().startswith("No protection: the coordinator sees every update. Noise of 1 times")
    secret = SecretRng(bytes(32))
    assert repr(secret) == "SecretRng(...)"
    assert repr(words("x")) == "Words(...)"


def test_the_same_words_give_the_same_bytes_and_others_do_not() -> None:
    pipeline, update = Pipeline(private(), 50), np.linspace(-1, 1, 50, dtype=np.float32)
    one, again, other = (pipeline.encode(update, 3, {}, dice(), words=words(label)) for label in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one[:50], other[:50])
    assert pipeline.read_lanes(one).values == (1, 0)


def test_a_participant_draws_its_noise_from_its_own_rng() -> None:
    plan = private(cohort=5, minimum=3, protocol=Pairwise(corrupt=0.0))
    federation = Federation(plan)
    finish = federation.run(names(5))
    assert finish.error is None
    scale = 1.0  # one clip, sigma 1 over at least 3 shares: the mean of 5 has noise of sqrt(5 / 3) / 5 per entry
    assert 0.02 < np.abs(federation.vault.model).max() < 6 * scale * math.sqrt(5 / 3) / 5 + 1


@pytest.mark.parametrize("bits", [8, 12, 16, 31, 32, 40, 64])
@pytest.mark.parametrize("z", [0.1, 1.0, 30.0, 1e6])
def test_the_ring_has_room_for_everybody_and_twelve_deviations(bits: int, z: float) -> None:
    try:
        plan = private(5, minimum=4, bits=bits, dp=DistributedGaussian(noise_multiplier=z, delta=1e-6))
    except PlanError:
        assert bits <= 31
        return
    noise = noise_of(plan, 100)
    assert noise is not None
    largest = 5 * Pipeline(plan, 1).encoding.fixed.limit + 12 * noise.sigma * math.sqrt(5)
    assert largest < 2 ** (bits - 1)
    assert noise.sigma <= 2**40
    assert noise.scale * noise.bound <= 2**40


@pytest.mark.parametrize("kind", [DistributedGaussian, CentralGaussian])
@pytest.mark.parametrize("bits", [8, 16, 33, 64])
def test_absurd_numbers_raise_plan_error_and_nothing_else(kind: Any, bits: int) -> None:
    plans = 0
    for z, clip, cohort in itertools.product((1e-300, 0.3, 1e6), (1e-30, 1e-8, 1e8, 1e30), (2, 1000, 10**7)):
        try:
            options = {"minimum": 2, "protocol": Pairwise(corrupt=0.0), "i_know": tuple(Risk), "bits": bits}
            plan = private(cohort, clip=clip, dp=kind(noise_multiplier=z, delta=1e-6), **options)
        except PlanError:
            continue
        plans += 1
        pipeline = Pipeline(plan, 1)
        for value in (0, 1e-30, 1, 1e30):
            pipeline.encode(np.array([value], np.float32), 1, {}, dice(), words=words(0))
    assert plans


def test_noise_is_sized_for_the_smallest_sum_less_the_corrupt() -> None:
    """10 of at most 0.2 corrupt, opened with 7: 5 honest shares; each has sigma = z C 2^f / sqrt(5)."""
    plan = private(minimum=7, protocol=Pairwise(corrupt=0.2))
    noise = noise_of(plan, 1000)
    assert noise is not None
    assert noise.shares == 5
    assert noise.sigma == pytest.approx(noise.scale / math.sqrt(5))
    assert 5 * noise.sigma**2 >= noise.scale**2


def test_every_session_has_the_whole_noise_by_itself() -> None:
    plan = private(cohort=300, protocol=Pairwise(corrupt=0.1, shard_size=30))
    noise = noise_of(plan, 1000)
    assert noise is not None
    assert noise.shares == plan.least - 3 == 17


def sums_of(plan: Plan, members: int, sums: int, dimension: int) -> np.ndarray:
    """Return the errors of the sums of `members` contributions, in clips, float64, shape (sums, dimension)."""
    pipeline = Pipeline(plan, dimension)
    update = np.full(dimension, 0.5 / math.sqrt(dimension), np.float32)
    errors = np.empty((sums, dimension))
    own = [words(member) for member in range(members)]  # what follows in a lane is as independent as new words
    for number in range(sums):
        total = np.zeros(pipeline.length, container(plan.bits))
        for member in range(members):
            total += pipeline.encode(update, 1, {}, dice(), words=own[member])
        total = pipeline.add_central_noise(total, words(number))
        errors[number] = Pipeline(plan, dimension).encoding.fixed.decode_sum(
            total[:dimension]
        ) - members * update.astype(np.float64)
    return errors


def check_noise(errors: np.ndarray, promised: float) -> None:
    """Hold mean and deviation against what was promised; both checks fail by chance once in a million runs."""
    count, bound = errors.size, statistics.NormalDist().inv_cdf(1 - 1e-6 / 4)
    deviation = math.sqrt(float(np.mean(errors**2)))
    # The relative deviation of a sample deviation is sqrt(1 / 2n).
    assert deviation >= promised * (1 - bound / math.sqrt(2 * count))
    assert abs(float(errors.mean())) <= bound * deviation / math.sqrt(count)


@pytest.mark.parametrize("gone", [0, 2, 4])
def test_drop_outs_never_weaken_the_noise(gone: int) -> None:
    """0, 20 and 40 % of 10 leave: 2,001 sums in all. A share of 5 is needed, and all that are there add theirs."""
    plan = private(minimum=6)
    check_noise(sums_of(plan, 10 - gone, 667, 32), math.sqrt((10 - gone) / 5))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [DistributedGaussian, CentralGaussian, DistributedSkellam])
@pytest.mark.parametrize("gone", [0, 2, 4])
def test_drop_outs_never_weaken_the_noise_over_two_thousand_large_sums(kind: Any, gone: int) -> None:
    plan = private(minimum=6, dp=kind(noise_multiplier=0.7, delta=1e-6))
    check_noise(sums_of(plan, 10 - gone, 2000, 500), 0.7)


def test_the_coordinators_noise_is_what_was_promised() -> None:
    plan = private(minimum=6, dp=CentralGaussian(noise_multiplier=0.7, delta=1e-6))
    check_noise(sums_of(plan, 6, 300, 64), 0.7)


def test_a_discrete_gaussian_is_a_rounded_real_one() -> None:
    """The argument on top of `rounds.noise`, in numbers: with t^2 = 4.5 the two agree to float64 rounding."""
    variance, smooth = 30.0, 4.5
    integers = np.arange(-60, 61)
    real = np.linspace(-80, 80, 16001)
    density = np.exp(-(real**2) / 2 / (variance - smooth))
    kernel = np.exp(-((integers[:, None] - real) ** 2) / 2 / smooth)
    rounded = (kernel * (density / np.exp(-((np.arange(-95, 96)[:, None] - real) ** 2) / 2 / smooth).sum(0))).sum(1)
    discrete = np.exp(-(integers**2) / 2 / variance)
    near = np.abs(integers) <= 40  # farther out, what the grid leaves out is more than the rest
    np.testing.assert_allclose((rounded / rounded.sum())[near], (discrete / discrete.sum())[near], rtol=1e-9)


def test_coarse_shares_are_counted_with_what_their_sum_lacks() -> None:
    fine, coarse = (RoundNoise(1.0, 1.0, 2.0, sigma, 10, 100).event for sigma in (2.5, 2.4))
    assert coarse == DiscreteGaussianEvent(2.0, 2.4, 10, 100)
    assert isinstance(fine, GaussianEvent)
    assert fine.noise_multiplier == pytest.approx(math.sqrt(10 * 6.25 - 4.5) / 2)
    # The same noise counted by the theorem of Kairouz, Liu and Steinke can't be cheaper.
    by_theorem = cost(DiscreteGaussianEvent(2.0, 2.5, 10, 100), 1e-6, Relation.ZERO_OUT).epsilon
    assert cost(fine, 1e-6, Relation.ZERO_OUT).epsilon <= by_theorem * 1.02


@pytest.mark.parametrize(
    ("draw", "kind"),
    [
        (Draw(), DistributedGaussian),
        (Draw(), CentralGaussian),
        (Draw(Sampling.POISSON, rate=0.05), CentralGaussian),
        (Draw(Sampling.FIXED_SIZE, size=10, population=1000), DistributedGaussian),
    ],
)
def test_calibrated_noise_spends_the_budget_and_not_more(draw: Draw, kind: Any) -> None:
    plan = calibrated(private(dp=kind(epsilon=2.0, delta=1e-6)), 30, 1000, draw)
    assert plan.dp is not None
    event = Repeated(round_event(plan, 1000, draw), 30)
    spent = min(cost(event, 1e-6, relation).epsilon for relation in relations_of(plan, draw))
    assert 1.998 <= spent <= 2.0
    assert calibrated(plan, 60, 1000, draw) == plan


def test_calibration_says_when_the_ring_has_no_room() -> None:
    plan = private(4, bits=8, dp=DistributedGaussian(epsilon=0.1, delta=1e-6))
    with pytest.raises(PlanError, match="8 bits have no room for 4 clipped updates and noise that reaches"):
        calibrated(plan, 100, 1000)


def test_an_account_stops_before_it_overspends() -> None:
    plan = private(dp=DistributedGaussian(noise_multiplier=4.0, epsilon=2.0, delta=1e-6))
    account = PrivacyAccount(plan, 1000, planned=100)
    while account.fits():
        account.charge()
    # Rounds of z = 4 compose to one of z = 4 / sqrt(n); the exact curve says how many fit.
    event = round_event(plan, 1000)
    assert cost(Repeated(event, account.rounds), 1e-6, Relation.ZERO_OUT).epsilon <= 2.0
    assert cost(Repeated(event, account.rounds + 1), 1e-6, Relation.ZERO_OUT).epsilon > 2.0
    with pytest.raises(LocalProtocolError, match="no room for"):
        account.charge()
    again = PrivacyAccount(plan, 1000, planned=100, spent=account.spent)
    assert (again.rounds, again.fits(), again.left) == (account.rounds, False, account.left)
    assert again.statement().left == pytest.approx(account.left)
    assert "and one more would make it 2." in again.why_stopped()


def test_a_budget_that_one_round_exceeds_is_refused() -> None:
    plan = private(dp=DistributedGaussian(noise_multiplier=0.5, epsilon=1.0, delta=1e-6))
    with pytest.raises(
        PlanError, match=r"the first round would already spend epsilon 11.* of 1: raise noise_multiplier"
    ):
        PrivacyAccount(plan, 1000)
    with pytest.raises(PlanError, match="the plan has no dp"):
        PrivacyAccount(msgspec.structs.replace(plan, dp=None), 1000)
