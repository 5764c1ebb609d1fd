"""Attacks on `committee` through sets: two of them, one twice, one too small. Numbers are those of docs/threats.md."""

from __future__ import annotations

import dataclasses
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ridotto.core.machine import COORDINATOR, Envelope
from ridotto.crypto.seal import verify
from ridotto.errors import PeerProtocolError
from ridotto.secagg.committee.messages import MaskSum, SeedParcels
from ridotto.secagg.committee_roles.agreement import ACK_CONTEXT, Equivocation, ack_statement, set_root, sign_ack
from ridotto.secagg.committee_roles.keys import book_root
from ridotto.secagg.committee_roles.messages import Ack, Acks, Included, SeatVote
from tests.secagg.committee.attack import HONEST, transcript
from tests.secagg.committee.world import World, make_setup, release
from tests.secagg.committee_roles.attack import assert_exact, at_acknowledgement, changed, kind_of, lying
from tests.secagg.committee_roles.world import identity

# --- 4.5 equivocation -------------------------------------------------------------------------------------------

SETS = ((0, 1, 2, 3, 4), (0, 1, 2, 3), (1, 2, 3, 4))
BOOK = book_root(HONEST.setup.context, HONEST.said("MemberBook")[0].message)
DIGESTS = {parcel.participant: parcel.contribution for parcel in HONEST.said("SeedParcels")[0].message.parcels}
ROOTS = {shown: set_root({index: DIGESTS[index] for index in shown}) for shown in SETS}


def seat(name: str) -> int:
    return int(name[1:])


def ack_of(name: str, root: bytes) -> SeatVote:
    setup = HONEST.setup
    return SeatVote(seat(name), sign_ack(identity(name), setup.sid, setup.context, BOOK, root).signature)


@pytest.mark.parametrize("shown", list(product(SETS, repeat=3)))
def test_4_5_whatever_the_coordinator_shows_to_whom_a_slot_releases_at_most_once(
    shown: tuple[tuple[int, ...], ...],
) -> None:
    """All of slot 1 is corrupt and signs what the coordinator likes; slot 0 is honest. It tries every set on each."""
    honest = [HONEST.replica(0, place) for place in range(3)]
    machines = at_acknowledgement(HONEST, honest)
    votes = {root: [ack_of(HONEST.replica(1, place), root) for place in range(3)] for root in ROOTS.values()}
    for name, participants in zip(honest, shown, strict=True):
        ack = machines[name].receive(COORDINATOR, Included(HONEST.setup.sid, participants), 0.0)[0].message
        votes[ack.root].append(SeatVote(seat(name), ack.signature))
        with pytest.raises(PeerProtocolError, match="came where Acks belongs"):
            machines[name].receive(COORDINATOR, Included(HONEST.setup.sid, SETS[0]), 0.0)
    released = set()
    for name, root in product(honest, votes):
        acks = Acks(HONEST.setup.sid, tuple(sorted(votes[root], key=lambda vote: vote.seat)))
        try:
            released.add(release(machines[name], acks).message.root)
        except PeerProtocolError:
            continue
    assert len(released) <= 1
    assert bool(released) == any(shown.count(one) >= 2 for one in SETS)


@given(corrupt=st.integers(0, 5), shown=st.lists(st.sampled_from(SETS[:2]), min_size=5, max_size=5))
@settings(max_examples=25)
def test_4_5_corrupt_members_of_an_honest_members_slot_do_not_help(corrupt: int, shown: list[tuple[int, ...]]) -> None:
    """One corrupt member anywhere, the others shown either set: both are never released by every slot."""
    names = [one.name for one in HONEST.setup.roster.members]
    honest = [name for name in names if seat(name) != corrupt]
    machines = at_acknowledgement(HONEST, honest)
    votes = {root: [ack_of(names[corrupt], root)] for root in ROOTS.values()}
    for name, participants in zip(honest, shown, strict=True):
        ack = machines[name].receive(COORDINATOR, Included(HONEST.setup.sid, participants), 0.0)[0].message
        votes[ack.root].append(SeatVote(seat(name), ack.signature))
    slots: dict[bytes, set[int]] = {root: {HONEST.setup.slots[corrupt]} for root in votes}
    for name, root in product(honest, votes):
        acks = Acks(HONEST.setup.sid, tuple(sorted(votes[root], key=lambda vote: vote.seat)))
        try:
            release(machines[name], acks)
        except PeerProtocolError:
            continue
        slots[root].add(HONEST.setup.slots[seat(name)])
    assert sum(found == {0, 1} for found in slots.values()) <= 1


