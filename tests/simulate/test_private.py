"""Differential privacy in a simulation: what is spent, when it stops, and that a resumed one can't forget."""

from __future__ import annotations

import math
from typing import Any

import dp_accounting
import msgspec
import numpy as np
import pytest
from dp_accounting import pld, rdp

import ridotto
from ridotto.errors import ConfigError, MissingExtraError, PlanError
from ridotto.learn.numpy_trainer import NumpyTrainer
from ridotto.privacy.account import library
from ridotto.privacy.event import Relation
from ridotto.rounds.plan import CentralGaussian, DistributedGaussian, Ideal, Pairwise, Plan, Risk
from ridotto.simulate.checkpoint import read_checkpoint
from ridotto.simulate.faults import DropOut
from ridotto.simulate.sampling import Cyclic, Poisson, Uniform, Weighted

DELTA = 1e-5


def clients(count: int = 20) -> list[tuple[np.ndarray, np.ndarray]]:
    generator = np.random.default_rng(3)
    labels = [generator.integers(3, size=8) for _ in range(count)]
    return [(np.eye(3, 5, dtype=np.float32)[y] + generator.normal(0, 0.3, (8, 5)).astype("f4"), y) for y in labels]


def private(dp: Any, cohort: int = 6, **changes: Any) -> Plan:
    return Plan(
        **({"cohort": cohort, "clip": 1.0, "max_examples": 1, "dp": dp, "i_know": (Risk.SMALL_COHORT,)} | changes)
    )


def shares(noise: float | None = 5.0, epsilon: float | None = None) -> DistributedGaussian:
    return DistributedGaussian(noise_multiplier=noise, epsilon=epsilon, delta=DELTA)


def central(noise: float | None = 5.0, epsilon: float | None = None) -> CentralGaussian:
    return CentralGaussian(noise_multiplier=noise, epsilon=epsilon, delta=DELTA)


def learn(plan: Plan, rounds: int = 3, count: int = 20, **options: Any) -> ridotto.Result:
    trainer = NumpyTrainer((5, 3), seed=1, batch_size=8, learning_rate=0.2)
    settings = {"seed": 4, "progress": False, "secure_sum": "modelled", "engine": "inline"}
    return ridotto.simulate(trainer, clients(count), plan, rounds=rounds, **(settings | options))


EVERYBODY = {"schedule": [range(6)] * 8}


def exact(noise: float, rounds: int) -> float:
    """Return dp-accounting's own number for rounds that everybody is in, from a noise multiplier over the clip."""
    accountant = pld.PLDAccountant()
    accountant.compose(dp_accounting.GaussianDpEvent(noise), rounds)
    return accountant.get_epsilon(DELTA)


@pytest.mark.parametrize("kind", [shares, central])
@pytest.mark.parametrize("noise", [0.8, 2.0, 7.0])
def test_without_sampling_epsilon_is_dp_accountings_number(kind: Any, noise: float) -> None:
    result = learn(private(kind(noise)), rounds=4, **EVERYBODY)
    expected = [exact(noise, rounds) for rounds in (1, 2, 3, 4)]
    np.testing.assert_allclose(result.table["epsilon"], expected, rtol=1e-3)
    assert result.privacy is not None
    assert result.privacy.relation is Relation.ZERO_OUT
    assert "a schedule says who is in which round" in str(result.privacy)
    assert result.privacy.epsilon == result.table["epsilon"][-1]


