"""Hold the model of costs to the machines: who is in the sum, why it failed, every byte, every second of waiting."""

from __future__ import annotations

from time import perf_counter

import msgspec
import numpy as np
import pytest

import ridotto
from ridotto.core.tensors import write_model
from ridotto.errors import ConfigError, RoundFailedError
from ridotto.rounds.plan import Committee, Helpers, Ideal, Oneshot, Pairwise, Plan, Risk
from ridotto.simulate.costs import UNIT_COSTS, ModelledRound, modelled_round, stages
from ridotto.simulate.faults import ANNOUNCE, SENT, DropOut, sent_in
from ridotto.simulate.message_sizes import index_excess
from tests.simulate.federation import clients, trainer

PROTOCOLS = {
    "ideal": Ideal(),
    "one session": Pairwise(),
    "shards": Pairwise(shard_size=8),
    "oneshot": Oneshot(),
    "oneshot shards": Oneshot(shard_size=8),
    "oneshot of helpers": Oneshot(shard_size=8, committee=7, helpers=Helpers()),
    "committee": Committee(),
    "committee shards": Committee(shard_size=8, helpers=Helpers(corrupt=2), replicas=2),
    "oneshot hybrid": Oneshot(shard_size=8, seal="hybrid"),
    "oneshot of helpers, hybrid": Oneshot(committee=7, helpers=Helpers(), seal="hybrid"),
    "committee hybrid": Committee(shard_size=8, seal="hybrid"),
    "sparse": Pairwise(graph="sparse", corrupt=0.02, drop_out=0.02),
}

DENSE = [name for name in PROTOCOLS if name != "sparse"]


def make_plan(protocol: str, members: int) -> Plan:
    known = (Risk.SMALL_COHORT, Risk.NO_PROTECTION, Risk.SPARSE_GRAPH)
    chosen = PROTOCOLS[protocol]
    bounds = {"loss": 64.0}
    return Plan(cohort=members, minimum=4, protocol=chosen, i_know=known, max_examples=members, metrics=bounds)


def kinds(plan: Plan) -> tuple[str, ...]:
    return (ANNOUNCE, *sent_in(plan))


def names_of(members: int) -> list[str]:
    return [f"client-{rank:0{len(str(members - 1))}}" for rank in range(members)]


def modelled(plan: Plan, members: int, gone: dict[int, str], seed: int = 0) -> ModelledRound:
    names = names_of(members)
    return modelled_round(plan, 3, members, gone, name_bytes=len(names[0]), name_of=names.__getitem__, seed=seed)


def check_against_machines(plan: Plan, members: int, gone: dict[int, str]) -> None:
    faults = [DropOut(rank, 1, kind) for rank, kind in gone.items()]
    result = ridotto.simulate(trainer(), clients(members), plan, rounds=1, seed=1, faults=faults, max_failures=9)
    record, names, model = result.records[0], names_of(members), modelled(plan, members, gone)
    opened = [name for session in record.sessions if not session.failure for name in session.included]
    assert sorted(opened) == [names[rank] for rank in np.flatnonzero(model.included)]
    assert record.failure == model.failure
    assert record.lost == {names[rank]: why for rank, why in model.lost.items()}
    failures = {session.shard: session.failure for session in record.sessions if session.failure}
    assert failures == model.session_failures
    assert record.finished - record.started == model.waited_s
    row, downloads = result.table.rows[0], model.trained * len(write_model(result.vector, result.layout))
    assert row["bytes_up"] == round(model.bytes_up / members)
    assert row["bytes_down"] == round((model.bytes_down + downloads) / members)


@pytest.mark.parametrize("protocol", DENSE)
@pytest.mark.parametrize("members", [6, 17])
def test_equals_the_machines_whoever_leaves_before_whichever_message(protocol, members):
    plan = make_plan(protocol, members)
    for kind in kinds(plan):
        for count in (1, 3, 5):
            check_against_machines(plan, members, dict.fromkeys(range(count), kind))


@pytest.mark.parametrize("protocol", DENSE)
def test_equals_the_machines_when_members_leave_in_all_phases(protocol):
    plan = make_plan(protocol, 19)
    order = kinds(plan)
    for count in (0, 4, 7, 12, 19):
        check_against_machines(plan, 19, {rank: order[rank % len(order)] for rank in range(count)})


@pytest.mark.parametrize("kind", [ANNOUNCE, *SENT["pairwise"]])
def test_equals_the_machines_on_a_sparse_graph(kind):
    """Model and machines draw different graphs; with 3 of 4 neighbours needed, who leaves costs nobody else a thing."""
    plan = make_plan("sparse", 30)
    assert plan.sparse(30) == (4, 3)
    check_against_machines(plan, 30, {7: kind})


def test_many_drop_outs_turn_a_sparse_graph_into_a_complete_one():
    check_against_machines(make_plan("sparse", 30), 30, dict.fromkeys(range(25), "PublicKeys"))


