"""Tests of plans with `oneshot`: what is refused and why, sessions and their committees, what people read."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest

from ridotto.core.machine import Envelope
from ridotto.errors import ConsentError, PlanError
from ridotto.rounds.compression import Quantize, Rotate
from ridotto.rounds.messages import Announce
from ridotto.rounds.plan import Committee, Oneshot, Plan, Risk
from ridotto.rounds.policy import Policy
from ridotto.rounds.protocol_settings import parcels_bytes, seal_of
from ridotto.rounds.sessions import Attempt, make_sessions
from ridotto.secagg.committee_roles.drawn import drawn_roster, seat_of_device
from ridotto.secagg.committee_roles.seals import SEALS
from ridotto.secagg.session import CommitteeSession, session_id
from tests.conformance.world import identity
from tests.rounds.federation import Federation, assert_mean, make_plan, members_of, names


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"protocol": Oneshot(committee=48), "cohort": 1000}, r"C = 48 in which t = 50 .*t \+ rho = 50 members"),
        ({"protocol": Oneshot(corrupt=0.2), "cohort": 1000}, r"C = 128 in which t = 200"),
        ({"protocol": Oneshot(), "cohort": 40, "minimum": 3}, r"minimum >= corrupt \+ 2 = 4"),
        ({"protocol": Oneshot(), "bits": 24}, 'bits = 24, and pack = "3x28" means sums of 28 bits'),
        ({"protocol": Oneshot(pack="4x21"), "cohort": 1_000_000}, "21 bits leave no room: 1000000 participants"),
        ({"protocol": Oneshot(), "clip": 1.0, "compress": (Rotate(), Quantize(bits=16))}, "Quantize lets a sum wrap"),
    ],
)
def test_refuses_what_can_not_work(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(PlanError, match=why):
        Plan(**({"cohort": 20, "i_know": tuple(Risk)} | settings))


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"corrupt": 0.5}, "below 0.5, not 0.5"),
        ({"committee": 2}, "3 to 1024 seats, not 2"),
        ({"shard_size": 1025}, "3 to 1024, not 1025"),
        ({"pack": "5x16"}, "one of 4x21, 3x28, 2x42, not '5x16'"),
        ({"seal": "kyber"}, "seal is one of x25519, hybrid, not 'kyber'"),
    ],
)
def test_refuses_settings_out_of_range(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(PlanError, match=why):
        Oneshot(**settings)


@pytest.mark.parametrize("protocol", [Oneshot, Committee])
def test_the_plan_decides_the_seal(protocol: Any) -> None:
    for seal in SEALS:
        plan = Plan(cohort=20, protocol=protocol(seal=seal))
        assert msgspec.msgpack.decode(plan.encode(), type=Plan) == plan
        helpers = members_of(f"h{place}" for place in range(plan.most_helpers))
        [session] = make_sessions(Attempt(plan, 1, 1, b"m" * 32, 10, b"n" * 32, members_of(names(20)), helpers=helpers))
        assert isinstance(session, CommitteeSession)
        assert (seal_of(plan), session.seal) == (seal, seal)
    assert seal_of(Plan(cohort=20)) == "x25519"
    with pytest.raises(PlanError, match="seal is one of x25519, hybrid, not 'both'"):
        protocol(seal="both")


@pytest.mark.parametrize("protocol", [Oneshot, Committee])
def test_parcels_are_as_long_as_the_coordinator_allows_for(protocol: Any) -> None:
    plain, hybrid = (Plan(cohort=20, protocol=protocol(seal=seal)) for seal in SEALS)
    assert parcels_bytes(hybrid) - parcels_bytes(plain) == 1088 * plain.seats(20)


@pytest.mark.parametrize(("pack", "bits"), [("4x21", 21), ("3x28", 28), ("2x42", 42)])
def test_the_packing_decides_the_bits_of_a_sum(pack: str, bits: int) -> None:
    plan = Plan(cohort=20, protocol=Oneshot(pack=pack))
    assert plan.bits == bits
    assert msgspec.msgpack.decode(plan.encode(), type=Plan) == plan


@pytest.mark.parametrize(
    ("members", "seats", "spare"), [(4, 4, 1), (10, 10, 4), (100, 100, 47), (128, 128, 60), (1024, 128, 37)]
)
def test_small_sessions_are_their_own_committees(members: int, seats: int, spare: int) -> None:
    """For 1,024: t = 52, rho = (128 - 52) / 2 + 1 = 39, so 91 must stay."""
    protocol = Oneshot()
    assert (protocol.seats(members), protocol.spare(members)) == (seats, spare)


def test_sessions_have_committees_drawn_from_their_own_members() -> None:
    plan = Plan(cohort=40, protocol=Oneshot(committee=7, shard_size=20))
    sessions = make_sessions(Attempt(plan, 1, 1, b"m" * 32, 10, b"n" * 32, members_of(names(40))))
    again = make_sessions(Attempt(plan, 1, 1, b"m" * 32, 10, b"o" * 32, members_of(names(40))))
    for session, other in zip(sessions, again, strict=True):
        assert isinstance(session, CommitteeSession)
        assert isinstance(other, CommitteeSession)
        roster = drawn_roster(session)
        assert len(roster.members) == 7
        assert {seat.name for seat in roster.members} < {f"{member.name}/member" for member in session.members}
        assert sum(seat_of_device(session, member.name) is not None for member in session.members) == 7
        assert roster.members != drawn_roster(other).members


def test_a_participant_refuses_another_committee_than_the_plans() -> None:
    """A committee of one's own choice, or lanes that are none, would be another session; nobody trains for it."""

    def tamper(envelope: Envelope) -> list[Envelope]:
        message = envelope.message
        if not isinstance(message, Announce) or envelope.to not in lies:
            return [envelope]
        lie = msgspec.structs.replace(message.session, **lies[envelope.to])
        signature = coordinator.sign("announce", session_id(lie))
        lying = msgspec.structs.replace(message, session=lie, signature=signature)
        return [dataclasses.replace(envelope, message=lying)]

    coordinator = identity("coordinator")
    lies = {"p001": {"committee": 4}, "p002": {"tail": 1}}
    federation = Federation(make_plan(9, protocol="oneshot", minimum=4), tamper=tamper)
    federation.run()
    refused = {at: refusal.why for at, refusal in reversed(federation.router.refusals)}
    assert "parameters are not the plan's" in refused["p001"]
    assert "1 lanes, not" in refused["p002"]
    assert_mean(federation, [0, 3, 4, 5, 6, 7, 8])


