"""Every private mechanism in a simulation: with machines and modelled, resumed, and kept to what it was counted for."""

from __future__ import annotations

import math
from typing import Any

import dp_accounting
import msgspec
import numpy as np
import pytest
from dp_accounting import pld

import ridotto
from ridotto.errors import ConfigError, PlanError
from ridotto.privacy.event import Relation
from ridotto.rounds.plan import (
    BandedGaussian,
    CentralGaussian,
    DistributedSkellam,
    Ideal,
    LocalGaussian,
    Plan,
    PrivUnit,
    Risk,
)
from ridotto.simulate.faults import DropOut
from ridotto.simulate.sampling import Cyclic, Uniform
from tests.simulate.test_private import DELTA, learn, private

EVERYBODY = {"schedule": [range(6)] * 8}
TURNS = {"sampling": Cyclic(3), "count": 20}


def banded(noise: float | None = 2.0, epsilon: float | None = None, **changes: Any) -> BandedGaussian:
    settings = {"bands": 3, "participations": 3, "separation": 3, "noise_multiplier": noise, "epsilon": epsilon}
    return BandedGaussian(delta=DELTA, **(settings | changes))


MECHANISMS = [
    (DistributedSkellam(noise_multiplier=2.0, delta=DELTA), EVERYBODY),
    (LocalGaussian(noise_multiplier=4.0, delta=DELTA), EVERYBODY),
    (PrivUnit(report_epsilon=4.0, delta=DELTA), EVERYBODY),
    (banded(), TURNS),
]


@pytest.mark.parametrize(("dp", "who"), MECHANISMS, ids=lambda part: getattr(type(part), "__name__", ""))
def test_a_modelled_sum_has_the_bits_of_the_real_one(dp: Any, who: dict[str, Any]) -> None:
    plan = private(msgspec.structs.replace(dp, metrics_epsilon=2.0), metrics={"loss": 10.0})
    real, modelled = (learn(plan, secure_sum=secure_sum, **who) for secure_sum in ("machines", "modelled"))
    assert real.digest == modelled.digest
    assert real.table["train_loss"] == modelled.table["train_loss"]
    assert real.table["epsilon"] == modelled.table["epsilon"]
    assert real.privacy is not None
    assert "for each of the metrics loss" in str(real.privacy)


@pytest.mark.slow
@pytest.mark.parametrize(("dp", "who"), MECHANISMS, ids=lambda part: getattr(type(part), "__name__", ""))
def test_processes_give_the_same_bits(dp: Any, who: dict[str, Any]) -> None:
    one, many = (learn(private(dp), engine=engine, **who) for engine in ("inline", "pool"))
    assert one.digest == many.digest


@pytest.mark.parametrize(("dp", "who"), MECHANISMS, ids=lambda part: getattr(type(part), "__name__", ""))
def test_resuming_forgets_neither_noise_nor_cost(tmp_path: Any, dp: Any, who: dict[str, Any]) -> None:
    whole = learn(private(dp), rounds=7, **who)
    learn(private(dp), rounds=4, save=tmp_path, **who)
    resumed = learn(private(dp), rounds=7, resume=tmp_path, **who)
    assert resumed.digest == whole.digest
    assert resumed.table["epsilon"] == whole.table["epsilon"]


@pytest.mark.parametrize(("dp", "who"), MECHANISMS, ids=lambda part: getattr(type(part), "__name__", ""))
def test_an_epsilon_lasts_for_the_planned_rounds(dp: Any, who: dict[str, Any]) -> None:
    result = learn(private(dp.with_epsilon(6.0)), rounds=5, **who)
    assert (len(result.records), result.stopped) == (5, "")
    assert 5.99 <= result.table["epsilon"][-1] <= 6.0


def test_local_privacy_costs_dp_accountings_number_for_any_two_updates() -> None:
    result = learn(private(LocalGaussian(noise_multiplier=6.0, delta=DELTA)), rounds=3, sampling=Uniform())
    accountant = pld.PLDAccountant(dp_accounting.NeighboringRelation.REPLACE_ONE)
    for epsilon in result.table["epsilon"]:
        # dp-accounting's distributions take the multiplier over the clip here, and double the distance themselves.
        accountant.compose(dp_accounting.GaussianDpEvent(6.0))
        assert epsilon == pytest.approx(accountant.get_epsilon(DELTA), rel=1e-3)
    assert result.privacy is not None
    assert result.privacy.relation is Relation.REPLACE_ONE


