"""Skellam shares, local noise and reports, banded noise, metrics: each in a whole sum, and against its promise."""

from __future__ import annotations

import math
import statistics
from typing import Any

import msgspec
import numpy as np
import pytest

from ridotto.core.fixedpoint import container
from ridotto.core.rng import insecure_seeded_rng
from ridotto.errors import PlanError
from ridotto.privacy.account import cost
from ridotto.privacy.event import GaussianEvent, PureEvent, Relation, Sampling, SkellamEvent
from ridotto.privacy.noise.skellam import MAX_VARIANCE
from ridotto.privacy.noise.words import Words
from ridotto.rounds.clipping import AdaptiveClip
from ridotto.rounds.compression import Quantize, Rotate
from ridotto.rounds.dice import SeededDice
from ridotto.rounds.noise import noise_of
from ridotto.rounds.pipeline import Pipeline
from ridotto.rounds.plan import Committee, Ideal, Pairwise, Plan, Risk
from ridotto.rounds.private import Draw, PrivacyAccount, calibrated, round_event
from ridotto.rounds.robustness import NormBound
from ridotto.rounds.settings import (
    BandedGaussian,
    CentralGaussian,
    CommitteeGaussian,
    DistributedGaussian,
    DistributedSkellam,
    LocalGaussian,
    Mechanism,
    PrivUnit,
)
from tests.rounds.federation import Federation, names

DELTA = 1e-6
SPACED = Draw(spaced=(3, 4))


def banded(noise: float | None = 1.0, **changes: Any) -> BandedGaussian:
    settings = {"noise_multiplier": noise, "delta": DELTA, "bands": 4, "participations": 3, "separation": 4}
    return BandedGaussian(**(settings | changes))


ALL: list[Mechanism] = [
    DistributedGaussian(noise_multiplier=1.0, delta=DELTA),
    DistributedSkellam(noise_multiplier=1.0, delta=DELTA),
    CentralGaussian(noise_multiplier=1.0, delta=DELTA),
    banded(),
    LocalGaussian(noise_multiplier=4.0, delta=DELTA),
    PrivUnit(report_epsilon=8.0, delta=DELTA),
]

SEATED = CommitteeGaussian(noise_multiplier=1.0, delta=DELTA)


def private(dp: Mechanism, cohort: int = 10, **changes: Any) -> Plan:
    settings = {"clip": 1.0, "max_examples": 1, "dp": dp, "i_know": (Risk.SMALL_COHORT,)}
    return Plan(**({"cohort": cohort} | settings | changes))


def words(*labels: Any) -> Words:
    return Words(insecure_seeded_rng(7).child(*labels).bytes(32))


def dice() -> SeededDice:
    return SeededDice(insecure_seeded_rng(7))


def errors_of(plan: Plan, members: int, sums: int, dimension: int, length: float = 0.5) -> np.ndarray:
    """Return the errors of sums of updates of this norm, in clips, float64, shape (sums, dimension)."""
    pipeline = Pipeline(plan, dimension)
    update = np.full(dimension, length / math.sqrt(dimension), np.float32)
    errors = np.empty((sums, dimension))
    own = [words(member) for member in range(members)]
    for number in range(sums):
        total = np.zeros(pipeline.length, container(plan.bits))
        for member in range(members):
            total += pipeline.encode(update, 1, {}, dice(), words=own[member])
        errors[number] = pipeline.encoding.fixed.decode_sum(total[:dimension]) - members * update.astype(np.float64)
    return errors


def check_deviation(errors: np.ndarray, promised: float, slack: float = 1.0) -> None:
    """Hold mean and deviation against what was promised; each check fails by chance once in a million runs."""
    bound = statistics.NormalDist().inv_cdf(1 - 1e-6 / 4)
    deviation = math.sqrt(float(np.mean(errors**2)))
    assert deviation == pytest.approx(promised, rel=bound / math.sqrt(2 * errors.size) * slack)
    assert abs(float(errors.mean())) <= bound * deviation / math.sqrt(errors.size)