def test_4_5_two_sets_shown_open_nothing() -> None:
    """One slot is told that p004 is not in it."""
    told = tuple(HONEST.replica(0, place) for place in range(3))
    lie = lying("Included", lambda e: changed(e, participants=(0, 1, 2, 3)), to=told)
    world = World(make_setup(), tamper=lie)
    finish = world.run()
    assert (finish.error.code, world.opened()) == ("SLOT_LOST", None)
    assert not world.said("MaskSum")
    assert {world.refused[name] for name in told} == {"it acknowledged another set"}


def test_4_5_a_member_that_acknowledges_two_sets_is_proved_to() -> None:
    setup = make_setup()
    second = sign_ack(identity("m003"), setup.sid, setup.context, BOOK, b"r" * 32)

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

    def tamper(envelope: Envelope) -> list[Envelope]:
        both = kind_of(envelope) == "Ack" and envelope.sender == "m003"
        return [envelope, dataclasses.replace(envelope, message=forged)] if both else [envelope]

    world = World(make_setup(), tamper=tamper)
    assert_exact(world, world.run())
    assert "m003" in world.refused
    assert not [record for record in world.router.published if isinstance(record, Equivocation)]


@pytest.mark.parametrize("lie", ["short", "unsorted", "forged"])
def test_4_5_acknowledgements_that_do_not_hold_are_refused(lie: str) -> None:
    own = HONEST.setup.replicas[HONEST.setup.slots[0]]

    def change(envelope: Envelope) -> Envelope:
        votes = envelope.message.votes
        short = tuple(vote for vote in votes if vote.seat not in own[1:])
        forged = tuple(SeatVote(vote.seat, b"s" * 64) if vote.seat in own[:2] else vote for vote in votes)
        return changed(envelope, votes={"short": short, "unsorted": votes[::-1], "forged": forged}[lie])

    world = World(make_setup(), tamper=lying("Acks", change, to=("m000",)))
    assert_exact(world, world.run())
    assert "acknowledg" in world.refused[COORDINATOR]


# --- 4.11 overlapping sums, 4.12 small cohorts --------------------------------------------------------------------


def test_4_11_a_member_releases_once() -> None:
    world = transcript(make_setup())
    machine = at_acknowledgement(world, ["m000"])["m000"]
    machine.receive(COORDINATOR, world.said("Included")[0].message, 0.0)
    acks = world.said("Acks")[0].message
    assert isinstance(release(machine, acks).message, MaskSum)
    for again in (acks, world.said("Included")[0].message, world.said("SeedParcels")[0].message):
        with pytest.raises(PeerProtocolError, match="nothing more belongs"):
            machine.receive(COORDINATOR, again, 0.0)


def test_4_11_nothing_is_taken_while_masks_are_added_up() -> None:
    machine = at_acknowledgement(HONEST, ["m000"])["m000"]
    included, acks = HONEST.said("Included")[0].message, HONEST.said("Acks")[0].message
    machine.receive(COORDINATOR, included, 0.0)
    machine.receive(COORDINATOR, acks, 0.0)
    for again in (acks, included):
        with pytest.raises(PeerProtocolError, match="where Summed belongs"):
            machine.receive(COORDINATOR, again, 0.0)


def test_4_11_parcels_are_opened_once() -> None:
    machine = at_acknowledgement(HONEST, ["m000"])["m000"]
    parcels = next(one.message for one in HONEST.said("SeedParcels") if one.to == "m000")
    with pytest.raises(PeerProtocolError, match="SeedParcels came where Included belongs"):
        machine.receive(COORDINATOR, SeedParcels(parcels.sid, parcels.parcels[:3]), 0.0)


@pytest.mark.parametrize("kind", ["SeedParcels", "Included"])
def test_4_12_members_refuse_sets_below_the_minimum(kind: str) -> None:
    field = {"SeedParcels": "parcels", "Included": "participants"}[kind]
    world = World(make_setup(), tamper=lying(kind, lambda e: changed(e, **{field: getattr(e.message, field)[:2]})))
    finish = world.run()
    assert "the minimum is 3" in world.refused[COORDINATOR]
    assert finish.error.code == "SLOT_LOST"
    assert not world.said("MaskSum")


def test_4_12_too_few_contributions_open_nothing() -> None:
    world = World(make_setup(), gone=("p000", "p001", "p002"))
    finish = world.run()
    assert finish.error.code == "TOO_FEW"
    assert not world.said("SeedParcels")


@pytest.mark.parametrize("participants", [(0, 1, 2, 7), (2, 1, 0), (0, 1, 1, 2), (0, 1, 2, 4)])
def test_4_12_sets_of_others_than_was_delivered_are_refused(participants: tuple[int, ...]) -> None:
    lie = lying("Included", lambda e: changed(e, participants=participants), to=("m000",))
    world = World(make_setup(), gone=("p004",), tamper=lie)
    assert_exact(world, world.run())
    assert "its set" in world.refused[COORDINATOR]