@pytest.mark.slow
def test_counts_the_bytes_of_large_indices():
    """From member 128 on an index takes a byte more. Which neighbours it has differs, so the totals do by a trifle."""
    plan = make_plan("sparse", 140)
    result = ridotto.simulate(trainer(), clients(140), plan, rounds=1, seed=1, faults=[DropOut(3, 1, "Masked")])
    row, model = result.table.rows[0], modelled(plan, 140, {3: "Masked"})
    downloads = model.trained * len(write_model(result.vector, result.layout))
    assert row["bytes_up"] == pytest.approx(model.bytes_up / 140, rel=1e-3)
    assert row["bytes_down"] == pytest.approx((model.bytes_down + downloads) / 140, rel=1e-3)


def test_equals_the_machines_with_a_small_committee():
    """Model and machines draw other seats; while nobody leaves, that shows nowhere."""
    plan = Plan(cohort=30, minimum=5, protocol=Oneshot(committee=9), max_examples=30, metrics={"loss": 64.0})
    check_against_machines(plan, 30, {})


@pytest.mark.slow
def test_counts_the_bytes_of_large_indices_of_seats():
    plan = Plan(cohort=131, minimum=90, protocol=Oneshot(committee=140), max_examples=131, metrics={"loss": 64.0})
    check_against_machines(plan, 131, {3: "Contribution", 130: "MemberKey"})


def test_members_whose_neighbours_left_are_lost_with_them():
    plan = make_plan("sparse", 30)
    gone = dict.fromkeys(range(10), "SealedShares")
    lost = [list(modelled(plan, 30, gone, seed).lost.values()) for seed in range(20)]
    assert all(reasons.count("sent no SealedShares") == 10 for reasons in lost)
    # Somebody has two of its four neighbours among the ten.
    assert any("sent no Masked" in reasons for reasons in lost)


def test_a_secret_that_nobody_can_open_is_named():
    """15 of 30 leave before the last step; in the graph of seed 0 some member's neighbours are among them."""
    model = modelled(make_plan("sparse", 30), 30, dict.fromkeys(range(15), "Unmask"))
    assert model.failure.startswith("TOO_FEW: ")
    assert " shares of client-" in model.failure
    assert model.failure.endswith("'s seed, 3 are needed; 0 could not open theirs")
    assert not model.included.any()


def test_shows_no_update_of_a_session_that_failed():
    plan = make_plan("shards", 16)
    model = modelled(plan, 16, dict.fromkeys(range(0, 10, 2), "Masked"))
    assert list(model.session_failures) == [0]
    assert model.failure == ""
    assert list(np.flatnonzero(model.included)) == list(range(1, 16, 2))


def test_refuses_too_few_members_as_the_machines_do():
    with pytest.raises(RoundFailedError, match="3 participants are there, a session needs 4"):
        modelled(make_plan("one session", 6), 3, {})


def test_refuses_ranks_and_messages_that_are_none():
    plan = make_plan("ideal", 6)
    with pytest.raises(ConfigError, match="ranks are 0 to 5"):
        stages(plan, 6, {6: "Plain"})
    with pytest.raises(ConfigError, match="'Masked'"):
        stages(plan, 6, {1: "Masked"})


def test_indices_take_what_messagepack_says():
    indices = np.array([0, 127, 128, 255, 256, 9999, 65535, 65536])
    assert [1 + extra for extra in index_excess(indices)] == [len(msgspec.msgpack.encode(int(i))) for i in indices]


@pytest.mark.parametrize(
    ("members", "parameters", "measured_s"),
    [(10, 1_000_000, 0.26), (100, 100_000, 3.0), (100, 1_000_000, 7.68), (1000, 10_000, 33.6)],
)
def test_seconds_are_those_of_the_benchmark(members, parameters, measured_s):
    """docs/benchmarks.md, whole rounds of all parties together: within a fifth."""
    model = modelled_round(Plan(cohort=members, protocol=Pairwise()), parameters, members, {}, name_bytes=6)
    assert model.coordinator_cpu_s + model.participant_cpu_s == pytest.approx(measured_s, rel=0.2)


def test_a_slower_processor_takes_longer_and_sends_the_same():
    plan = Plan(cohort=20)
    fast, slow = (modelled_round(plan, 100, 20, {}, units=UNIT_COSTS.scaled(factor)) for factor in (1.0, 3.0))
    assert slow.participant_cpu_s == pytest.approx(3 * fast.participant_cpu_s)
    assert slow.bytes_up == fast.bytes_up


def test_masks_of_lost_members_are_work_for_the_coordinator():
    plan = Plan(cohort=100)
    whole = modelled_round(plan, 1_000_000, 100, {})
    torn = modelled_round(plan, 1_000_000, 100, dict.fromkeys(range(5), "Masked"))
    # 5 lost with 95 masks each, and 95 seeds instead of 100: 470 masks more, of 0.355 ms.
    assert torn.coordinator_cpu_s - whole.coordinator_cpu_s == pytest.approx(470 * 0.355e-3, rel=0.5)


@pytest.mark.parametrize("protocol", [Ideal(), Pairwise(), Oneshot(), Committee()])
def test_a_hundred_thousand_members_take_no_time(protocol):
    plan = Plan(cohort=100_000, protocol=protocol, i_know=(Risk.NO_PROTECTION,))
    gone = np.random.default_rng(1).integers(0, len(kinds(plan)) + 1, 100_000).astype(np.int8)
    gone[::2] = len(kinds(plan))
    began = perf_counter()
    model = modelled_round(plan, 1000, 100_000, gone)
    assert perf_counter() - began < 5.0
    assert model.bytes_up > 0