@pytest.mark.parametrize("dp", [*ALL, SEATED], ids=lambda dp: dp.__struct_config__.tag)
def test_every_mechanism_survives_the_wire_and_says_whom_it_trusts(dp: Mechanism) -> None:
    plan = private(dp, **({"protocol": Committee(corrupt=0.1)} if dp.seated else {}))
    assert msgspec.msgpack.decode(plan.encode(), type=Plan) == plan
    assert plan.trust.startswith("Trusted: ")
    assert plan.trust.split(",")[0].split(".")[0] in plan.protection() or "it must be trusted" in plan.protection()
    assert ("nobody but one's own device" in plan.trust) == dp.local


def test_skellam_shares_add_up_to_what_is_counted() -> None:
    """10 members, opened with 7 at least, 1 of which may be corrupt: 6 shares are sure, and 10 are there."""
    plan = private(DistributedSkellam(noise_multiplier=1.0, delta=DELTA))
    noise = noise_of(plan, 32)
    assert noise is not None
    assert noise.shares == 6
    assert noise.sigma**2 <= MAX_VARIANCE
    check_deviation(errors_of(plan, 10, 200, 32), math.sqrt(10 / 6))
    event = noise.event
    assert isinstance(event, SkellamEvent)
    assert event.variance == pytest.approx(6 * noise.sigma**2)
    assert event.l1 == pytest.approx(min(math.sqrt(32) * event.l2, event.l2**2))


def test_skellam_costs_hardly_more_than_a_gaussian_and_earns_no_sampling_credit() -> None:
    draw = Draw(Sampling.FIXED_SIZE, size=10, population=10_000)
    plan = private(DistributedSkellam(noise_multiplier=1.0, delta=DELTA))
    account = PrivacyAccount(plan, 1000, draw)
    account.charge()
    gaussian = cost(GaussianEvent(1.0), DELTA, Relation.ZERO_OUT).epsilon
    assert gaussian < account.cost.epsilon < 1.1 * gaussian
    assert account.statement().sampling.startswith("No sampling is credited: ")
    assert "Skellam" in account.statement().mechanism


def test_skellam_shares_may_be_small() -> None:
    plan = private(DistributedSkellam(noise_multiplier=1.0, delta=DELTA), 60, bits=8)
    noise = noise_of(plan, 10)
    assert noise is not None
    assert noise.sigma < 0.5
    assert math.isfinite(cost(noise.event, DELTA, Relation.ZERO_OUT).epsilon)


def test_local_noise_is_whole_on_every_contribution() -> None:
    plan = private(LocalGaussian(noise_multiplier=4.0, delta=DELTA), protocol=Ideal(), i_know=tuple(Risk))
    check_deviation(errors_of(plan, 1, 200, 32), 4.0)
    check_deviation(errors_of(plan, 8, 100, 32), 4.0 * math.sqrt(8))
    assert "every update is private" in plan.protection()


def test_local_noise_hides_any_two_updates_and_not_only_a_missing_one() -> None:
    """Two updates are up to two clips apart, so z = 4 counts as 2, whatever is sampled."""
    account = PrivacyAccount(
        private(LocalGaussian(noise_multiplier=4.0, delta=DELTA)), 1000, Draw(Sampling.POISSON, rate=0.01)
    )
    for _ in range(3):
        account.charge()
    assert account.cost.epsilon == pytest.approx(cost(GaussianEvent(2 / math.sqrt(3)), DELTA).epsilon, rel=1e-3)
    assert account.cost.relation is Relation.REPLACE_ONE
    assert "what a participant sends is private by itself" in account.statement().sampling


