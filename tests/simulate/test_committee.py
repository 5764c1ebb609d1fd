"""Tests of helpers in simulations: machines, model of costs and `ideal` give the same model, bit for bit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import ridotto
from ridotto.errors import ConfigError
from ridotto.learn.numpy_trainer import FunctionTrainer
from ridotto.rounds.plan import Committee, CommitteeGaussian, DistributedGaussian, Helpers, Ideal, Oneshot, Plan, Risk
from ridotto.simulate.faults import DropOut, Fault, RandomDropOuts
from ridotto.simulate.result import Result
from tests.conformance.world import identity
from tests.simulate.federation import clients, trainer

MEMBERS = 24


def run(protocol: Any, secure_sum: str = "machines", faults: tuple[Fault, ...] = (), **settings: Any) -> Result:
    plan = Plan(**{"cohort": MEMBERS, "minimum": 4, "protocol": protocol, "i_know": tuple(Risk)} | settings)
    return ridotto.simulate(
        trainer(), clients(MEMBERS), plan, rounds=2, seed=3, faults=faults, secure_sum=secure_sum, max_failures=9
    )


@pytest.mark.parametrize(
    "protocol",
    [
        Committee(),
        Committee(shard_size=8),
        Committee(shard_size=8, replicas=1, helpers=Helpers(corrupt=3)),
        Oneshot(shard_size=8, committee=5, helpers=Helpers()),
        Committee(shard_size=8, seal="hybrid"),
    ],
)
def test_equals_ideal_bit_for_bit(protocol: Committee | Oneshot) -> None:
    secure, modelled = run(protocol), run(protocol, "modelled")
    ideal = run(Ideal(), bits=protocol.bits if isinstance(protocol, Oneshot) else 32)
    assert secure.vector.tobytes() == modelled.vector.tobytes() == ideal.vector.tobytes()
    assert [record.participants for record in secure.records] == [MEMBERS] * 2
    assert secure.table["bytes_up"] == modelled.table["bytes_up"]
    assert secure.table["bytes_down"] == modelled.table["bytes_down"]


def test_equals_ideal_with_drop_outs() -> None:
    places = (1, 5, 6, 20)
    faults = tuple(DropOut(place, None, "MaskedVector") for place in places)
    secure, modelled = run(Committee(shard_size=8), faults=faults), run(Committee(shard_size=8), "modelled", faults)
    ideal = run(Ideal(), faults=tuple(DropOut(place, None, "Plain") for place in places))
    assert secure.vector.tobytes() == modelled.vector.tobytes() == ideal.vector.tobytes()
    assert secure.table["lost"] == modelled.table["lost"]


def test_drop_outs_at_random_lose_whom_the_model_says() -> None:
    faults = (RandomDropOuts(0.3, "MaskedVector"),)
    secure, modelled = run(Committee(shard_size=8), faults=faults), run(Committee(shard_size=8), "modelled", faults)
    for one, other in zip(secure.table["lost"], modelled.table["lost"], strict=True):
        assert sorted(one.split(", ")) == sorted(other.split(", "))
    assert secure.vector.tobytes() == modelled.vector.tobytes()


def test_compressed_updates_with_noise_of_their_own_go_through_the_masks() -> None:
    choices: dict[str, Any] = {
        "compress": (ridotto.Rotate(), ridotto.Quantize(bits=16)),
        "clip": 8.0,
        "max_examples": 1,
        "dp": DistributedGaussian(delta=1e-3, noise_multiplier=1.0),
    }
    secure, modelled = run(Committee(shard_size=8), **choices), run(Committee(shard_size=8), "modelled", **choices)
    assert secure.vector.tobytes() == modelled.vector.tobytes()


def test_a_simulation_has_helpers_of_its_own_whoever_a_plan_names() -> None:
    """A simulation has not got their keys; the number of helpers is that of a full committee."""
    keys = {name: identity(name).public.hex() for name in ("north", "south")}
    named, unnamed = run(Committee(helpers=Helpers(keys=keys))), run(Committee())
    assert named.vector.tobytes() == unnamed.vector.tobytes()
    assert named.records == unnamed.records


def test_clients_that_are_called_like_helpers_are_refused() -> None:
    plan = Plan(cohort=6, protocol=Committee(), i_know=tuple(Risk))
    with pytest.raises(ConfigError, match="a client is called helper-2"):
        ridotto.simulate(
            trainer(), clients(6), plan, rounds=1, seed=1, names=[f"helper-{place}" for place in range(2, 8)]
        )


def test_faults_of_seats_are_not_for_participants_where_helpers_serve() -> None:
    with pytest.raises(ConfigError, match="a participant can be struck at Announce, Contribution"):
        run(Oneshot(committee=5, helpers=Helpers()), faults=(DropOut(1, None, "Release"),))


def rest(parameters: Any, data: Any, generator: Any) -> tuple[Any, int, dict[str, float]]:
    """Train nothing."""
    return parameters, 1, {}


def noisy(secure_sum: str, engine: str = "inline", faults: tuple[Fault, ...] = (), rounds: int = 3) -> Result:
    """Run rounds without training, so that the model is the sum of all rounds' noise."""
    plan = Plan(
        cohort=MEMBERS,
        minimum=4,
        protocol=Committee(shard_size=8),
        clip=1.0,
        max_examples=1,
        dp=CommitteeGaussian(noise_multiplier=2.0, delta=1e-3),
        i_know=tuple(Risk),
    )
    nothing = {"w": np.zeros(2000, np.float32)}
    still = FunctionTrainer(nothing, rest, lambda parameters, data: {"loss": 0.0})
    return ridotto.simulate(
        still,
        clients(MEMBERS),
        plan,
        rounds=rounds,
        seed=3,
        secure_sum=secure_sum,
        engine=engine,
        faults=faults,
        max_failures=99,
    )


def steps(result: Result, sessions: int, participants: int) -> float:
    """Return the deviation of a round's mean over what it should be: two slots in every session that was opened."""
    promised = 2.0 * math.sqrt(2 * sessions) / participants * math.sqrt(len(result.records))
    return float(np.sqrt(np.mean(result.vector.astype(np.float64) ** 2))) / promised


def test_committees_noise_is_as_much_with_machines_and_modelled() -> None:
    """2,000 entries: seven standard errors of their deviation are 11 %."""
    for secure_sum in ("machines", "modelled"):
        assert steps(noisy(secure_sum), 3, MEMBERS) == pytest.approx(1, rel=0.11)
    lost = tuple(DropOut(place, None, "MaskedVector") for place in (0, 3, 6, 9, 12))  # session 0 has three left
    failed = noisy("modelled", faults=lost)
    assert failed.table["participants"] == [16] * 3
    assert steps(failed, 2, 16) == pytest.approx(1, rel=0.11)


def test_committees_noise_is_the_same_whatever_the_engine() -> None:
    inline, pool = noisy("modelled"), noisy("modelled", "pool")
    assert inline.vector.tobytes() == pool.vector.tobytes()
    assert np.any(inline.vector)
    assert inline.table["epsilon"] == noisy("machines").table["epsilon"]
