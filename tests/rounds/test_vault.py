"""The vault: sums that are exact, a model that changes only when everything held, bytes from liars."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ridotto.core.packing import pack, packed_size
from ridotto.core.rng import insecure_seeded_rng
from ridotto.core.sparse_packing import pack_shorter
from ridotto.core.tensors import read_model
from ridotto.core.wire import digest
from ridotto.crypto.prg import Mask, add_masks
from ridotto.errors import ConfigError, DataError
from ridotto.learn.algorithms import Report
from ridotto.learn.trainer import LocalResult
from ridotto.rounds.compression import TopK
from ridotto.rounds.dice import SeededDice
from ridotto.rounds.kept import KeptInMemory
from ridotto.rounds.messages import Apply, Discard, Merge
from ridotto.rounds.plan import Algorithm, Committee, Ideal, Optimiser, Plan, Risk
from ridotto.rounds.totals import TOTAL
from ridotto.rounds.vault import Vault
from ridotto.secagg.tasks import Open
from tests.rounds.federation import LAYOUT, examples_of, loss_of, make_plan, mean_of, update_of

SID, OTHER = b"s" * 32, b"t" * 32


def make_vault(plan: Plan | None = None) -> Vault:
    return Vault(plan or make_plan(), LAYOUT, np.zeros(LAYOUT.length, np.float32))


def vector_of(vault: Vault, index: int) -> np.ndarray:
    rng = insecure_seeded_rng(index)
    return vault.pipeline.encode(update_of(index), examples_of(index), {"loss": loss_of(index)}, SeededDice(rng))


def fold(vault: Vault, sid: bytes, *indices: int) -> None:
    for index in indices:
        vault.fold(sid, pack(vector_of(vault, index), vault.plan.bits))


def test_folds_opens_and_applies_two_sessions() -> None:
    vault = make_vault()
    fold(vault, SID, 0, 1)
    fold(vault, OTHER, 2)
    opened = vault.open(Open(SID, ()))
    assert (opened.sid, opened.count, opened.zero) == (SID, 2, True)
    applied = vault.apply(Apply(1, (SID, OTHER)))
    assert (applied.participants, applied.examples, applied.saturated) == (3, 60, 0)
    np.testing.assert_allclose(vault.model, mean_of([0, 1, 2]), atol=1e-5)
    assert applied.model == vault.model_digest == digest(vault.model_bytes)
    np.testing.assert_array_equal(read_model(vault.model_bytes)[0], vault.model)
    assert not vault.sums


def test_memory_is_one_sum_per_session() -> None:
    vault = make_vault()
    fold(vault, SID, *range(5))
    assert set(vault.sums) == {SID}
    assert vault.sums[SID].shape == (vault.pipeline.length,)


def test_opened_sums_go_up_and_are_forgotten() -> None:
    apart, merged = make_vault(), make_vault()
    for vault in (apart, merged):
        fold(vault, SID, 0, 1)
        fold(vault, OTHER, 2)
    for sid, contributions, left in ((SID, 2, {TOTAL, OTHER}), (OTHER, 1, {TOTAL})):
        merged.open(Open(sid, ()))
        merged.close(Merge(sid, contributions))
        assert set(merged.sums) == left
    assert merged.merged == 3
    assert merged.apply(Apply(1, (TOTAL,))) == apart.apply(Apply(1, (SID, OTHER)))
    assert merged.model_bytes == apart.model_bytes
    assert not merged.sums


def test_memory_is_one_sum_and_the_total_however_many_sessions_there_are() -> None:
    vault = make_vault(make_plan(100))
    for session in range(20):
        sid = bytes([session]) * 32
        fold(vault, sid, 0, 1)
        assert len(vault.sums) <= 2
        vault.open(Open(sid, ()))
        vault.close(Merge(sid, 2))
    assert set(vault.sums) == {TOTAL}
    assert vault.merged == 40


def test_the_sum_of_a_session_that_failed_is_forgotten_with_what_was_kept_of_it() -> None:
    kept = KeptInMemory()
    plan = make_plan(protocol=Committee(corrupt=0.0))
    vault = Vault(plan, LAYOUT, np.zeros(LAYOUT.length, np.float32), kept=kept)
    vault.fold(SID, pack(vector_of(vault, 0), plan.bits), "p000")
    assert kept.kept(SID, "p000") is not None
    vault.close(Discard(SID))
    vault.close(Discard(OTHER))  # of which nothing has come
    assert not vault.sums
    assert kept.kept(SID, "p000") is None
    assert vault.merged == 0


def test_opening_removes_the_masks() -> None:
    vault = make_vault()
    masks = (Mask(b"a" * 32, 1), Mask(b"b" * 32, -1))
    vector = vector_of(vault, 3)
    add_masks(vector, [Mask(mask.seed, -mask.sign) for mask in masks], SID)
    vault.fold(SID, pack(vector, vault.plan.bits))
    assert not vault.open(Open(SID, ())).zero
    assert vault.open(Open(SID, masks)).zero
    np.testing.assert_array_equal(vault.sums[SID], vector_of(vault, 3))


def test_a_sparse_vector_is_folded_as_the_dense_one_is() -> None:
    plan = make_plan(protocol=Ideal(), compress=(TopK(0.3),), i_know=(Risk.NO_PROTECTION, Risk.SMALL_COHORT))
    sparse, dense = make_vault(plan), make_vault(plan)
    for index in range(3):
        vector = sparse.pipeline.encode(
            update_of(index), 10, {"loss": 0.5}, SeededDice(insecure_seeded_rng(index)), seed=bytes(32)
        )
        data = pack_shorter(vector, plan.bits)
        assert len(data) < packed_size(len(vector), plan.bits)
        sparse.fold(SID, data)
        dense.fold(SID, pack(vector, plan.bits))
    np.testing.assert_array_equal(sparse.sums[SID], dense.sums[SID])


@pytest.mark.parametrize("data", [b"", b"\x01", b"\xff" * 20, bytes(8)])
def test_a_short_vector_that_is_no_sparse_form_counts_as_missing(data: bytes) -> None:
    """Its message was accepted, so the count lane must say that nothing came, whatever the bytes are."""
    vault = make_vault()
    fold(vault, SID, 0, 1)
    vault.fold(SID, data)
    assert vault.open(Open(SID, ())).count == 2


def test_a_wild_count_lane_fits_its_message() -> None:
    vault = make_vault(make_plan(bits=64))
    vector = vector_of(vault, 0)
    vector[LAYOUT.length] = np.uint64(2**64 - 1)
    vault.fold(SID, pack(vector, 64))
    assert vault.open(Open(SID, ())).count == 2**48


@pytest.mark.parametrize("bits", [11, 13, 19, 31])
def test_bits_in_the_padding_change_nothing(bits: int) -> None:
    """The machine accepted this message by its length; refusing its bytes now would stop the coordinator."""
    vault = make_vault(make_plan(bits=bits, value_range=1.0))
    packed = bytearray(pack(vector_of(vault, 0), bits))
    assert vault.pipeline.length * bits % 8
    packed[-1] |= 0x80
    vault.fold(SID, memoryview(bytes(packed)))
    np.testing.assert_array_equal(vault.sums[SID], vector_of(vault, 0))


def test_sums_that_make_no_model_change_nothing() -> None:
    """FedAvgM has a state; an update that overflows leaves state, model and bytes as they were."""
    plan = make_plan(optimiser=Optimiser(name="fedavgm", parameters={"learning_rate": 1e300}))
    vault = make_vault(plan)
    before = (vault.model_bytes, vault.state["momentum"].tobytes())
    fold(vault, SID, 0, 1)
    with np.errstate(over="ignore", invalid="ignore"), pytest.raises(DataError, match="NaN or infinite"):
        vault.apply(Apply(1, (SID,)))
    assert (vault.model_bytes, vault.state["momentum"].tobytes()) == before
    assert not vault.model.any()


def test_a_weight_of_zero_makes_no_model() -> None:
    vault = make_vault()
    vector = vector_of(vault, 0)
    vector[LAYOUT.length + vault.pipeline.lanes.zeros + 1] = 0
    vault.fold(SID, pack(vector, vault.plan.bits))
    with pytest.raises(DataError, match="the summed weight is 0"):
        vault.apply(Apply(1, (SID,)))


@pytest.mark.parametrize("lane", [1, 2, 3])
def test_a_lane_that_honest_participants_can_not_sum_to_makes_no_model(lane: int) -> None:
    """Weight, entries cut off, metric: a liar wrote what the ring holds at most. It is not passed on as a result."""
    vault = make_vault(make_plan(bits=64))
    fold(vault, SID, 0, 1)
    vault.sums[SID][LAYOUT.length + vault.pipeline.lanes.zeros + lane] = np.uint64(2**64 - 1)
    with pytest.raises(DataError, match="a lane sums to 18446744073709551615"):
        vault.apply(Apply(1, (SID,)))
    assert not vault.model.any()


def test_refuses_a_model_that_is_not_finite_or_does_not_fit() -> None:
    with pytest.raises(DataError, match="parameter 'weight' has 4 of 4 elements that are NaN or infinite"):
        Vault(make_plan(), LAYOUT, np.array([np.nan] * 4 + [0], np.float32))
    with pytest.raises(DataError, match=r"expected float32 of shape \(5,\)"):
        Vault(make_plan(), LAYOUT, np.zeros(4, np.float32))


def test_starts_from_a_stored_state() -> None:
    plan = make_plan(optimiser=Optimiser(name="fedavgm"))
    state = {"momentum": np.ones(5, np.float32)}
    vault = Vault(plan, LAYOUT, np.zeros(5, np.float32), state)
    assert vault.state is state
    fold(vault, SID, 0)
    vault.apply(Apply(1, (SID,)))
    np.testing.assert_allclose(vault.model, mean_of([0]) + 0.9, atol=1e-4)


# --- algorithms -------------------------------------------------------------------------------------------------------


def make_scaffold(population: int = 4, **changes: Any) -> Vault:
    plan = make_plan(algorithm=Algorithm(name="scaffold"), max_examples=1, metrics={}, **changes)
    return Vault(plan, LAYOUT, np.zeros(LAYOUT.length, np.float32), population=population)


def scaffold_report(vault: Vault, index: int) -> Report:
    # Two steps of size 0.5 from x = 0 to the update u: delta c = -c - u / (2 * 0.5) = -c - u.
    result = LocalResult(vault.model + update_of(index), examples_of(index), {}, steps=2)
    return vault.algorithm.report(vault.algorithm_state, None, vault.model, result, 0.5)


def fold_reports(vault: Vault, *indices: int) -> None:
    for index in indices:
        vector = vault.pipeline.encode(
            scaffold_report(vault, index).vector, 1, {}, SeededDice(insecure_seeded_rng(index))
        )
        vault.fold(SID, pack(vector, vault.plan.bits))


def test_scaffolds_two_vectors_pass_through_one_sum() -> None:
    """Two of four take part, so c moves by half of the mean: within one step of the encoding of the float result."""
    vault = make_scaffold()
    assert vault.pipeline.parameters == 2 * LAYOUT.length
    fold_reports(vault, 0, 1)
    step = 2.0**-vault.pipeline.encoding.fixed.fraction_bits
    vault.apply(Apply(1, (SID,)))
    mean = (update_of(0) + update_of(1)) / 2
    np.testing.assert_allclose(vault.model, mean, atol=step, rtol=0)
    np.testing.assert_allclose(vault.algorithm_state["control"], -mean / 2, atol=step, rtol=0)
    # The next reports take the new control into account: -c - u.
    np.testing.assert_allclose(scaffold_report(vault, 2).vector[5:], mean / 2 - update_of(2), atol=step, rtol=0)


def test_the_state_of_algorithm_and_strategy_is_one_mapping_that_a_driver_can_store() -> None:
    vault = make_scaffold(optimiser=Optimiser(name="fedavgm"))
    assert set(vault.state) == {"momentum", "algorithm.control"}
    fold_reports(vault, 0, 1)
    vault.apply(Apply(1, (SID,)))
    assert set(vault.state) == {"momentum", "algorithm.control"}
    again = Vault(vault.plan, LAYOUT, vault.model, dict(vault.state), population=4)
    for each in (vault, again):
        fold_reports(each, 2, 3)
        each.apply(Apply(2, (SID,)))
    assert again.model_bytes == vault.model_bytes
    np.testing.assert_array_equal(again.state["algorithm.control"], vault.state["algorithm.control"])


def test_a_total_that_was_added_up_elsewhere_makes_the_same_model() -> None:
    folded, summed = make_scaffold(), make_scaffold()
    fold_reports(folded, 0, 1, 2)
    total = folded.sums[SID].copy()
    assert summed.apply_totals({SID: total}, 1, b"") == folded.apply(Apply(1, (SID,)))
    assert summed.model_bytes == folded.model_bytes


def test_fednovas_steps_come_out_of_the_sum() -> None:
    """Directions u_i with weights 10 and 20, 1 and 2 steps: tau_eff = (10 + 40) / 30 times the mean direction."""
    plan = make_plan(algorithm=Algorithm(name="fednova"), metrics={"local_steps": 8.0})
    vault = make_vault(plan)
    for index in (0, 1):
        result = LocalResult((index + 1) * update_of(index), examples_of(index), {}, steps=index + 1)
        report = vault.algorithm.report({}, None, vault.model, result, 0.5)
        vector = vault.pipeline.encode(
            report.vector, result.examples, report.metrics, SeededDice(insecure_seeded_rng(index))
        )
        vault.fold(SID, pack(vector, plan.bits))
    applied = vault.apply(Apply(1, (SID,)))
    assert applied.metrics["local_steps"] == pytest.approx(5 / 3, abs=1e-4)
    np.testing.assert_allclose(vault.model, 5 / 3 * mean_of([0, 1]), atol=1e-4)


def test_an_algorithm_that_diverges_changes_nothing() -> None:
    vault = make_scaffold(optimiser=Optimiser(name="fedavg", parameters={"learning_rate": 1e300}))
    before = (vault.model_bytes, vault.state["algorithm.control"].tobytes())
    fold_reports(vault, 0, 1)
    with pytest.raises(DataError, match="NaN or infinite"):
        vault.apply(Apply(1, (SID,)))
    assert (vault.model_bytes, vault.state["algorithm.control"].tobytes()) == before


def test_refuses_clients_with_a_state_where_nobody_knows_how_many_there_are() -> None:
    with pytest.raises(ConfigError, match="scaffold needs to know how many could take part; found 0"):
        make_scaffold(population=0)
