"""The helper's half of a round, and what participants check about helpers."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ridotto.core.machine import COORDINATOR, SELF, Do, Envelope, Send
from ridotto.core.rng import insecure_seeded_rng
from ridotto.crypto.seal import IdentityKey
from ridotto.errors import ConsentError, LocalProtocolError, PeerProtocolError, PlanError
from ridotto.rounds.messages import ANNOUNCE_CONTEXT, Announce, Closed, Decline
from ridotto.rounds.plan import Committee, Helpers, Oneshot, Plan
from ridotto.rounds.policy import Policy
from ridotto.secagg.committee.tasks import Summed
from ridotto.secagg.committee_roles.messages import Included, MemberKey
from ridotto.secagg.session import CommitteeSession, Member, session_id
from tests.conformance.world import identity
from tests.rounds.federation import ANYTHING, Federation, assert_mean, make_plan, names

SERVED = make_plan(protocol="committee")


def federation(plan: Plan = SERVED, **changes: Any) -> Federation:
    return Federation(plan, **changes)


def announced(fed: Federation, name: str = "h000", **changes: Any) -> Announce:
    """Return what a helper is told, with other fields in its session, signed anew."""
    fed.begin()
    sent = [effect.message for effect in fed.coordinator().start(0.0) if isinstance(effect, Send) and effect.to == name]
    session = msgspec.structs.replace(sent[0].session, **changes)
    signature = identity(COORDINATOR).sign(ANNOUNCE_CONTEXT, session_id(session))
    return Announce(changes.pop("plan_of", sent[0].plan), session, signature)


def refused(fed: Federation, announce: Announce) -> str:
    with pytest.raises(PeerProtocolError) as caught:
        fed.helper("h000").receive(COORDINATOR, announce, 0.0)
    assert caught.value.peer == COORDINATOR
    return caught.value.why


def test_helpers_open_the_sum_and_see_the_end() -> None:
    fed = federation()
    assert fed.run().error is None
    assert_mean(fed, range(5))
    assert sorted(name for name in fed.finished if name.startswith("h")) == [f"h{place:03}" for place in range(6)]
    assert {type(fed.finished[f"h{place:03}"].result) for place in range(6)} == {Closed}


def test_helpers_serve_in_several_sessions_at_once() -> None:
    """Two sessions of four and two slots of two helpers each: everybody serves twice."""
    fed = federation(make_plan(8, Committee(shard_size=4, replicas=2)))
    record = fed.run().result
    assert [len(session.included) for session in record.sessions] == [4, 4]
    keys = [envelope for envelope in fed.sent if isinstance(envelope.message, MemberKey)]
    assert sorted(envelope.sender for envelope in keys) == sorted(2 * [f"h{place:03}" for place in range(4)])
    assert len({envelope.message.public for envelope in keys}) == 8


def test_sessions_share_their_helpers_work() -> None:
    """Of many helpers, every session draws others: nobody serves everywhere."""
    keys = {f"h{place:03}": identity(f"h{place:03}").public.hex() for place in range(40)}
    fed = federation(make_plan(40, Committee(shard_size=4, replicas=1, helpers=Helpers(keys=keys))))
    assert fed.run().error is None
    served = [envelope.sender for envelope in fed.sent if isinstance(envelope.message, MemberKey)]
    assert len(served) == 20
    assert len(set(served)) > 12


def test_a_helper_whose_policy_refuses_says_so_and_ends_with_it() -> None:
    fed = federation(policies={"h001": Policy(min_participants=10, i_know=ANYTHING.i_know, min_corrupt=0.0)})
    record = fed.run().result
    assert not record.failure
    assert isinstance(fed.finished["h001"].error, ConsentError)
    declined = [envelope for envelope in fed.sent if isinstance(envelope.message, Decline)]
    assert [envelope.sender for envelope in declined] == ["h001"]


def test_helpers_that_fall_silent_are_not_blamed() -> None:
    """All of them: no slot is left, and still nobody is kept out of later rounds."""

    def silent(envelope: Envelope) -> list[Envelope]:
        return [] if envelope.sender.startswith("h") else [envelope]

    record = federation(tamper=silent).run().result
    assert record.failure.startswith("SLOT_LOST")
    assert record.blamed == ()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"committee": 4}, "parameters are not the plan's"),
        ({"helpers_corrupt": 2}, "parameters are not the plan's"),
        ({"minimum": 4}, "parameters are not the plan's"),
        ({"helpers": (), "helpers_corrupt": 0, "committee": 5}, "do not say the same about helpers"),
    ],
)
def test_a_session_that_is_not_the_plans_is_refused_by_helpers_and_participants(
    changes: dict[str, Any], why: str
) -> None:
    fed = federation()
    announce = announced(fed, **changes)
    assert why in refused(fed, announce)
    with pytest.raises(PeerProtocolError, match=why):
        fed.participant("p000").receive(COORDINATOR, announce, 0.0)


def test_helpers_that_the_plan_does_not_name_are_refused() -> None:
    """A coordinator puts its friends among the helpers: everybody sees that the plan names others."""
    plan = make_plan(
        protocol=Committee(helpers=Helpers(keys={f"h{i:03}": identity(f"x{i}").public.hex() for i in range(6)}))
    )
    fed = federation(plan)
    assert "is no helper that the plan names" in refused(fed, announced(fed))
    with pytest.raises(PeerProtocolError, match=r"h000 with key \w+ is no helper that the plan names"):
        fed.participant("p000").receive(COORDINATOR, announced(fed, "p000"), 0.0)


def test_a_helper_without_a_seat_is_not_announced_to() -> None:
    fed = federation()
    announce = announced(fed)
    stranger = fed.helper("h000")
    stranger._identity = IdentityKey.generate(insecure_seeded_rng(9))
    with pytest.raises(PeerProtocolError, match="do not have me with my key"):
        stranger.receive(COORDINATOR, announce, 0.0)


def test_only_the_coordinators_announcement_is_heard_and_once() -> None:
    fed = federation()
    announce, helper = announced(fed), fed.helper("h000")
    forged = msgspec.structs.replace(announce, signature=bytes(64))
    assert "not signed" in refused(fed, forged)
    with pytest.raises(PeerProtocolError, match="only the coordinator"):
        helper.receive("p000", announce, 0.0)
    assert [type(effect.message) for effect in helper.receive(COORDINATOR, announce, 0.0)] == [MemberKey]
    with pytest.raises(PeerProtocolError, match="announced one session twice"):
        helper.receive(COORDINATOR, announce, 0.0)


def test_messages_of_other_sessions_and_sums_that_nobody_asked_for() -> None:
    fed = federation()
    helper = fed.helper("h000")
    with pytest.raises(PeerProtocolError, match="was not announced"):
        helper.receive(COORDINATOR, Included(bytes(32), (1,)), 0.0)
    with pytest.raises(LocalProtocolError, match="is not the result"):
        helper.receive(SELF, Included(bytes(32), (1,)), 0.0)
    # A round may be closed while masks are being added up.
    assert helper.receive(SELF, Summed(bytes(32), b""), 0.0) == []


def test_a_declined_session_takes_no_more_messages() -> None:
    fed = federation(policies={"h000": Policy(min_participants=10, i_know=ANYTHING.i_know, min_corrupt=0.0)})
    helper, announce = fed.helper("h000"), announced(fed)
    helper.receive(COORDINATOR, announce, 0.0)
    with pytest.raises(PeerProtocolError, match="that I declined"):
        helper.receive(COORDINATOR, Included(session_id(announce.session), (1,)), 0.0)


def test_a_helper_speaks_in_sessions_only_in_which_it_has_a_seat() -> None:
    keys = {f"h{place:03}": identity(f"h{place:03}").public.hex() for place in range(20)}
    fed = federation(make_plan(8, Committee(shard_size=4, replicas=1, helpers=Helpers(keys=keys))))
    fed.begin()
    machine = fed.coordinator()
    told: dict[str, set[bytes]] = {}
    for effect in machine.start(0.0):
        if isinstance(effect, Send):
            told.setdefault(effect.to, set()).add(session_id(effect.message.session))
    seated = next(name for name in told if name.startswith("h") and len(told[name]) == 1)
    (other,) = set.union(*told.values()) - told[seated]
    with pytest.raises(PeerProtocolError, match="is for a session in which it has no seat"):
        machine.receive(seated, MemberKey(other, bytes(32), bytes(64)), 0.0)
    unseated = next(name for name in keys if name not in told)
    with pytest.raises(PeerProtocolError, match="is not in this round's cohort"):
        machine.receive(unseated, MemberKey(other, bytes(32), bytes(64)), 0.0)


def test_a_participant_can_not_speak_as_a_helper() -> None:
    fed = federation()
    fed.begin()
    machine = fed.coordinator()
    sid = next(session_id(effect.message.session) for effect in machine.start(0.0) if isinstance(effect, Send))
    with pytest.raises(PeerProtocolError, match="p000: is no committee member of this session"):
        machine.receive("p000", MemberKey(sid, bytes(32), bytes(64)), 0.0)


def test_a_helper_asks_its_driver_for_sums_of_masks_only() -> None:
    fed = federation()
    fed.run()
    assert {type(task).__name__ for task in fed.tasks} >= {"SumMasks", "Keep", "Unmask", "Settle"}
    assert not any(isinstance(effect, Do) for effect in fed.helper("h000").start(0.0))


@pytest.mark.parametrize(
    ("known", "refuses"), [(("h000", "h001", "h002", "h003", "h004"), False), (("h000", "h001", "h002", "h003"), True)]
)
def test_a_policy_refuses_more_strangers_among_helpers_than_may_be_corrupt(
    known: tuple[str, ...], refuses: bool
) -> None:
    """Six helpers, one of whom may be corrupt: five must be known, whoever the plan names."""
    trusted = {name: identity(name).public.hex() for name in known}
    policy = msgspec.structs.replace(ANYTHING, helpers=trusted)
    fed = federation(policies=dict.fromkeys(names(5), policy))
    record = fed.run().result
    if refuses:
        assert "2 of 6 helpers are strangers, h004 among them, and 1 may be corrupt" in str(fed.finished["p000"].error)
    assert bool(record.failure) is refuses


@pytest.mark.parametrize(
    ("protocol", "why"),
    [
        (lambda: Committee(corrupt=0.5), "corrupt is a fraction"),
        (lambda: Committee(replicas=0), "every slot one"),
        (lambda: Committee(replicas=600), "at most 1024 seats"),
        (lambda: Committee(shard_size=2000), "shard_size is 3 to 1024"),
        (lambda: Helpers(corrupt=0), "corrupt helpers are 1 to 1023"),
        (lambda: Helpers(keys={"a/b": "0" * 64}), "can't name a helper"),
        (lambda: Helpers(keys={"coordinator": "0" * 64}), "can't name a helper"),
        (lambda: Helpers(keys={"a": "XY"}), "64 lower-case hex digits"),
        (lambda: Helpers(keys={"a": "0" * 64, "b": "0" * 64}), "one identity key"),
        (lambda: make_plan(protocol=Committee(helpers=Helpers(keys={"a": "0" * 64}))), "2 slots, each with a helper"),
        (
            lambda: make_plan(1024, Committee(helpers=Helpers(corrupt=255), replicas=1), minimum=100),
            "would be sent up to [0-9]+ bytes of parcels",
        ),
        (lambda: make_plan(40, Committee(), minimum=3), r"committee needs minimum >= corrupt \+ 2 = 4"),
        (
            lambda: make_plan(protocol=Oneshot(corrupt=0.0, helpers=Helpers(corrupt=4), committee=4)),
            r"t = 4 may be corrupt \(the corrupt helpers\)",
        ),
    ],
)
def test_what_can_not_work_is_refused_with_its_reason(protocol: Any, why: str) -> None:
    with pytest.raises(PlanError, match=why):
        protocol()


@pytest.mark.parametrize(("helpers", "seats", "spare"), [(2, 2, 0), (4, 4, 0), (6, 6, 1), (9, 6, 1)])
def test_seats_and_who_may_be_missing(helpers: int, seats: int, spare: int) -> None:
    protocol = Committee()
    assert (protocol.seats(100, helpers), protocol.spare(100, helpers)) == (seats, spare)


def test_a_plan_is_the_same_in_whichever_order_it_names_helpers() -> None:
    keys = {name: identity(name).public.hex() for name in ("b", "a", "c")}
    one = make_plan(protocol=Committee(helpers=Helpers(keys=keys)))
    other = make_plan(protocol=Committee(helpers=Helpers(keys=dict(sorted(keys.items())))))
    assert one.fingerprint() == other.fingerprint()


def test_what_is_promised_says_whom_to_trust() -> None:
    words = SERVED.protection()
    assert "Trusted: all but 1 of 6 helpers, who open the sum, not to work with the coordinator." in words
    assert "more than half of the helpers in each of 2 slots stay" in words
    words = make_plan(protocol=Oneshot(corrupt=0.0, committee=7, helpers=Helpers())).protection()
    assert "Trusted: all but 1 of 7 helpers" in words
    assert "and 5 of 7 helpers stay to the end" in words


def test_sessions_with_impossible_helpers_are_no_sessions() -> None:
    session = announced(federation()).session
    assert isinstance(session, CommitteeSession)
    member = session.members[0]
    for helpers, why in [
        (session.helpers[::-1], "sorted by name"),
        ((Member(member.name, session.helpers[0].key), *session.helpers[1:])[::-1], "sorted"),
        ((Member("h000", member.key), *session.helpers[1:]), "a key of its own"),
        ((*session.helpers[:-1], Member("p000", session.helpers[-1].key)), "a name"),
    ]:
        with pytest.raises(PlanError, match=why):
            msgspec.structs.replace(session, helpers=helpers)
    with pytest.raises(PlanError, match="can't be corrupt"):
        msgspec.structs.replace(session, helpers_corrupt=6)


def test_a_session_that_can_not_be_is_the_coordinators_fault() -> None:
    """Whatever it announces, a helper refuses by name and goes on."""
    fed = federation()
    for changes in ({"committee": 7}, {"committee": 3, "helpers_corrupt": 2}):
        assert refused(fed, announced(fed, **changes))
    session = announced(fed).session
    for changes, why in (({"tail": session.length + 1}, "longer than"), ({"sigma": -0.0}, "from 0 up")):
        with pytest.raises(PlanError, match=why):
            msgspec.structs.replace(session, **changes)


def test_masks_that_would_fill_the_memory_are_declined() -> None:
    fed = federation()
    helper, announce = fed.helper("h000"), announced(fed, length=2**30)
    (said,) = helper.receive(COORDINATOR, announce, 0.0)
    assert isinstance(said.message, Decline)
    assert "masks of 268435456 elements at most" in said.message.reason