def test_who_declines_leaves_its_seat_too() -> None:
    federation = Federation(make_plan(7, protocol="oneshot", minimum=4), untrained={"p002": "no data"})
    finish = federation.run()
    assert finish.error is None
    assert finish.result.lost == {"p002": "declined: no data"}
    assert finish.result.finished == 10.0  # its seat is waited for once, when parcels are checked
    assert_mean(federation, [0, 1, 3, 4, 5, 6])


def test_a_committee_that_is_short_fails_its_session_and_blames_nobody() -> None:
    federation = Federation(
        make_plan(7, protocol="oneshot", minimum=4),
        tamper=lambda e: [] if e.sender in ("p000", "p001", "p002", "p003") and seat_only(e) else [e],
    )
    finish = federation.run()
    assert str(finish.error).startswith("ROUND_FAILED: COMMITTEE_SHORT: 3 sent Checked, 5 are needed")
    assert finish.result.blamed == ()


def seat_only(envelope: Envelope) -> bool:
    return type(envelope.message).__name__ == "Checked"


def test_people_read_who_must_be_honest_and_who_may_leave() -> None:
    words = Plan(cohort=5000, protocol=Oneshot()).protection()
    assert "sums of at least 667 updates, even if it lies and 50 of 1000 participants help it" in words
    assert "A participant sends one message and may leave; 128 of 1000, drawn by lot" in words
    assert "A session survives if 667 send their message and 90 of the 128 stay to the end." in words
    with pytest.raises(PlanError, match="can hold only 2 honest ones"):
        Plan(cohort=5, minimum=3, protocol=Oneshot())


def test_a_policy_counts_who_may_be_corrupt() -> None:
    plan = Plan(cohort=40, protocol=Oneshot(corrupt=0.05))
    session = make_sessions(Attempt(plan, 1, 1, b"m" * 32, 5, b"n" * 32, members_of(names(40))))[0]
    Policy().check(plan, session)
    with pytest.raises(ConsentError, match="2 of 40 members may collude safely"):
        Policy(min_corrupt=0.1).check(plan, session)
