"""Tests of `oneshot` in simulations: machines, model of costs and `ideal` give the same model, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ridotto
from ridotto.rounds.plan import DistributedGaussian, Ideal, Oneshot, Plan, Risk
from ridotto.simulate.faults import DropOut, Fault, RandomDropOuts
from ridotto.simulate.result import Result
from tests.simulate.federation import clients, trainer

MEMBERS = 24


def run(protocol: Any, secure_sum: str = "machines", faults: tuple[Fault, ...] = (), **settings: Any) -> Result:
    bits = protocol.bits if isinstance(protocol, Oneshot) else 28
    plan = Plan(
        **{"cohort": MEMBERS, "minimum": 4, "bits": bits, "protocol": protocol, "i_know": tuple(Risk)} | settings
    )
    return ridotto.simulate(
        trainer(), clients(MEMBERS), plan, rounds=2, seed=3, faults=faults, secure_sum=secure_sum, max_failures=9
    )


@pytest.mark.parametrize(
    "protocol", [Oneshot(), Oneshot(shard_size=8), Oneshot(committee=9), Oneshot(pack="2x42"), Oneshot(seal="hybrid")]
)
def test_equals_ideal_bit_for_bit(protocol: Oneshot) -> None:
    secure, modelled = run(protocol), run(protocol, "modelled")
    ideal = run(Ideal(), bits=protocol.bits)
    assert secure.vector.tobytes() == modelled.vector.tobytes() == ideal.vector.tobytes()
    assert [record.participants for record in secure.records] == [MEMBERS] * 2


def test_equals_ideal_with_drop_outs() -> None:
    """Who leaves before its one message is missing; the sum of the others is exact."""
    faults = tuple(DropOut(place, None, "Contribution") for place in (1, 5, 6, 20))
    secure, modelled = run(Oneshot(shard_size=8), faults=faults), run(Oneshot(shard_size=8), "modelled", faults)
    ideal = run(Ideal(), faults=tuple(DropOut(place, None, "Plain") for place in (1, 5, 6, 20)), bits=28)
    assert secure.vector.tobytes() == modelled.vector.tobytes() == ideal.vector.tobytes()
    assert [record.participants for record in secure.records] == [MEMBERS - 4] * 2
    assert secure.table["bytes_up"] == modelled.table["bytes_up"]


def test_a_lost_shard_costs_its_own_members_only() -> None:
    """Members 0, 3, 6, ... are session 0; five of its eight fall silent, and four must stay."""
    faults = tuple(DropOut(place, 1, "Release") for place in (0, 3, 6, 9, 12))
    secure = run(Oneshot(shard_size=8), faults=faults)
    record = secure.records[0]
    assert [session.failure[:15] for session in record.sessions] == ["COMMITTEE_SHORT", "", ""]
    assert record.participants == 16
    assert secure.records[1].participants == MEMBERS


def test_drop_outs_at_random_lose_whom_the_model_says() -> None:
    faults = (RandomDropOuts(0.2, "Contribution"),)
    secure, modelled = run(Oneshot(shard_size=8), faults=faults), run(Oneshot(shard_size=8), "modelled", faults)
    for one, other in zip(secure.table["lost"], modelled.table["lost"], strict=True):
        assert sorted(one.split(", ")) == sorted(other.split(", "))
    assert secure.vector.tobytes() == modelled.vector.tobytes()


def test_noise_of_participants_goes_through_the_packing() -> None:
    """Noise makes entries negative and sums larger; the plan has proved the room for both."""
    dp = DistributedGaussian(delta=1e-3, noise_multiplier=1.0)
    choices: dict[str, Any] = {"dp": dp, "clip": 1.0, "max_examples": 1}
    secure, ideal = run(Oneshot(shard_size=8), **choices), run(Ideal(), bits=28, **choices)
    assert np.isfinite(secure.vector).all()
    assert secure.vector.tobytes() == run(Oneshot(shard_size=8), "modelled", **choices).vector.tobytes()
    assert secure.vector.shape == ideal.vector.shape


def test_compressed_updates_go_through_the_packing() -> None:
    choices: dict[str, Any] = {"compress": (ridotto.Rotate(), ridotto.Sample(fraction=0.5)), "clip": 8.0}
    secure, ideal = run(Oneshot(shard_size=8), **choices), run(Ideal(), bits=28, **choices)
    assert secure.vector.tobytes() == ideal.vector.tobytes()
