"""Rounded models: the server goes on with what participants can rebuild, and loses nothing in the long run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ridotto.core.packing import pack
from ridotto.core.rng import insecure_seeded_rng
from ridotto.core.vector import Vector
from ridotto.errors import DataError, PlanError
from ridotto.learn.compress.delta import apply_delta, delta_size
from ridotto.rounds.dice import SeededDice
from ridotto.rounds.downloads import LOST_STATE, most_deltas
from ridotto.rounds.messages import Apply
from ridotto.rounds.plan import Algorithm, Optimiser, Plan
from ridotto.rounds.vault import Vault
from tests.rounds.federation import LAYOUT, make_plan, update_of

SID = b"s" * 32


def make_vault(plan: Plan, model: Vector | None = None, state: Any = None) -> Vault:
    return Vault(plan, LAYOUT, np.zeros(LAYOUT.length, np.float32) if model is None else model, state)


def run(vault: Vault, number: int) -> None:
    for index in range(3):
        rng = insecure_seeded_rng(100 * number + index)
        update = update_of(index) * np.float32(0.1 * number)
        vault.fold(SID, pack(vault.pipeline.encode(update, 10, {"loss": 0.5}, SeededDice(rng)), vault.plan.bits))
    vault.apply(Apply(number, (SID,)))


@pytest.mark.parametrize("bits", [2, 4, 16])
def test_participants_rebuild_every_model_bit_for_bit(bits: int) -> None:
    vault = make_vault(make_plan(download_bits=bits))
    held = vault.model
    for number in range(1, 6):
        run(vault, number)
        assert vault.delta is not None
        held = apply_delta(held, vault.delta)
        assert held.tobytes() == vault.model.tobytes()


def test_what_rounding_lost_comes_later() -> None:
    """Model and what was lost are together where the unrounded model is, up to float32."""
    rough, exact = make_vault(make_plan(download_bits=2)), make_vault(make_plan())
    for number in range(1, 8):
        run(rough, number)
        run(exact, number)
        np.testing.assert_allclose(rough.model + rough.state[LOST_STATE], exact.model, atol=1e-5)
    assert not np.allclose(rough.model, exact.model, atol=1e-3)
    assert exact.delta is None
    assert LOST_STATE not in exact.state


def test_goes_on_from_its_state_with_the_same_bits() -> None:
    plan = make_plan(download_bits=3, optimiser=Optimiser(name="fedavgm", parameters={"momentum": 0.5}))
    whole, first = make_vault(plan), make_vault(plan)
    for number in (1, 2):
        run(whole, number)
        run(first, number)
    second = make_vault(plan, first.model, first.state)
    run(whole, 3)
    run(second, 3)
    assert second.model_bytes == whole.model_bytes
    assert second.delta == whole.delta


def test_a_model_that_overflows_is_refused_by_name_and_changes_nothing() -> None:
    vault = make_vault(make_plan(download_bits=4, optimiser=Optimiser(parameters={"learning_rate": 1e39})))
    before = vault.model_bytes
    with pytest.raises(DataError, match="weight"):
        run(vault, 1)
    assert (vault.model_bytes, vault.delta, LOST_STATE in vault.state) == (before, None, False)


def test_so_many_deltas_are_shorter_than_the_model() -> None:
    size = delta_size(1_000_000, 4)
    assert most_deltas(4_000_200, 1_000_000, 4) == 7
    assert 7 * size < 4_000_200 <= 8 * size
    assert most_deltas(4_000_200, 1_000_000, None) == 0
    assert most_deltas(2 * size, 1_000_000, 4) == 1


@pytest.mark.parametrize("bits", [1, 17, True])
def test_refuses_bits_out_of_range(bits: int) -> None:
    with pytest.raises(PlanError, match="download_bits: bits must be a whole number from 2 to 16"):
        make_plan(download_bits=bits)
    assert make_plan(download_bits=4.0).fingerprint() == make_plan(download_bits=4).fingerprint()


@pytest.mark.parametrize("name", ["scaffold", "feddyn"])
def test_refuses_algorithms_that_send_a_vector_of_their_own(name: str) -> None:
    parameters = {"alpha": 0.1} if name == "feddyn" else {}
    with pytest.raises(PlanError, match=f"{name} sends participants a vector of its own"):
        make_plan(download_bits=4, algorithm=Algorithm(name=name, parameters=parameters))
