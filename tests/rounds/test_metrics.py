"""Metrics of private plans: one random bit from everybody, unbiased, and in the account."""

from __future__ import annotations

import math
import statistics

import msgspec
import numpy as np
import pytest

from ridotto.core.fixedpoint import container
from ridotto.errors import DataError
from ridotto.privacy.event import Sampling
from ridotto.rounds.metrics import answer_of
from ridotto.rounds.pipeline import Pipeline
from ridotto.rounds.plan import Ideal, Plan, Risk
from ridotto.rounds.private import Draw, PrivacyAccount
from ridotto.rounds.settings import Mechanism
from tests.rounds.test_mechanisms import ALL, dice, private, words


def measured(dp: Mechanism, bounds: dict[str, float]) -> Plan:
    return private(
        msgspec.structs.replace(dp, metrics_epsilon=1.0), 600, metrics=bounds, protocol=Ideal(), i_know=tuple(Risk)
    )


@pytest.mark.parametrize("dp", ALL, ids=lambda dp: dp.__struct_config__.tag)
def test_metrics_are_one_random_bit_and_unbiased(dp: Mechanism) -> None:
    """100 answers at epsilon 1: a deviation of 1 / (tanh(1/2) sqrt(100)) of the bound; fails once in a million runs."""
    plan = measured(dp, {"accuracy": 1.0, "loss": 10.0})
    pipeline = Pipeline(plan, 4)
    total = np.zeros(pipeline.length, container(plan.bits))
    values = {"accuracy": 0.5, "loss": -3.0, "other": 1.0}
    for member in range(100):
        own = pipeline.encode(np.zeros(4, np.float32), 1, values, dice(), words=words("metric", member))
        assert set(pipeline.read_lanes(own).values[2:]) <= {0, 1}
        total += own
    found = pipeline.decode(total).metrics
    bound = statistics.NormalDist().inv_cdf(1 - 1e-6 / 4) / math.tanh(0.5) / math.sqrt(100)
    assert abs(found["accuracy"] - 0.5) < bound
    assert abs(found["loss"] + 3.0) < 10 * bound
    with pytest.raises(DataError, match="training reported accuracy"):
        pipeline.encode(np.zeros(4, np.float32), 1, {"accuracy": 1.0}, dice(), words=words("metric"))


def test_an_answer_is_as_private_as_it_says() -> None:
    """The two ends of the range, 300 answers each: a deviation of 8. Five of them fail once in a million runs."""
    own = words("answers")
    for value, share in ((-1.0, 1 / (1 + math.e)), (1.0, 1 / (1 + math.exp(-1)))):
        ones = sum(answer_of("loss", {"loss": value}, 1.0, 1.0, own.child(value > 0, n)) for n in range(300))
        assert ones == pytest.approx(300 * share, abs=40)


def test_metrics_are_in_the_account_by_name() -> None:
    plan = measured(ALL[0], {"accuracy": 1.0, "loss": 10.0})
    account, without = PrivacyAccount(plan, 100), PrivacyAccount(private(ALL[0], 600), 100)
    account.charge()
    without.charge()
    assert without.cost.epsilon < account.cost.epsilon <= without.cost.epsilon + 2.01
    assert "epsilon 1 in every round for each of the metrics accuracy, loss" in str(account.statement())


def test_metrics_cost_the_sum_none_of_its_sampling_credit() -> None:
    draw = Draw(Sampling.POISSON, rate=0.01)
    plan = measured(ALL[2], {"loss": 10.0})
    account = PrivacyAccount(plan, 100, draw)
    account.charge()
    assert account.cost.epsilon < 1.4  # and 5.9 if the sum had none
    assert "Sampling is credited" in account.statement().sampling
