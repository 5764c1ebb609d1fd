"""Tests of fault injection: whatever strikes, a round gives the exact mean of who is in it, or fails with a reason."""

from __future__ import annotations

import math

import numpy as np
import pytest
from msgspec.structs import replace

from ridotto.core.machine import COORDINATOR, Envelope
from ridotto.errors import ConfigError, LocalProtocolError
from ridotto.rounds.messages import Decline
from ridotto.rounds.plan import Committee, Oneshot
from ridotto.secagg.pairwise.coordinator import STEPS
from ridotto.secagg.protocols import PROTOCOLS
from ridotto.simulate.faults import ANNOUNCE, SENT, DropOut, Duplicate, Fault, Garbage, RandomDropOuts, Slow, forge
from ridotto.simulate.result import Result
from ridotto.simulate.simulation import simulate
from tests.simulate.federation import IDEAL, PAIRWISE, clients, mean, trainer

PLANS = {
    "ideal": IDEAL,
    "pairwise": PAIRWISE,
    "oneshot": replace(PAIRWISE, protocol=Oneshot()),
    "committee": replace(PAIRWISE, protocol=Committee()),
}
MOMENTS = [(protocol, kind) for protocol in SENT for kind in (ANNOUNCE, *SENT[protocol])]
SENDINGS = [(protocol, kind) for protocol in SENT for kind in SENT[protocol]]
SEAT = {"MemberKey", "Checked", "Ack", "Release"}
"""Messages of seats on a committee. Whoever falls silent there is not missing in the sum."""
AFTER = {"Consistency", "Unmask", "Checked", "Ack", "Release"}
"""Messages that are sent when the vector is already in the sum."""


def run(protocol: str, *faults: Fault, rounds: int = 1) -> Result:
    return simulate(trainer(), clients(), PLANS[protocol], rounds=rounds, seed=1, faults=faults, max_failures=99)


def included(result: Result) -> list[int]:
    return [int(name.removeprefix("client-")) for name in result.records[0].sessions[0].included]


def check_sum(result: Result, positions: list[int]) -> None:
    assert included(result) == positions
    np.testing.assert_allclose(result.vector, mean(clients(), positions), atol=1e-6)


def test_faults_know_every_protocol_and_its_steps():
    assert set(SENT) == set(PROTOCOLS)
    assert SENT["pairwise"] == tuple(kind.__name__ for kind in STEPS)


@pytest.mark.parametrize(("protocol", "kind"), MOMENTS)
def test_one_drop_out_in_any_phase_leaves_the_exact_mean_of_who_is_included(protocol, kind):
    result = run(protocol, DropOut("client-2", 1, kind))
    check_sum(result, [0, 1, 2, 3, 4, 5] if kind in AFTER else [0, 1, 3, 4, 5])
    assert list(result.records[0].lost) == ([] if kind in SEAT & AFTER else ["client-2"])
    assert result.table["failure"] == [""]


@pytest.mark.parametrize(("protocol", "kind"), MOMENTS)
def test_too_many_drop_outs_in_any_phase_fail_the_round_with_a_reason(protocol, kind):
    result = run(protocol, *(DropOut(client, 1, kind) for client in (0, 1, 2)))
    short = protocol == "oneshot" and kind != "Contribution"
    assert result.table["failure"][0].startswith("COMMITTEE_SHORT: 3 " if short else "TOO_FEW: 3 ")
    assert result.records[0].model == result.records[0].model_before
    assert not result.vector.any()


@pytest.mark.parametrize("kind", [ANNOUNCE, *SENT["pairwise"]])
def test_who_left_is_back_in_the_next_round(kind):
    result = run("pairwise", DropOut(3, 1, kind), rounds=2)
    assert result.table["lost"] == ["client-3", ""]
    assert result.table["participants"][1] == 6


def test_a_drop_out_of_no_particular_round_happens_in_every_round():
    assert run("pairwise", DropOut(3), rounds=3).table["lost"] == ["client-3"] * 3