@pytest.mark.parametrize("compress", [(), (Rotate(), Quantize(bits=16))])
def test_reports_are_unbiased_in_the_ring(compress: tuple[Any, ...]) -> None:
    plan = private(PrivUnit(report_epsilon=8.0, delta=DELTA), compress=compress)
    pipeline, dimension = Pipeline(plan, 16), 16
    update = np.linspace(-1, 1, dimension, dtype=np.float32)
    update /= np.float32(1.25 * np.linalg.norm(update))
    total = np.zeros((150, dimension))
    own = words("reports")
    for number in range(150):
        summed = sum(
            pipeline.encode(update, 1, {}, dice(), words=own.child(number, member), seed=bytes(32))
            for member in range(5)
        )
        total[number] = pipeline.decode(np.asarray(summed), bytes(32)).mean
    # A sum's error is as large as the mechanism says; each of the two checks fails by chance once in a million runs.
    assert pipeline.encoding.report is not None
    deviation = math.sqrt(pipeline.encoding.report.variance(0.8) / 5 / dimension)
    bound = statistics.NormalDist().inv_cdf(1 - 1e-6 / 2 / dimension)
    slack = 1.0 if not compress else 1.05
    assert np.abs(total.mean(0) - update).max() < bound * deviation * 1.3 / math.sqrt(150) * slack
    assert math.sqrt(np.mean((total - update) ** 2)) == pytest.approx(deviation, rel=0.1)


def test_reports_are_pure_and_add_up_over_rounds() -> None:
    plan = private(PrivUnit(report_epsilon=0.5, delta=DELTA))
    assert round_event(plan, 1000) == PureEvent(0.5, Relation.REPLACE_ONE)
    account = PrivacyAccount(plan, 1000)
    account.charge()
    assert account.cost.epsilon == 0.5
    account.charge()
    assert account.cost.epsilon <= 1.0
    assert account.statement().noise_multiplier is None
    with pytest.raises(PlanError, match="already spend epsilon 4 of 1: lower report_epsilon or raise epsilon"):
        PrivacyAccount(private(PrivUnit(report_epsilon=4.0, epsilon=1.0, delta=DELTA)), 1000)


@pytest.mark.parametrize("epsilon", [1.0, 12.0])
def test_reports_are_calibrated_to_the_planned_rounds(epsilon: float) -> None:
    plan = calibrated(private(PrivUnit(epsilon=epsilon, delta=DELTA)), 10, 1000)
    assert isinstance(plan.dp, PrivUnit)
    account = PrivacyAccount(plan, 1000, planned=10)
    for _ in range(10):
        account.charge()
    assert epsilon * 0.999 <= account.cost.epsilon <= epsilon
    assert not account.fits()
    # What is stored of it leads to the same plan.
    again = private(PrivUnit(epsilon=epsilon, delta=DELTA).with_noise(plan.dp.noise_multiplier or 0.0))
    assert again == plan


@pytest.mark.parametrize(
    ("dp", "changes", "why"),
    [
        (ALL[4], {"clip": AdaptiveClip()}, "local-gaussian needs a clip that stays"),
        (ALL[5], {"clip": AdaptiveClip()}, "privunit needs a clip that stays"),
        (ALL[3], {"clip": AdaptiveClip()}, "banded-gaussian needs a clip that stays"),
        (ALL[3], {"compress": (Rotate(),)}, "noise of banded-gaussian cancels only where"),
        (ALL[3], {"robust": NormBound(groups=2)}, "banded-gaussian does not go with a robust rule yet"),
        (ALL[5], {"robust": NormBound(groups=2)}, "privunit does not go with a robust rule yet"),
        (ALL[0], {"metrics": {"loss": 1.0}}, "leave loss out .* or say metrics_epsilon in dp"),
        (
            DistributedGaussian(noise_multiplier=1.0, delta=DELTA, metrics_epsilon=1.0),
            {},
            "metrics_epsilon is for plans with metrics",
        ),
    ],
)
def test_refuses_what_a_mechanism_does_not_cover(dp: Mechanism, changes: dict[str, Any], why: str) -> None:
    with pytest.raises(PlanError, match=why):
        private(dp, **changes)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: banded(bands=0), "bands are 1 to 1024, not 0"),
        (lambda: banded(bands=5), "4 apart, and 5 bands need them that far"),
        (lambda: banded(participations=0), "at least 1: found 0 participations, 4 apart"),
        (lambda: banded(bands=2.5), "bands is a whole number, not 2.5"),
        (lambda: banded(separation=10**30), "separation is an integer of more than 64 bits"),
        (lambda: banded(None), "dp needs noise_multiplier"),
        (lambda: PrivUnit(delta=DELTA), "dp needs report_epsilon"),
        (lambda: PrivUnit(delta=DELTA, report_epsilon=1000.0), "a local epsilon is above 0"),
        (lambda: LocalGaussian(delta=DELTA, noise_multiplier=1.0, metrics_epsilon=-1.0), "a local epsilon is above 0"),
        (lambda: CentralGaussian(delta=DELTA, noise_multiplier=1.0, relation="both"), '"zero-out", "replace-one" or'),  # type: ignore[arg-type]
    ],
)
def test_refuses_numbers_that_can_not_be(make: Any, why: str) -> None:
    with pytest.raises(PlanError, match=why):
        make()