@pytest.mark.parametrize("rate", [0.05, 0.2])
@pytest.mark.parametrize("noise", [1.0, 2.0])
def test_poisson_samples_cost_dp_accountings_number(rate: float, noise: float) -> None:
    result = learn(private(central(noise), cohort=20, minimum=3), max_failures=9, sampling=Poisson(rate))
    accountant = pld.PLDAccountant()
    sampled = dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(noise))
    for epsilon in result.table["epsilon"]:
        accountant.compose(sampled)
        assert epsilon == pytest.approx(accountant.get_epsilon(DELTA), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("noise", [2.0, 8.0])
def test_uniform_samples_cost_dp_accountings_number(noise: float) -> None:
    """dp-accounting takes the multiplier over what a replacement moves a sum by: twice the clip."""
    dp = msgspec.structs.replace(shares(noise), relation="replace-one")
    result = learn(private(dp, cohort=6), count=60, sampling=Uniform())
    relation = dp_accounting.NeighboringRelation.REPLACE_ONE
    accountant = rdp.RdpAccountant(neighboring_relation=relation)
    drawn = dp_accounting.SampledWithoutReplacementDpEvent(60, 6, dp_accounting.GaussianDpEvent(noise / 2))
    for epsilon in result.table["epsilon"]:
        accountant.compose(drawn)
        assert epsilon == pytest.approx(accountant.get_epsilon(DELTA), rel=1e-3)
    assert result.privacy is not None
    assert result.privacy.relation is Relation.REPLACE_ONE
    assert "Against those who know who took part: epsilon" in str(result.privacy)


@pytest.mark.parametrize(
    ("dp", "options", "why"),
    [
        (shares(), {"sampling": Poisson(0.2)}, "the noise of a sum tells how many took part"),
        (central(), {"sampling": Weighted()}, "drawn with different weights"),
        (central(), {"sampling": Cyclic(2)}, "groups of clients take turns"),
        (central(), {"devices": ridotto.fleets.uniform()}, "devices come and go"),
        (central(), {"count": 6}, "everybody is taken to be in every round"),
    ],
)
def test_credits_no_sampling_that_amplifies_nothing(dp: Any, options: dict[str, Any], why: str) -> None:
    cohort = 20 if isinstance(options.get("sampling"), Poisson) else 6
    result = learn(private(dp, cohort=cohort, minimum=3), rounds=2, max_failures=9, **options)
    assert result.privacy is not None
    assert why in result.privacy.sampling
    assert result.table["epsilon"][-1] == pytest.approx(exact(5.0, 2), rel=1e-3)


def test_stops_before_the_round_that_would_overspend() -> None:
    allowed = (exact(5.0, 4) + exact(5.0, 5)) / 2
    rows: list[Any] = []
    plan = private(shares(5.0, allowed))
    result = learn(plan, rounds=8, test=clients(1)[0], test_every=8, on_round=rows.append, **EVERYBODY)
    assert len(result.records) == len(rows) == 4
    assert result.stopped.startswith("the privacy budget is spent: epsilon ")
    assert "after 4 rounds, and one more would make it" in result.stopped
    assert result.table["epsilon_left"][-1] == pytest.approx(allowed - exact(5.0, 4), abs=1e-3)
    assert result.table["test_accuracy"][-1] is not None
    assert result.privacy is not None
    assert (result.privacy.rounds, result.privacy.planned_rounds) == (4, 8)
    assert result.privacy.epsilon <= result.privacy.budget


def test_an_epsilon_alone_lasts_for_the_planned_rounds() -> None:
    result = learn(private(shares(None, 2.0)), rounds=5, **EVERYBODY)
    assert len(result.records) == 5
    assert result.stopped == ""
    assert 1.998 <= result.table["epsilon"][-1] <= 2.0
    assert result.plan.dp is not None
    assert result.plan.dp.noise_multiplier == pytest.approx(result.privacy.noise_multiplier)  # type: ignore[union-attr]


@pytest.mark.parametrize("secure_sum", ["machines", "modelled"])
def test_a_failed_round_is_charged(secure_sum: str) -> None:
    faults = [DropOut(client, round=2) for client in range(4)]
    result = learn(private(shares()), rounds=3, faults=faults, secure_sum=secure_sum, **EVERYBODY)
    assert result.table["failure"][1].startswith("TOO_FEW")
    np.testing.assert_allclose(result.table["epsilon"], [exact(5.0, n) for n in (1, 2, 3)], rtol=1e-3)


@pytest.mark.parametrize("dp", [shares(None, 2.0), central(5.0, exact(5.0, 5) + 0.01), shares()])
def test_resuming_forgets_nothing_that_was_spent(tmp_path: Any, dp: Any) -> None:
    plan = private(dp)
    whole = learn(plan, rounds=5, **EVERYBODY)
    if dp.noise_multiplier is None:
        # Noise that was worked out for five rounds stays what it was.
        plan = whole.plan
    learn(plan, rounds=2, save=tmp_path, **EVERYBODY)
    resumed = learn(private(dp), rounds=5, resume=tmp_path, **EVERYBODY)
    assert resumed.digest == whole.digest
    assert resumed.table["epsilon"] == whole.table["epsilon"]
    longer = learn(private(dp), rounds=8, resume=tmp_path, **EVERYBODY)
    assert len(longer.records) == (8 if dp.epsilon is None else 5)
    again = learn(private(dp), rounds=8, resume=tmp_path, **EVERYBODY)
    assert (again.stopped, again.digest) == (longer.stopped, longer.digest)


def test_a_checkpoint_that_does_not_say_what_it_spent_is_refused(tmp_path: Any) -> None:
    learn(private(shares()), rounds=2, save=tmp_path, **EVERYBODY)
    msgspec.structs.replace(read_checkpoint(tmp_path), spent=()).write(tmp_path)
    with pytest.raises(ConfigError, match="the checkpoint has 2 rounds, and not the privacy of so many"):
        learn(private(shares()), rounds=4, resume=tmp_path, **EVERYBODY)


def test_refuses_what_could_not_be_accounted_for() -> None:
    with pytest.raises(PlanError, match="the first round would already spend epsilon"):
        learn(private(shares(0.5, 1.0)), **EVERYBODY)
    pace = ridotto.pace.Buffered(size=6, concurrency=12)
    ideal = private(shares(), protocol=Ideal(), i_know=tuple(Risk))
    with pytest.raises(ConfigError, match="an asynchronous pace may have a client in one sum twice"):
        learn(ideal, devices=ridotto.fleets.uniform(), pace=pace)


def test_without_dp_accounting_closed_forms_serve_and_samples_are_refused_at_once(monkeypatch: Any) -> None:
    def missing() -> Any:
        raise MissingExtraError("dp-accounting", "dp")

    monkeypatch.setattr(library, "_library", missing)
    library.orders.cache_clear()
    library.sampled_curve.cache_clear()
    assert math.isfinite(learn(private(shares(3.25)), **EVERYBODY).table["epsilon"][-1])
    with pytest.raises(MissingExtraError, match="dp"):
        learn(private(shares(3.125)), count=37, on_round=pytest.fail)


def test_the_mean_over_poisson_samples_is_divided_by_what_is_expected() -> None:
    """Everybody's update is (1, 0, 0): with 20 clients at rate 0.4, the mean is the count / 8, apart from noise."""
    from tests.simulate.federation import trainer

    def train(parameters: Any, data: Any, generator: Any) -> Any:
        return {"weight": parameters["weight"] + np.array([1, 0, 0], np.float32)}, 1, {}

    plan = private(central(0.01), cohort=20, minimum=3, protocol=Pairwise(corrupt=0.0))
    options = {"rounds": 1, "seed": 3, "sampling": Poisson(0.4), "progress": False}
    result = ridotto.simulate(trainer(train), [0] * 20, plan, engine="inline", **options)
    assert result.vector[0] == pytest.approx(result.table["participants"][0] / 8, abs=0.02)


def test_learns_with_a_moderate_epsilon() -> None:
    """400 clients, epsilon 8: within some points of the same plan without noise, far above guessing (1/3)."""
    plan = private(central(None, 8.0), cohort=100, minimum=20)
    test = (np.concatenate([x for x, _ in clients(40)]), np.concatenate([y for _, y in clients(40)]))
    options = {"rounds": 15, "count": 400, "sampling": Poisson(0.1), "test": test, "test_every": 15}
    noisy = learn(plan, **options)
    calm = learn(msgspec.structs.replace(plan, dp=None), **options)
    assert noisy.table["test_accuracy"][-1] > 0.8
    assert calm.table["test_accuracy"][-1] > 0.8
    assert 7.9 <= noisy.table["epsilon"][-1] <= 8.0