def test_who_leaves_before_the_round_is_not_trained():
    trained = []
    watched = trainer(lambda parameters, data, generator: trained.append(data[1]) or (parameters, data[1], {"loss": 0}))
    simulate(watched, clients(), PAIRWISE, rounds=1, seed=1, faults=[DropOut(3)], engine="inline")
    assert sorted(trained) == [1, 2, 3, 5, 6]


@pytest.mark.parametrize(("protocol", "kind"), SENDINGS)
def test_garbage_is_refused_by_name_and_the_rest_is_summed(protocol, kind):
    result = run(protocol, Garbage("client-2", 1, kind))
    record = result.records[0]
    assert not record.failure
    if kind == "SealedShares":
        # Nobody but the holders can see that the boxes do not open; the owner stays, and opens its own mask.
        check_sum(result, [0, 1, 2, 3, 4, 5])
        return
    check_sum(result, [0, 1, 2, 3, 4, 5] if kind in AFTER | SEAT else [0, 1, 3, 4, 5])
    assert list(record.lost) == ([] if kind in SEAT else ["client-2"])
    assert result.table["refused"][0].startswith("client-2: ")


@pytest.mark.parametrize(("protocol", "kind"), SENDINGS)
def test_a_duplicate_changes_nothing_but_the_bytes(protocol, kind):
    plain, doubled = run(protocol), run(protocol, Duplicate("client-2", 1, kind))
    assert doubled.digest == plain.digest
    assert doubled.records == plain.records
    assert doubled.table["bytes_up"] > plain.table["bytes_up"]


def test_who_is_slow_but_in_time_takes_part():
    result = run("pairwise", Slow("client-2", PAIRWISE.phase_s - 1))
    check_sum(result, [0, 1, 2, 3, 4, 5])


def test_who_is_too_slow_is_lost_and_its_message_refused_as_late():
    result = run("pairwise", Slow("client-2", PAIRWISE.phase_s + 1))
    # Its keys come within the long time for training; its shares come after the phase has ended.
    check_sum(result, [0, 1, 3, 4, 5])
    assert result.records[0].lost == {"client-2": "sent no SealedShares"}


def test_random_drop_outs_follow_the_seed_and_their_probability():
    fault = RandomDropOuts(0.25, "Masked")
    one, two = run("pairwise", fault, rounds=50), run("pairwise", fault, rounds=50)
    assert one.table["lost"] == two.table["lost"]
    lost = sum(len(record.lost) for record in one.records)
    # 300 draws: mean 75, standard deviation 7.5. The seed is fixed, so this is a check of one number.
    assert 45 < lost < 105


@pytest.mark.parametrize(("probability", "expected"), [(0.0, 0), (1.0, 6)])
def test_random_drop_outs_can_be_nobody_or_everybody(probability, expected):
    assert len(run("pairwise", RandomDropOuts(probability)).records[0].lost) == expected


def test_another_fault_changes_nobody_elses_luck():
    luck = RandomDropOuts(0.2)
    one, two = run("pairwise", luck, rounds=9), run("pairwise", luck, Slow(0, 1.0), rounds=9)
    assert one.table["lost"] == two.table["lost"]


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (DropOut("nobody", 1), "there is no client 'nobody'"),
        (DropOut(6, 1), "there is no client at position 6"),
        (DropOut(0, 1, "Plain"), "names the message 'Plain'; .* Announce, PublicKeys"),
        (Garbage(0, 1, "Announce"), "names the message 'Announce'"),
        (Duplicate(0, 1, "KeyBook"), "names the message 'KeyBook'"),
        (RandomDropOuts(1.5), "the probability of a drop-out is 0 to 1, not 1.5"),
        (RandomDropOuts(math.nan), "not nan"),
        (Slow(0, -1.0), "at least 0, not -1.0"),
        (Slow(0, math.inf), "not inf"),
        ("DropOut", "not str"),
    ],
)
def test_refuses_faults_that_can_not_happen(fault, why):
    with pytest.raises(ConfigError, match=why):
        run("pairwise", fault)


def test_no_garbage_is_known_for_other_messages():
    with pytest.raises(LocalProtocolError, match="Decline"):
        forge(Envelope("client-0", COORDINATOR, Decline(bytes(32), "no"), None, 0.0))