def test_one_participation_may_have_more_bands_than_separation() -> None:
    assert banded(participations=1, separation=1, bands=16).bands == 16


def test_the_cheaper_relation_is_said_unless_the_plan_says_which() -> None:
    """A tenth of all is worth the doubled distance, half of all is not."""
    small, large = (Draw(Sampling.FIXED_SIZE, size=10, population=population) for population in (1000, 20))
    dp = CentralGaussian(noise_multiplier=3.0, delta=DELTA)
    for draw, least in ((small, Relation.REPLACE_ONE), (large, Relation.ZERO_OUT)):
        found = {}
        for relation in (None, "zero-out", "replace-one"):
            account = PrivacyAccount(private(msgspec.structs.replace(dp, relation=relation)), 1000, draw)
            account.charge()
            found[relation] = account.cost
        assert found[None].relation is least
        assert found[None].epsilon == min(found["zero-out"].epsilon, found["replace-one"].epsilon)
        assert found["zero-out"].relation is Relation.ZERO_OUT
    account = PrivacyAccount(private(dp), 1000, large)
    assert account.cost.epsilon == 0
    account.charge()
    assert "known to amplify under replace-one only" in account.statement().sampling
    assert not any("Against those who know" in note for note in account.statement().notes)


def test_calibration_takes_the_cheaper_relation() -> None:
    draw = Draw(Sampling.FIXED_SIZE, size=10, population=20)
    plans = [
        calibrated(private(CentralGaussian(epsilon=4.0, delta=DELTA, relation=relation)), 5, 1000, draw)
        for relation in (None, "zero-out", "replace-one")
    ]
    free, zero_out, replace_one = (plan.dp.noise_multiplier for plan in plans if plan.dp is not None)
    assert free == zero_out
    assert replace_one > zero_out


@pytest.mark.parametrize("dp", [ALL[1], ALL[4], ALL[5]], ids=lambda dp: dp.__struct_config__.tag)
def test_participants_draw_from_their_own_rng(dp: Mechanism) -> None:
    """As over a network: nobody hands words in."""
    federation = Federation(private(dp, 5, minimum=3, protocol=Pairwise(corrupt=0.0)))
    finish = federation.run(names(5))
    assert finish.error is None
    assert np.abs(federation.vault.model).max() > 0.02


@pytest.mark.slow
def test_a_million_entries_of_every_mechanism_are_encoded() -> None:
    """The ring, the tables and the bounds hold at the size that plans are for."""
    update = np.full(1_000_000, 1e-3, np.float32)
    for dp in ALL:
        pipeline = Pipeline(private(dp, 100), 1_000_000)
        vector = pipeline.encode(update, 1, {}, dice(), words=words("large"))
        assert vector.shape == (pipeline.length,)
