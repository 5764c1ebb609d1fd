"""What machines of `oneshot` refuse although it is signed or comes from inside: one test each."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from msgspec.structs import replace

from ridotto.core.machine import COORDINATOR, Envelope
from ridotto.core.rng import insecure_seeded_rng
from ridotto.errors import LocalProtocolError, PeerProtocolError, RoundFailedError
from ridotto.secagg.committee_roles.keys import signed_key
from ridotto.secagg.committee_roles.messages import MemberBook, MemberEntry
from ridotto.secagg.oneshot import OneshotParticipant
from ridotto.secagg.oneshot.release import recover
from tests.secagg.committee_roles.attack import assert_exact, changed, kind_of, lying, reasons
from tests.secagg.committee_roles.world import identity
from tests.secagg.oneshot.attack import HONEST, resigned
from tests.secagg.oneshot.world import World, make_setup

LOW_ORDER = b"\x01" + bytes(31)


def test_a_member_that_shows_another_members_key_is_refused() -> None:
    setup = make_setup()
    stolen: list[bytes] = []

    def lie(envelope: Envelope) -> Envelope:
        if envelope.sender == "m000":
            stolen.append(envelope.message.public)
            return envelope
        copied = signed_key(identity("m001"), setup.sid, setup.context, 1, stolen[0])
        return dataclasses.replace(envelope, message=copied)

    world = World(setup, tamper=lying("MemberKey", lie, ("m000", "m001")))
    assert_exact(world, world.run())
    assert world.refused["m001"] == "its key is another member's"


def test_a_signed_key_of_low_order_is_refused_by_everybody() -> None:
    """Also by a participant, to whom a coordinator and a corrupt member show it together."""
    setup = make_setup()
    message = signed_key(identity("m001"), setup.sid, setup.context, 1, LOW_ORDER)
    world = World(setup, tamper=lying("MemberKey", lambda e: dataclasses.replace(e, message=message), ("m001",)))
    assert_exact(world, world.run())
    assert ("coordinator", "its key is unusable") in reasons(world)
    book = world.said("MemberBook")[0].message
    entry = MemberEntry(1, LOW_ORDER, message.signature)
    shown = MemberBook(book.sid, (book.entries[0], entry, *book.entries[1:]))
    with pytest.raises(PeerProtocolError, match="unusable key of m001"):
        world.participant(0).receive(COORDINATOR, shown, 0.0)


def test_a_book_with_one_key_of_two_members_is_refused() -> None:
    setup = make_setup()
    honest = World(setup)
    honest.run()
    book = honest.said("MemberBook")[0].message
    copied = signed_key(identity("m001"), setup.sid, setup.context, 1, book.entries[0].public)
    twice = MemberBook(book.sid, (book.entries[0], MemberEntry(1, copied.public, copied.signature), *book.entries[2:]))
    with pytest.raises(PeerProtocolError, match="one key twice"):
        honest.participant(0).receive(COORDINATOR, twice, 0.0)


@pytest.mark.parametrize(
    ("fields", "why"),
    [({"public": LOW_ORDER}, "its key is unusable"), ({"book": b"x" * 32}, "it was shown another book of members")],
)
def test_signed_contributions_that_do_not_fit_are_refused(fields: dict[str, bytes], why: str) -> None:
    setup = make_setup()
    world = World(setup, tamper=lying("Contribution", lambda e: resigned(setup, e, **fields), ("p001",)))
    assert_exact(world, world.run(), ("p000", "p002", "p003", "p004"))
    assert world.refused["p001"] == why


def test_a_late_contribution_is_refused_and_not_folded() -> None:
    """The participant has 100 seconds and takes 105; the committee is slow enough for the session to last that long."""

    def slow(envelope: Envelope) -> list[Envelope]:
        wait = {"Contribution": 105.0 if envelope.sender == "p001" else 0.0, "Checked": 9.0}.get(kind_of(envelope), 0.0)
        return [dataclasses.replace(envelope, at=envelope.at + wait)]

    world = World(make_setup(), tamper=slow)
    finish = world.run()
    assert_exact(world, finish, ("p000", "p002", "p003", "p004"))
    assert finish.result.lost == {"p001": "sent no Contribution"}
    assert world.refused["p001"] == "its Contribution came too late"


def test_a_second_different_contribution_is_refused() -> None:
    setup = make_setup()

    def twice(envelope: Envelope) -> list[Envelope]:
        if kind_of(envelope) != "Contribution" or envelope.sender != "p001":
            return [envelope]
        return [envelope, changed(envelope, signature=b"s" * 64)]

    world = World(setup, tamper=twice)
    assert_exact(world, world.run(), ("p000", "p001", "p002", "p003", "p004"))
    assert world.refused["p001"] == "sent a second, different Contribution"


@pytest.mark.parametrize("kind", ["signature", "order"])
def test_members_refuse_parcels_that_the_coordinator_changed(kind: str) -> None:
    def lie(envelope: Envelope) -> Envelope:
        first, *rest = envelope.message.parcels
        parcels = (replace(first, signature=b"s" * 64), *rest) if kind == "signature" else (*rest, first)
        return changed(envelope, parcels=parcels)

    world = World(make_setup(), tamper=lying("Parcels", lie, to=("m000",)))
    assert_exact(world, world.run())
    whys = [why for name, why in reasons(world) if name == "m000"]
    assert whys[0] in (
        "the contribution of p000 bears no valid signature",
        "its parcels are not sorted by participant",
    )


def test_a_vector_of_another_length_is_the_callers_fault() -> None:
    setup = make_setup()
    vector = np.zeros(setup.session.length - 1, np.uint32)
    with pytest.raises(LocalProtocolError, match="elements"):
        OneshotParticipant(setup, "p000", identity("p000"), vector, insecure_seeded_rng(1), setup.roster.members)


def test_too_few_shares_recover_nothing() -> None:
    with pytest.raises(RoundFailedError, match="1 members released, 3 are needed"):
        recover(HONEST.setup, {0: bytes(HONEST.setup.sharing.share_bytes)}, 5)
