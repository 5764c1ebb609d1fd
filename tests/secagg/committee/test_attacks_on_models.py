"""Attacks on `committee` through models, names, committees and keys. Numbers are those of docs/threats.md."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from ridotto.core.machine import COORDINATOR, Envelope
from ridotto.core.rng import insecure_seeded_rng
from ridotto.crypto.seal import ExchangeKey
from ridotto.errors import PeerProtocolError
from ridotto.secagg.committee import CommitteeParticipant, CommitteeSetup
from ridotto.secagg.committee_roles.keys import book_root, signed_key
from ridotto.secagg.committee_roles.messages import MemberBook, MemberEntry
from tests.secagg.committee.attack import HONEST
from tests.secagg.committee.world import World, make_setup
from tests.secagg.committee_roles.attack import assert_exact, changed, faults_of, lying, reasons
from tests.secagg.committee_roles.world import identity, make_pool, make_vector, member

LOW_ORDER = b"\x01" + bytes(31)

# --- 4.1 model inconsistency ------------------------------------------------------------------------------------


def test_4_1_participants_of_two_models_never_share_a_sum() -> None:
    """One bit of the model differs: other keys, masks, seals, signatures; the committee of one refuses the other."""
    honest, other = make_setup(), make_setup(model=b"m" * 31 + b"n")
    assert honest.context != other.context
    world = World(honest)
    world.swap = {name: world.participant(index, other) for index, name in ((1, "p001"), (2, "p002"))}
    finish = world.run()
    assert world.refused[COORDINATOR] == "its MemberBook belongs to another session"
    assert_exact(world, finish, ("p000", "p003", "p004"))


def test_4_1_a_relabelled_vector_of_another_model_is_refused() -> None:
    """Members who sign keys for both models, and a coordinator that changes the sid: the signature is over the true."""
    honest, other = make_setup(), make_setup(model=b"m" * 31 + b"n")
    elsewhere = World(other)
    elsewhere.run()
    stolen = next(one for one in elsewhere.said("MaskedVector") if one.sender == "p001")
    root = book_root(honest.context, HONEST.said("MemberBook")[0].message)
    lie = lambda e: dataclasses.replace(  # noqa: E731
        e, message=replace(stolen.message, sid=honest.sid, book=root), attachment=stolen.attachment
    )
    world = World(honest, tamper=lying("MaskedVector", lie, ("p001",)))
    finish = world.run()
    assert world.refused["p001"] == "its vector bears no valid signature"
    assert_exact(world, finish, ("p000", "p002", "p003", "p004"))


def test_4_1_a_member_of_another_model_is_refused() -> None:
    world = World(make_setup())
    world.swap = {"m001": world.member("m001", make_setup(model=b"x" * 32))}
    assert_exact(world, world.run())
    assert "m001" in world.refused


# --- 4.3 sybils, 4.4 chosen committee ---------------------------------------------------------------------------


def test_4_3_an_identity_that_is_not_in_the_roster_is_refused() -> None:
    lie = lambda e: dataclasses.replace(e, sender="sybil")  # noqa: E731
    world = World(make_setup(), tamper=lying("MaskedVector", lie, ("p001",)))
    finish = world.run()
    assert world.refused["sybil"] == "is no participant of this session"
    assert "p001" not in finish.result.included


def participant(setup: CommitteeSetup, **arguments: object) -> CommitteeParticipant:
    pool = arguments.pop("pool", setup.roster.members)
    rng = insecure_seeded_rng(1)
    return CommitteeParticipant(setup, "p000", identity("p000"), make_vector(setup, 0), rng, pool, **arguments)


def test_4_4_a_hand_picked_committee_is_refused_by_the_participant() -> None:
    with pytest.raises(PeerProtocolError, match="not the one that the beacon chooses"):
        participant(make_setup(), pool=make_pool(40))


def test_4_4_a_changed_member_is_refused_by_the_participant() -> None:
    setup = make_setup()
    roster = replace(setup.roster, members=(*setup.roster.members[:-1], member("z000")))
    other = CommitteeSetup(setup.session, roster, setup.slots, setup.tail)
    with pytest.raises(PeerProtocolError, match="committee"):
        participant(other, pool=setup.roster.members)


def test_4_4_hand_picked_slots_are_refused_by_the_participant() -> None:
    """A coordinator that works with one organisation puts one of its members into every slot."""
    setup = make_setup()
    picked = (0, 0, 0, 1, 1, 1) if setup.slots != (0, 0, 0, 1, 1, 1) else (1, 1, 1, 0, 0, 0)
    other = CommitteeSetup(setup.session, setup.roster, picked, setup.tail)
    with pytest.raises(PeerProtocolError, match="its slots are not those that were agreed on"):
        participant(other)
    participant(other, slots=picked)
    with pytest.raises(PeerProtocolError, match="its slots"):
        participant(setup, slots=picked)


# --- 4.12 small cohorts, as the participant sees them, 4.13 keys --------------------------------------------------


def test_4_13_a_swapped_member_key_is_refused_by_everyone_who_is_shown_it() -> None:
    public = ExchangeKey.generate(insecure_seeded_rng(9)).public

    def lie(envelope: Envelope) -> Envelope:
        first, *rest = envelope.message.entries
        return changed(envelope, entries=(replace(first, public=public), *rest))

    world = World(make_setup(), tamper=lying("MemberBook", lie, to=("p000", "m001")))
    finish = world.run()
    assert ("p000", "the key of m000 bears no valid signature") in reasons(world)
    assert ("m001", "the key of m000 bears no valid signature") in reasons(world)
    assert_exact(world, finish, ("p001", "p002", "p003", "p004"))
    assert faults_of(world)["m001"] == "sent no Checked"


def without(entries: tuple[MemberEntry, ...], seats: tuple[int, ...]) -> tuple[MemberEntry, ...]:
    return tuple(entry for entry in entries if entry.seat not in seats)


@pytest.mark.parametrize(
    ("lie", "why"),
    [
        (lambda entries: tuple(reversed(entries)), "not a sorted list"),
        (lambda entries: entries[:3], "3 members, 4 are needed"),
        (lambda entries: (*entries, entries[-1]), "not a sorted list"),
        (lambda entries: without(entries, HONEST.setup.replicas[1][:2]), "no majority of slot 1"),
    ],
)
def test_4_13_books_that_are_short_or_unsorted_are_refused(lie: Callable[..., object], why: str) -> None:
    """Without a majority of every slot in the book, the coordinator could choose who must agree."""
    change = lambda e: changed(e, entries=lie(e.message.entries))  # noqa: E731
    world = World(make_setup(), tamper=lying("MemberBook", change, to=("p000", "m000")))
    world.run()
    assert [name for name, reason in reasons(world) if why in reason] == ["m000", "p000"]


def test_4_13_a_member_refuses_a_book_without_its_key() -> None:
    lie = lambda e: changed(e, entries=e.message.entries[1:])  # noqa: E731
    world = World(make_setup(), tamper=lying("MemberBook", lie, to=("m000",)))
    assert_exact(world, world.run())
    assert ("m000", "its book does not show my key") in reasons(world)


def test_4_13_a_member_that_shows_another_members_key_is_refused() -> None:
    setup = make_setup()
    stolen = HONEST.said("MemberKey")[0].message.public
    copied = signed_key(identity("m001"), setup.sid, setup.context, 1, stolen)
    world = World(setup, tamper=lying("MemberKey", lambda e: dataclasses.replace(e, message=copied), ("m001",)))
    assert_exact(world, world.run())
    assert world.refused["m001"] == "its key is another member's"


def test_4_13_a_signed_key_of_low_order_is_refused_by_everybody() -> None:
    """Also by a participant, to whom a coordinator and a corrupt member show it together; its vector is untouched."""
    setup = make_setup()
    message = signed_key(identity("m001"), setup.sid, setup.context, 1, LOW_ORDER)
    world = World(setup, tamper=lying("MemberKey", lambda e: dataclasses.replace(e, message=message), ("m001",)))
    assert_exact(world, world.run())
    assert (COORDINATOR, "its key is unusable") in reasons(world)
    book = world.said("MemberBook")[0].message
    shown = MemberBook(book.sid, (book.entries[0], MemberEntry(1, LOW_ORDER, message.signature), *book.entries[1:]))
    machine = world.participant(0)
    with pytest.raises(PeerProtocolError, match="unusable key of m001"):
        machine.receive(COORDINATOR, shown, 0.0)
    honest = world.said("MaskedVector")[0]
    assert machine.receive(COORDINATOR, book, 0.0)[0].message == honest.message
