"""Attacks on `oneshot` through sets: two of them, one twice, one too small. Numbers are those of docs/threats.md."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ridotto.core.machine import COORDINATOR, Envelope
from ridotto.crypto.seal import verify
from ridotto.errors import PeerProtocolError
from ridotto.secagg.committee_roles.agreement import ACK_CONTEXT, Equivocation, ack_statement, set_root, sign_ack
from ridotto.secagg.committee_roles.keys import book_root
from ridotto.secagg.committee_roles.messages import Ack, Acks, Included, SeatVote
from ridotto.secagg.oneshot.messages import Parcels, Release
from tests.secagg.committee_roles.attack import assert_exact, at_acknowledgement, changed, kind_of, lying
from tests.secagg.committee_roles.world import identity
from tests.secagg.oneshot.attack import HONEST, transcript
from tests.secagg.oneshot.world import World, make_setup

# --- 4.5 equivocation -------------------------------------------------------------------------------------------


SETS = ((0, 1, 2, 3, 4), (0, 1, 2, 3), (1, 2, 3, 4))


@given(shown=st.lists(st.sampled_from(SETS), min_size=3, max_size=3), order=st.permutations(range(3)))
@settings(max_examples=40)
def test_4_5_whatever_the_coordinator_shows_to_whom_at_most_one_set_is_released(
    shown: list[tuple[int, ...]], order: list[int]
) -> None:
    """Five members, two corrupt who sign and release what the coordinator likes. It tries every set on everybody."""
    setup, context = HONEST.setup, HONEST.setup.context
    book = book_root(context, HONEST.said("MemberBook")[0].message)
    digests = {parcel.participant: parcel.digest for parcel in HONEST.said("Parcels")[0].message.parcels}
    honest = ["m000", "m001", "m002"]
    machines = at_acknowledgement(HONEST, honest)
    votes: dict[bytes, list[SeatVote]] = {}
    for participants in SETS:
        root = set_root({index: digests[index] for index in participants})
        for seat in (3, 4):
            ack = sign_ack(identity(f"m00{seat}"), setup.sid, context, book, root)
            votes.setdefault(root, []).append(SeatVote(seat, ack.signature))
    for seat, name in enumerate(honest):
        ack = machines[name].receive(COORDINATOR, Included(setup.sid, shown[seat]), 0.0)[0].message
        votes[ack.root].append(SeatVote(seat, ack.signature))
        with pytest.raises(PeerProtocolError, match="came where Acks belongs"):
            machines[name].receive(COORDINATOR, Included(setup.sid, SETS[0]), 0.0)
    released = set()
    for place in order:
        for root, given_votes in votes.items():
            acks = Acks(setup.sid, tuple(sorted(given_votes, key=lambda vote: vote.seat)))
            try:
                effects = machines[honest[place]].receive(COORDINATOR, acks, 0.0)
            except PeerProtocolError:
                continue
            assert effects[0].message.root == root
            released.add(root)
    assert len(released) <= 1
    needed = setup.roster.quorum - 2
    assert bool(released) == any(shown.count(one) >= needed for one in SETS)


def test_4_5_two_sets_shown_open_nothing() -> None:
    """Half of the committee is told that p004 is not in it."""
    world = World(
        make_setup(),
        tamper=lying("Included", lambda e: changed(e, participants=(0, 1, 2, 3)), to=("m000", "m001", "m002")),
    )
    finish = world.run()
    assert finish.error.code == "COMMITTEE_SHORT"
    assert not world.said("Release")
    assert {world.refused[name] for name in ("m000", "m001", "m002")} == {"it acknowledged another set"}


def test_4_5_a_member_that_acknowledges_two_sets_is_proved_to() -> None:
    setup = make_setup()
    honest = transcript(setup)
    book = book_root(setup.context, honest.said("MemberBook")[0].message)
    second = sign_ack(identity("m003"), setup.sid, setup.context, book, b"r" * 32)

    def tamper(envelope: Envelope) -> list[Envelope]:
        both = kind_of(envelope) == "Ack" and envelope.sender == "m003"
        return [envelope, dataclasses.replace(envelope, message=second)] if both else [envelope]

    world = World(setup, tamper=tamper)
    assert_exact(world, world.run())
    proof = next(record for record in world.router.published if isinstance(record, Equivocation))
    assert (proof.member, proof.first.root == proof.second.root) == ("m003", False)
    for ack in (proof.first, proof.second):
        verify(identity("m003").public, ACK_CONTEXT, ack_statement(proof.context, proof.book, ack.root), ack.signature)


def test_4_5_a_forged_second_acknowledgement_proves_nothing() -> None:
    forged = Ack(make_setup().sid, b"r" * 32, b"s" * 64)
    world = World(
        make_setup(),
        tamper=lambda e: (
            [e, dataclasses.replace(e, message=forged)] if kind_of(e) == "Ack" and e.sender == "m003" else [e]
        ),
    )
    assert_exact(world, world.run())
    assert "m003" in world.refused
    assert not [record for record in world.router.published if isinstance(record, Equivocation)]


@pytest.mark.parametrize("lie", ["short", "unsorted", "forged"])
def test_4_5_acknowledgements_that_do_not_hold_are_refused(lie: str) -> None:
    def change(envelope: Envelope) -> Envelope:
        votes = envelope.message.votes
        forged = (*votes[:2], SeatVote(2, b"s" * 64), *votes[3:])
        return changed(envelope, votes={"short": votes[:4], "unsorted": votes[::-1], "forged": forged}[lie])

    world = World(make_setup(), tamper=lying("Acks", change, to=("m000",)))
    assert_exact(world, world.run())
    assert "acknowledg" in world.refused[COORDINATOR]


# --- 4.11 overlapping sums, 4.12 small cohorts --------------------------------------------------------------------


def test_4_11_a_member_releases_once() -> None:
    world = transcript(make_setup())
    machine = at_acknowledgement(world, ["m000"])["m000"]
    machine.receive(COORDINATOR, world.said("Included")[0].message, 0.0)
    acks = world.said("Acks")[0].message
    assert isinstance(machine.receive(COORDINATOR, acks, 0.0)[0].message, Release)
    for again in (acks, world.said("Included")[0].message, world.said("Parcels")[0].message):
        with pytest.raises(PeerProtocolError, match="nothing more belongs"):
            machine.receive(COORDINATOR, again, 0.0)


def test_4_11_parcels_are_opened_once() -> None:
    world = transcript(make_setup())
    machine = at_acknowledgement(world, ["m000"])["m000"]
    parcels = next(one.message for one in world.said("Parcels") if one.to == "m000")
    with pytest.raises(PeerProtocolError, match="Parcels came where Included belongs"):
        machine.receive(COORDINATOR, Parcels(parcels.sid, parcels.parcels[:3]), 0.0)


@pytest.mark.parametrize("kind", ["Parcels", "Included"])
def test_4_12_members_refuse_sets_below_the_minimum(kind: str) -> None:
    field = {"Parcels": "parcels", "Included": "participants"}[kind]
    world = World(make_setup(), tamper=lying(kind, lambda e: changed(e, **{field: getattr(e.message, field)[:2]})))
    finish = world.run()
    assert "the minimum is 3" in world.refused[COORDINATOR]
    assert finish.error.code == "COMMITTEE_SHORT"
    assert not world.said("Release")


def test_4_12_too_few_contributions_open_nothing() -> None:
    world = World(make_setup(), gone=("p000", "p001", "p002"))
    finish = world.run()
    assert finish.error.code == "TOO_FEW"
    assert not world.said("Parcels")


@pytest.mark.parametrize("participants", [(0, 1, 2, 7), (2, 1, 0), (0, 1, 1, 2), (0, 1, 2, 4)])
def test_4_12_sets_of_others_than_was_delivered_are_refused(participants: tuple[int, ...]) -> None:
    world = World(
        make_setup(),
        gone=("p004",),
        tamper=lying("Included", lambda e: changed(e, participants=participants), to=("m000",)),
    )
    assert_exact(world, world.run())
    assert "its set" in world.refused[COORDINATOR]