def test_banded_noise_costs_what_one_can_have_been_in() -> None:
    result = learn(private(banded()), rounds=9, **TURNS)
    norm = math.sqrt(1 + 1 / 4 + 9 / 64)
    for number, epsilon in enumerate(result.table["epsilon"]):
        accountant = pld.PLDAccountant()
        accountant.compose(dp_accounting.GaussianDpEvent(2.0 / norm), 1 + number // 3)
        assert epsilon == pytest.approx(accountant.get_epsilon(DELTA), rel=1e-3)
    assert result.privacy is not None
    assert "nobody is in more than 3 rounds, nor in two less than 3 apart" in result.privacy.sampling


def test_a_failed_round_keeps_its_place_in_the_noise() -> None:
    """Round 2 fails, so the model after round 3 lacks its update and not its place: round 3's noise is the same."""
    faults = [DropOut(client, round=2) for client in range(20)]
    plan = private(banded(1.0), protocol=Ideal(), i_know=tuple(Risk))
    failed = learn(plan, rounds=3, faults=faults, **TURNS)
    assert failed.table["failure"][1].startswith("TOO_FEW")
    assert failed.privacy is not None
    assert failed.privacy.rounds == 3


@pytest.mark.parametrize(
    ("options", "error", "why"),
    [
        ({"sampling": Uniform()}, PlanError, "needs somebody to keep every participant to 3 rounds at most, 3 or more"),
        ({}, PlanError, "needs somebody to keep every participant"),
        ({"sampling": Cyclic(3, turn=2)}, PlanError, "needs somebody to keep every participant"),
        ({"devices": ridotto.fleets.uniform()}, PlanError, "needs somebody to keep every participant"),
        (
            {"sampling": Cyclic(2)},
            ConfigError,
            "round 3 asks the client at position .*, which was in 1 rounds before, the",
        ),
        ({"sampling": Cyclic(3), "rounds": 12}, ConfigError, "round 10 asks .* in 3 rounds before, the last one 7"),
        ({"schedule": [range(6), range(5, 11)] * 2}, ConfigError, "round 2 asks the client at position 5"),
    ],
)
def test_refuses_those_who_do_not_keep_clients_apart(options: dict[str, Any], error: type, why: str) -> None:
    with pytest.raises(error, match=why):
        learn(private(banded()), **({"rounds": 4, "count": 20} | options))


def test_looks_again_in_every_round() -> None:
    """A sampler that draws others the second time it is asked is caught in the round."""

    class Fickle(Cyclic):
        asked = 0

        def cohort(self, number: int, *arguments: Any) -> Any:
            self.asked += 1
            return super().cohort(1 if self.asked > 6 else number, *arguments)

    with pytest.raises(ConfigError, match="round 2 asks the client at position"):
        learn(private(banded(), cohort=6), rounds=6, count=20, sampling=Fickle(3))


@pytest.mark.slow
def test_correlated_noise_leaves_less_in_the_model() -> None:
    """Nobody learns anything: what is in the model after 60 rounds is noise. 16 bands against none, at one epsilon."""
    from tests.simulate.federation import trainer

    def train(parameters: Any, data: Any, generator: Any) -> Any:
        return parameters, 1, {}

    found = {}
    for bands in (1, 16):
        dp = BandedGaussian(delta=DELTA, epsilon=2.0, bands=bands, participations=3, separation=20)
        plan = Plan(cohort=3, clip=1.0, max_examples=1, dp=dp, protocol=Ideal(), i_know=tuple(Risk))
        squares = []
        for seed in range(30):
            options = {"rounds": 60, "seed": seed, "sampling": Cyclic(20), "progress": False, "secure_sum": "modelled"}
            result = ridotto.simulate(trainer(train), [0] * 60, plan, engine="inline", **options)
            squares.append(float(np.square(result.vector).mean()))
        found[bands] = math.sqrt(np.mean(squares))
    assert found[16] < 0.6 * found[1]


def test_an_epsilon_without_credit_is_the_smaller_one_for_large_fractions() -> None:
    """10 of 20 clients: under replace-one a sample so large earns less than the doubled distance costs."""
    dp = CentralGaussian(noise_multiplier=4.0, delta=DELTA)
    found = {
        relation: learn(private(msgspec.structs.replace(dp, relation=relation), cohort=10), rounds=4).privacy
        for relation in (None, "zero-out", "replace-one")
    }
    epsilons = {relation: statement.epsilon for relation, statement in found.items() if statement is not None}
    assert epsilons[None] == epsilons["zero-out"] < epsilons["replace-one"]
    assert "known to amplify under replace-one only, and this is zero-out" in str(found[None])
